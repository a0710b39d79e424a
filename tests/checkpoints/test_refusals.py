"""Hints, resized positions, and refusals in one sentence each."""

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from tubelet.checkpoints import load
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.save import save_model
from tubelet.errors import UserError
from tubelet.masking import DualMasking, RandomMasking, RunningCellMasking, TokenMask
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig
from tubelet.models.resize import resize_model
from tubelet.models.target import PixelTarget
from tubelet.patches import Size3

ENCODER = EncoderConfig(frames=4, image_size=64, dim=32, depth=1, heads=2, mlp_dim=64)
DECODER = DecoderConfig(dim=16, depth=1, heads=2, mlp_dim=32)


def classifier() -> VideoClassifier:
    return VideoClassifier(ClassifierConfig(encoder=replace(ENCODER, final_norm=False), classes=3))


def mar() -> VideoClassifier:
    head = BridgingHeadConfig(dim=16, depth=1, heads=2, mlp_dim=32)
    return VideoClassifier(
        ClassifierConfig(
            encoder=ENCODER, classes=3, head=head, decoder=DECODER, masking=RunningCellMasking(ratio=0.5)
        )
    )


def joint(normalize: Literal["patch"] | None = "patch") -> MaskedAutoencoder:
    """MAE-ST's model with one position for each token."""
    target = PixelTarget(normalize=normalize, pixels="normalized")
    encoder = replace(
        ENCODER, positions="joint", class_token=True, key_bias=True, mean=(0.45,) * 3, std=(0.225,) * 3
    )
    decoder = replace(DECODER, positions="joint", class_token="learned", embed_bias=True, key_bias=True)
    return MaskedAutoencoder(AutoencoderConfig(encoder=encoder, decoder=decoder, target=target))


@pytest.mark.parametrize(
    ("model", "layout", "given"),
    [
        (classifier, "mmaction2", {"heads": 2}),
        (mar, "mar", {"heads": 2, "decoder_heads": 2, "bridge_heads": 2}),
        (joint, "mae_st", {"heads": 2, "decoder_heads": 2}),
    ],
)
def test_a_position_table_is_resized_from_the_clip_that_it_was_made_for(
    model, layout: str, given: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    original = model().eval()
    save_model(original, tmp_path / "x.pth", layout)
    same = load_model(tmp_path / "x.pth", image_size=64, frames=4, **given)
    assert not caplog.records
    assert (same.config.encoder.frames, same.config.encoder.image_size) == (4, 64)
    # The hinted size is not the trained one; the frames and the table together give it.
    larger = load_model(tmp_path / "x.pth", frames=4, image_size=96, **given)
    assert "4 frames of 64 pixels" in caplog.text
    expected = resize_model(original, image_size=96)
    video = torch.randint(0, 256, (1, 4, 3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(larger.encode(video), expected.encode(video), rtol=0, atol=1e-6)


def test_a_table_of_the_published_length_is_for_the_published_clip(tmp_path: Path):
    wide = replace(ENCODER, frames=16, image_size=224, final_norm=False)
    save_model(VideoClassifier(ClassifierConfig(encoder=wide, classes=3)), tmp_path / "x.pth", "mmaction2")
    resized = load_model(tmp_path / "x.pth", heads=2, image_size=112)
    assert resized.config.encoder.position_grid == (8, 14, 14)
    assert resized.config.encoder.frames == 16


def test_a_hub_id_in_the_catalogue_is_loaded_with_its_hints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    small = replace(ENCODER, dim=384, heads=16, mlp_dim=64, final_norm=False)
    save_model(VideoClassifier(ClassifierConfig(encoder=small, classes=3)), tmp_path / "hf", "huggingface")
    monkeypatch.setattr(load, "fetch_hub", lambda repo: tmp_path / "hf")
    model = load_model("MCG-NJU/videomae-small-finetuned-kinetics")
    assert model.config.encoder.heads == 6
    assert model.card.license
    assert "heads=6" in caplog.text


@pytest.mark.parametrize("layout", ["videomae", "videomaev2", "mar"])
def test_a_target_that_a_file_cannot_store_is_refused(layout: str, tmp_path: Path):
    raw = AutoencoderConfig(encoder=ENCODER, decoder=DECODER, target=PixelTarget(normalize=None))
    with pytest.raises(UserError, match=r"target\.normalize=None"):
        save_model(MaskedAutoencoder(raw), tmp_path / "x.pth", layout)


def test_mae_sts_raw_target_is_in_the_files_settings(tmp_path: Path):
    save_model(joint(None), tmp_path / "x.pth", "mae_st")
    model = load_model(tmp_path / "x.pth", heads=2, decoder_heads=2, image_size=64, frames=4)
    assert model.config.target == PixelTarget(normalize=None, pixels="normalized")
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert torch.load(tmp_path / "x.pth", weights_only=True)["args"].norm_pix_loss is False


def test_a_large_epsilon_is_refused_by_name(tmp_path: Path):
    config = ClassifierConfig(encoder=replace(ENCODER, final_norm=False, norm_eps=0.1), classes=3)
    with pytest.raises(UserError, match=r"encoder\.norm_eps=0\.1"):
        save_model(VideoClassifier(config), tmp_path / "x.pth", "mmaction2")


def test_a_file_of_torch_is_not_named_safetensors(tmp_path: Path):
    with pytest.raises(UserError, match=r"x\.pth"):
        save_model(classifier(), tmp_path / "x.safetensors", "videomae")


@pytest.mark.parametrize("outer", ["ema", "net", "teacher"])
def test_weights_are_found_under_any_name(outer: str, tmp_path: Path):
    save_model(classifier(), tmp_path / "x.pth", "videomae")
    weights = torch.load(tmp_path / "x.pth", weights_only=True)["module"]
    torch.save({outer: weights, "epoch": 3}, tmp_path / "y.pth")
    model = load_model(tmp_path / "y.pth", heads=2, image_size=64, frames=4)
    assert model.card.provenance["members"] == ["epoch"]
    torch.save({"student": weights, "teacher": dict(weights)}, tmp_path / "z.pth")
    with pytest.raises(UserError, match="student, teacher"):
        load_model(tmp_path / "z.pth", heads=2)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_weights_that_are_not_floating_numbers_are_refused(dtype: torch.dtype, tmp_path: Path):
    save_model(classifier(), tmp_path / "x.pth", "videomae")
    weights = torch.load(tmp_path / "x.pth", weights_only=True)["module"]
    torch.save({"module": weights | {"head.bias": weights["head.bias"].to(dtype)}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"head\.bias .* floating"):
        load_model(tmp_path / "x.pth", heads=2, image_size=64, frames=4)


def test_fewer_class_names_than_classes_are_refused(tmp_path: Path):
    model = classifier()
    save_model(model, tmp_path / "hf", "huggingface")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b"}}))
    with pytest.raises(UserError, match=r"hf/config\.json: id2label names 2 classes"):
        load_model(tmp_path / "hf")
    model.card = replace(model.card, classes=("a", "b"))
    with pytest.raises(UserError, match="id2label names 2 classes"):
        save_model(model, tmp_path / "other", "huggingface")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("setting", ["num_attention_heads", "patch_size", "tubelet_size"])
def test_zero_sizes_are_refused_in_one_sentence(setting: str, tmp_path: Path):
    save_model(classifier(), tmp_path / "hf", "huggingface")
    config = (tmp_path / "hf" / "config.json").read_text()
    start = config.index(f'"{setting}": ') + len(setting) + 4
    (tmp_path / "hf" / "config.json").write_text(config[:start] + "0" + config[config.index(",", start) :])
    with pytest.raises(UserError, match="hf"):
        load_model(tmp_path / "hf")


def test_an_existing_file_is_not_converted_over(tubelet, tmp_path: Path):
    save_model(classifier(), tmp_path / "x.pth", "videomae")
    given = ("--heads", "2", "--image-size", "64", "--frames", "4")
    arguments = ("convert", str(tmp_path / "x.pth"), str(tmp_path / "x.pth"), "--to", "mmaction2", *given)
    code, _, error = tubelet(*arguments)
    assert code == 2
    assert "--force" in error
    assert tubelet(*arguments, "--force")[0] == 0


def test_empty_masks_are_refused():
    model = joint()
    video = torch.zeros(1, 4, 3, 64, 64, dtype=torch.uint8)
    everything = torch.arange(model.grid.volume)[None]
    nothing = everything[:, :0]
    with pytest.raises(UserError, match="visible"):
        model(video, TokenMask(nothing, everything))
    with pytest.raises(UserError, match="mask"):
        model(video, TokenMask(everything, nothing))
    assert RandomMasking(ratio=0.0).sample(model.grid, 1).masked.shape == (1, 0)
    for masking in (RunningCellMasking(cell=(3, 3)), DualMasking()):
        with pytest.raises(UserError, match="grid"):
            masking.sample(Size3(2, 5, 5), 1)


@pytest.mark.parametrize(("cell", "num_masked"), [((4, 7), 17), ((5, 6), 21), ((10, 10), 29), ((10, 10), 57)])
def test_a_ratio_of_whole_slots_masks_exactly_those(cell: tuple[int, int], num_masked: int):
    slots = cell[0] * cell[1]
    mask = RunningCellMasking(cell=cell, ratio=num_masked / slots).fixed(Size3(2, *cell))
    assert mask.masked.shape[1] == 2 * num_masked


def test_a_plain_load_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    save_model(classifier(), tmp_path / "x.pth", "videomae")
    with caplog.at_level(logging.WARNING):
        load_model(tmp_path / "x.pth", heads=2, image_size=64, frames=4)
    assert not caplog.records


def test_a_wrong_shape_is_named_as_in_the_file(tmp_path: Path):
    save_model(classifier(), tmp_path / "x.pth", "videomae")
    weights = torch.load(tmp_path / "x.pth", weights_only=True)["module"]
    torch.save({"module": weights | {"fc_norm.bias": torch.zeros(7)}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"fc_norm\.bias: expected \(32,\), found \(7,\)"):
        load_model(tmp_path / "x.pth", heads=2, image_size=64, frames=4)
