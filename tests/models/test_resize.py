"""A model for clips of another size: the same weights, and positions that keep their meaning."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.models.conftest import MAE_ST, MAE_ST_RELEASED, TINY, TINY_DECODER, randomize
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.save import save_model
from tubelet.clips import DenseClip
from tubelet.errors import UserError
from tubelet.masking import RandomMasking
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.layers import DropPath
from tubelet.models.positions import sinusoid_table
from tubelet.models.resize import resize_model
from tubelet.patches import Size3

PLAIN = AutoencoderConfig(encoder=TINY, decoder=TINY_DECODER)  # a grid of 2 x 4 x 4
JOINT = replace(MAE_ST, encoder=replace(MAE_ST.encoder, positions="joint"))
CONFIGS = {"sinusoid": PLAIN, "separable": MAE_ST, "joint": JOINT, "released": MAE_ST_RELEASED}


def make(config: AutoencoderConfig) -> MaskedAutoencoder:
    model = MaskedAutoencoder(config).eval()
    randomize(model)
    return model


def clip(frames: int, size: int, batch: int = 2) -> Tensor:
    shape = (batch, frames, 3, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def stretched(table: Tensor, old: Size3, new: Size3) -> Tensor:
    """By hand: bicubic in the frame, then each new time from the two old ones around it."""
    planes = table[0].T.reshape(-1, *old)  # (D, t, h, w)
    planes = functional.interpolate(planes, (new.h, new.w), mode="bicubic", align_corners=False)
    times = []
    for time in range(new.t):
        position = min(max((time + 0.5) * old.t / new.t - 0.5, 0), old.t - 1)
        before = int(position)
        after, share = min(before + 1, old.t - 1), position - before
        times.append(planes[:, before] * (1 - share) + planes[:, after] * share)
    return torch.stack(times, dim=1).flatten(1).T[None]


def same_but_positions(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    assert a.keys() == b.keys()
    fixed = [name for name in a if not name.endswith((".table", ".time", ".space"))]
    return all(torch.equal(a[name], b[name]) for name in fixed)


OLD, LARGER, SMALLER = Size3(2, 4, 4), Size3(3, 6, 6), Size3(1, 2, 2)
SIDES = [(LARGER, 24, 6), (SMALLER, 8, 2), (Size3(4, 4, 4), 16, 8), (Size3(2, 7, 7), 28, 4)]


@pytest.mark.parametrize(("new", "image_size", "frames"), SIDES)
@pytest.mark.parametrize("name", ["sinusoid", "separable", "joint"])
def test_positions_are_stretched_in_time_height_and_width(
    name: str, new: Size3, image_size: int, frames: int
):
    model = make(CONFIGS[name])
    resized = resize_model(model, image_size=image_size, frames=frames)
    assert resized.grid == new
    for old, found in ((model.encoder, resized.encoder), (model.decoder, resized.decoder)):
        expected = stretched(old.positions(), OLD, new)
        torch.testing.assert_close(found.positions(), expected, rtol=0, atol=1e-5)


def test_learned_tables_are_stretched_separately_by_position_and_time():
    model = make(MAE_ST)
    weights = resize_model(model, image_size=24, frames=6).state_dict()
    for part in ("encoder", "decoder"):
        space = model.state_dict()[f"{part}.positions.space"]
        time = model.state_dict()[f"{part}.positions.time"]
        torch.testing.assert_close(
            weights[f"{part}.positions.space"],
            stretched(space, Size3(1, 4, 4), Size3(1, 6, 6)),
            rtol=0,
            atol=1e-6,
        )
        torch.testing.assert_close(
            weights[f"{part}.positions.time"],
            stretched(time, Size3(2, 1, 1), Size3(3, 1, 1)),
            rtol=0,
            atol=1e-6,
        )


def test_fixed_positions_are_not_computed_for_the_new_flat_index():
    """Token 20 of another grid is another position."""
    resized = resize_model(make(PLAIN), image_size=24)
    assert resized.config.encoder.position_grid == OLD
    recomputed = sinusoid_table(resized.grid.volume, TINY.dim)
    assert (resized.encoder.positions() - recomputed).abs().max() > 0.5


@pytest.mark.parametrize("name", CONFIGS)
def test_all_other_weights_stay_and_the_model_is_not_changed(name: str):
    model = make(CONFIGS[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    resized = resize_model(model, image_size=24, frames=6)
    assert same_but_positions(before, resized.state_dict())
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert model.config == CONFIGS[name]
    mask = RandomMasking(ratio=0.75).sample(resized.grid, 2, torch.Generator().manual_seed(0))
    assert resized(clip(6, 24), mask).loss.isfinite()


@pytest.mark.parametrize("name", CONFIGS)
def test_at_its_own_size_a_model_stays_as_it_is(name: str):
    model = make(CONFIGS[name])
    mask = RandomMasking(ratio=0.75).sample(model.grid, 2, torch.Generator().manual_seed(0))
    for resized in (resize_model(model), resize_model(model, image_size=16, frames=4)):
        assert resized.config == model.config
        assert torch.equal(resized(clip(4, 16), mask).predicted, model(clip(4, 16), mask).predicted)


def test_what_makes_up_training_stays():
    config = ClassifierConfig(
        encoder=replace(TINY, depth=3, final_norm=False), classes=3, decoder=replace(TINY_DECODER, depth=2)
    )
    model = VideoClassifier(config, drop_path=0.3)
    model.encoder.embed.requires_grad_(False)
    model.encoder.transformer.blocks[0].eval()
    model.encoder.transformer.recompute = True
    resized = resize_model(model, image_size=24, frames=8)
    assert resized.decoder is not None
    rates = [module.rate for module in resized.encoder.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0, 0.15, 0.3])
    frozen = {name for name, weight in resized.named_parameters() if not weight.requires_grad}
    assert frozen == {f"encoder.embed.{name}" for name, _ in model.encoder.embed.named_parameters()} != set()
    assert (resized.encoder.transformer.recompute, resized.decoder.transformer.recompute) == (True, False)
    assert [block.training for block in resized.encoder.transformer.blocks] == [False, True, True]


def test_there_and_back_fixed_positions_are_the_first_again():
    model = make(PLAIN)
    back = resize_model(resize_model(model, image_size=24, frames=8), image_size=16, frames=4)
    assert back.config == model.config
    assert torch.equal(back.encoder.positions(), model.encoder.positions())


def test_resizing_twice_is_resizing_once_for_fixed_positions():
    model = make(PLAIN)
    once = resize_model(model, image_size=24)
    twice = resize_model(resize_model(model, image_size=20), image_size=24)
    assert twice.config == once.config
    assert torch.equal(twice.encoder.positions(), once.encoder.positions())


def test_a_classifier_keeps_its_mode_precision_and_card_except_the_frames():
    model = VideoClassifier(ClassifierConfig(encoder=replace(TINY, final_norm=False), classes=3))
    model.card = ModelCard(classes=("a", "b", "c"), clip=DenseClip(frames=4, stride=2))
    model.to(torch.float64).train()
    resized = resize_model(model, frames=8)
    assert resized.training
    assert next(resized.parameters()).dtype == torch.float64
    assert resized.card == replace(model.card, clip=DenseClip(frames=8, stride=2))
    assert resize_model(resized.eval()).training is False
    resized = resize_model(model.float().eval(), image_size=24)
    assert resized.card == model.card
    assert resized(clip(4, 24)).shape == (2, 3)


def test_the_predicted_frames_of_each_token_stay():
    resized = resize_model(make(MAE_ST_RELEASED), frames=8)
    assert MAE_ST_RELEASED.target.frames == 2
    assert resized.config.target == replace(MAE_ST_RELEASED.target, frames=4)


@pytest.mark.parametrize("change", [{"image_size": 18}, {"frames": 3}, {"image_size": 2}])
def test_a_size_of_broken_tokens_is_refused(change: dict[str, int]):
    with pytest.raises(ValueError, match="must be a multiple of"):
        resize_model(make(PLAIN), **change)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_resized_model_comes_back_from_the_disk(name: str, tmp_path: Path):
    resized = resize_model(make(CONFIGS[name]), image_size=24, frames=6)
    save_model(resized, tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, MaskedAutoencoder)
    assert again.config == resized.config
    assert again.config.encoder.position_grid == (OLD if name == "sinusoid" else None)
    mask = RandomMasking(ratio=0.75).sample(resized.grid, 2, torch.Generator().manual_seed(0))
    assert torch.equal(again(clip(6, 24), mask).predicted, resized(clip(6, 24), mask).predicted)


def test_loading_resizes_and_logs_one_line_about_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model = make(MAE_ST)
    save_model(model, tmp_path / "x.pth", "mae_st")
    save_model(model, tmp_path / "own")
    given: dict[str, Any] = {"heads": 3, "decoder_heads": 2}
    for path, hints in ((tmp_path / "x.pth", given), (tmp_path / "own", {})):
        with caplog.at_level(logging.WARNING, logger="tubelet"):
            same = load_model(path, image_size=16, frames=4, **hints)
            assert caplog.messages == []
            larger = load_model(path, image_size=24, **hints)
        assert caplog.messages == [
            f"{path} was trained on 4 frames of 16 pixels: its positions were resized in time, height and "
            "width to 4 frames of 24 pixels"
        ]
        caplog.clear()
        assert same.config.encoder == model.config.encoder
        expected = resize_model(model, image_size=24).state_dict()
        found = larger.state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert larger.card.clip is None or larger.card.clip.frames == 4
        with pytest.raises(UserError, match="cannot be resized: height must be a multiple of 4, found 25"):
            load_model(path, image_size=25, **hints)


def test_a_resized_model_sees_the_same_positions():
    """A gray frame has no size: if tokens differ only by their positions, so do the features."""
    model = make(PLAIN)
    gray = torch.full((1, 4, 3, 16, 16), 90, dtype=torch.uint8)
    large = torch.full((1, 4, 3, 32, 32), 90, dtype=torch.uint8)
    resized = resize_model(model, image_size=32)
    with torch.no_grad():
        small_features, large_features = model.encode(gray), resized.encode(large)
    pooled = functional.avg_pool3d(large_features[0].T.reshape(-1, 2, 8, 8), (1, 2, 2)).flatten(1).T
    assert functional.cosine_similarity(pooled, small_features[0]).min() > 0.9
