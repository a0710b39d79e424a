"""Every layout in and out: nothing is lost or mistaken for something else, and outputs are the same."""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.checkpoints import plain
from tests.checkpoints.layouts import (
    HINTS,
    HUB_BIASES,
    MODULE_BIASES,
    TINY,
    Shapes,
    Sizes,
    huggingface_autoencoder,
    huggingface_classifier,
    huggingface_config,
    mae_st_autoencoder,
    mae_st_classifier,
    mae_st_released,
    mar,
    mmaction2,
    random_weights,
    videomae_autoencoder,
    videomae_classifier,
    with_constants,
)
from tubelet.checkpoints.families import FAMILIES
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model, build_model
from tubelet.checkpoints.save import save_model
from tubelet.errors import UserError
from tubelet.masking import RunningCellMasking, TokenMask
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig
from tubelet.models.resize import resize_model
from tubelet.models.target import PixelTarget

TOLERANCE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-5}
ENCODER_ONLY = replace(TINY, classes=0)
FIRST_FRAMES = replace(TINY, predicted=1)  # MAE-ST predicts one frame of each pair
# MAR's runs of cells need an even grid: 4 frames of 16 x 16 pixels.
MAR = replace(TINY, side=4)
MAR_HINTS = HINTS | {"image_size": 16}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A foreign file, and the hints that it needs.

    Attributes:
        shapes: names and shapes.
        layout: the layout in which it is written again.
        member: the member under which its code looks for the weights.
        hints: what the shapes do not say.
        family: the family that is detected.
    """

    shapes: Shapes
    layout: str
    member: str
    hints: Mapping[str, Any]
    family: str

    def weights(self) -> dict[str, Tensor]:
        return with_constants(random_weights(self.shapes), MAR if self.layout == "mar" else TINY)


def videomae(shapes: Shapes, member: str = "model") -> Case:
    return Case(shapes=shapes, layout="videomae", member=member, hints=HINTS, family="videomae")


def mae_st(shapes: Shapes, member: str = "model", **hints: int) -> Case:
    return Case(shapes=shapes, layout="mae_st", member=member, hints={"heads": 3} | hints, family="mae_st")


# Files that are written again with the same names.
SAME: dict[str, Case] = {
    "videomae autoencoder": videomae(videomae_autoencoder(TINY)),
    "videomae autoencoder with layer scale": videomae(videomae_autoencoder(TINY, scaled=True)),
    "videomae classifier": videomae(videomae_classifier(TINY), "module"),
    "videomae classifier with layer scale": videomae(videomae_classifier(TINY, scaled=True), "module"),
    "videomae classifier of the first token": videomae(videomae_classifier(TINY, norm="norm"), "module"),
    "videomaev2 encoder only": replace(
        videomae(videomae_classifier(ENCODER_ONLY), "module"), layout="videomaev2"
    ),
    "mae_st autoencoder": mae_st(mae_st_autoencoder(FIRST_FRAMES)),
    "mae_st autoencoder of both frames": mae_st(mae_st_autoencoder(TINY)),
    "mae_st autoencoder without class token": mae_st(mae_st_autoencoder(TINY, token=False)),
    "mae_st autoencoder with joint positions": mae_st(
        mae_st_autoencoder(TINY, joint=True), image_size=12, frames=4
    ),
    "mae_st autoencoder with joint positions, without class token": mae_st(
        mae_st_autoencoder(TINY, joint=True, token=False), image_size=12, frames=4
    ),
    "mae_st released": mae_st(mae_st_released(FIRST_FRAMES, fused_decoder=True), "model_state"),
    "mae_st classifier": mae_st(mae_st_classifier(TINY)),
    "mae_st encoder only": mae_st(mae_st_classifier(ENCODER_ONLY)),
    "mmaction2": Case(
        shapes=mmaction2(TINY), layout="mmaction2", member="state_dict", hints=HINTS, family="mmaction2"
    ),
    "mar": Case(shapes=mar(MAR), layout="mar", member="model_state", hints=MAR_HINTS, family="mar"),
    "mar's start": Case(
        shapes=videomae_autoencoder(MAR, encoder="backbone"),
        layout="mar",
        member="model_state",
        hints=MAR_HINTS,
        family="mar",
    ),
}
# Files that are read, and written with other names.
OTHER: dict[str, Case] = {
    "mae_st autoencoder with fused attention": mae_st(mae_st_autoencoder(TINY, fused=True)),
    "mae_st as the demo's": mae_st(
        mae_st_autoencoder(TINY, joint=True, token=False, fused=True), image_size=12, frames=4
    ),
    "mae_st released, all split": mae_st(mae_st_released(FIRST_FRAMES), "model_state"),
    "mae_st released, all fused": mae_st(
        mae_st_released(FIRST_FRAMES, fused=True, fused_decoder=True), "model_state"
    ),
    "mae_st classifier with fused attention": mae_st(mae_st_classifier(TINY, fused=True)),
    "pyslowfast classifier": mae_st(mae_st_classifier(TINY, head="head.projection")),
    "mmaction2 without positions": replace(SAME["mmaction2"], shapes=mmaction2(TINY, positions=False)),
}
CASES = SAME | OTHER


def write(case: Case, folder: Path) -> Path:
    path = folder / "theirs.pth"
    torch.save({case.member: case.weights(), "epoch": 3}, path)
    return path


def load(case: Case, folder: Path) -> Model:
    return load_model(write(case, folder), **case.hints)


def load_autoencoder(case: Case, folder: Path) -> MaskedAutoencoder:
    model = load(case, folder)
    assert isinstance(model, MaskedAutoencoder)
    return model


def load_classifier(case: Case, folder: Path) -> VideoClassifier:
    model = load(case, folder)
    assert isinstance(model, VideoClassifier)
    return model


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def some_video(s: Sizes = TINY, batch: int = 2) -> Tensor:
    shape = (batch, s.times * s.tubelet, 3, s.side * s.patch, s.side * s.patch)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", SAME)
def test_a_file_is_written_again_bit_for_bit(name: str, tmp_path: Path):
    case = SAME[name]
    save_model(load(case, tmp_path), tmp_path / "ours.pth", case.layout)
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)
    expected = case.weights()
    if name == "mar":  # It is not kept, as nothing uses it.
        expected["cls_head.mask_token"].zero_()
    assert_same(ours[case.member], expected)
    assert set(ours) <= {case.member, "cfg"}


@pytest.mark.parametrize("name", CASES)
def test_what_was_written_is_the_same_model(name: str, tmp_path: Path):
    case = CASES[name]
    model = load(case, tmp_path)
    save_model(model, tmp_path / "ours.pth", case.layout)
    again = load_model(tmp_path / "ours.pth", **case.hints)
    assert again.config == model.config
    assert_same(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("name", CASES)
def test_every_model_survives_tubelets_own_folder(name: str, tmp_path: Path):
    model = load(CASES[name], tmp_path)
    save_model(model, tmp_path / "ours")
    again = load_model(tmp_path / "ours")
    assert (again.config, again.card) == (model.config, model.card)
    assert_same(again.state_dict(), model.state_dict())
    assert model.card.provenance["family"] == CASES[name].family


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_tensor_of_a_file_changes_the_model(name: str, tmp_path: Path):
    """Only those are dropped that the code bases compute, and MAR's unused one."""
    case = CASES[name]
    weights = case.weights()
    model = load(case, tmp_path)
    constants = (
        {"mean", "std", "pos_embed", "cls_head.mask_token"} if name == "mar" else {"backbone.pos_embed"}
    )
    total = sum(weights[key].numel() for key in weights.keys() - constants)
    assert sum(x.numel() for x in model.state_dict().values()) == total
    values = torch.cat([weights[key].flatten() for key in weights.keys() - constants]).sort().values
    ours = torch.cat([x.flatten() for x in model.state_dict().values()]).sort().values
    assert torch.equal(ours, values)


def test_each_file_matches_one_family():
    files = {name: case.shapes for name, case in CASES.items()}
    files |= {"hf autoencoder": huggingface_autoencoder(TINY), "hf classifier": huggingface_classifier(TINY)}
    for name, shapes in files.items():
        matching = [family.name for family in FAMILIES if family.matches(random_weights(shapes))]
        assert len(matching) == 1, (name, matching)


# The outputs of foreign files, against plain functions of their tensors.


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "layer scale"])
def test_videomaes_classifier_computes_what_its_code_does(tmp_path: Path, scaled: bool):
    case = videomae(videomae_classifier(TINY, scaled=scaled), "module")
    video, w = some_video(), case.weights()
    pooled = plain.norm(plain.videomae_tokens(video, w, 2, 3).mean(1), w, "fc_norm")
    model = load_classifier(case, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(model(video), plain.linear(pooled, w, "head"), **TOLERANCE)


def test_a_classifier_of_the_first_token_computes_what_its_code_does(tmp_path: Path):
    case = SAME["videomae classifier of the first token"]
    video, w = some_video(), case.weights()
    tokens = plain.norm(plain.videomae_tokens(video, w, 2, 3), w, "norm")
    model = load_classifier(case, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(model(video), plain.linear(tokens[:, 0], w, "head"), **TOLERANCE)


def test_an_encoder_only_returns_the_normalized_mean_of_its_tokens(tmp_path: Path):
    case = SAME["videomaev2 encoder only"]
    video, w = some_video(), case.weights()
    model = load_classifier(case, tmp_path)
    assert model.config.classes == 0
    features = plain.norm(plain.videomae_tokens(video, w, 2, 3).mean(1), w, "fc_norm")
    with torch.no_grad():
        torch.testing.assert_close(model(video), features, **TOLERANCE)


@pytest.mark.parametrize(
    "name", ["mae_st classifier", "mae_st classifier with fused attention", "pyslowfast classifier"]
)
def test_mae_sts_classifiers_compute_what_their_code_does(name: str, tmp_path: Path):
    """The mean leaves the class token out, and comes before the norm."""
    case = CASES[name]
    video, w = some_video(), case.weights()
    pooled = plain.norm(plain.mae_st_tokens(video, w, 2, 3)[:, 1:].mean(1), w, "norm")
    head = "head.projection" if "head.projection.weight" in w else "head"
    model = load_classifier(case, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(model(video), plain.linear(pooled, w, head), **TOLERANCE)


@pytest.mark.parametrize(
    "name",
    [
        "mae_st autoencoder of both frames",
        "mae_st autoencoder without class token",
        "mae_st autoencoder with joint positions",
        "mae_st as the demo's",
    ],
)
def test_mae_sts_autoencoders_compute_what_their_code_does(name: str, tmp_path: Path):
    case = CASES[name]
    video, w = some_video(), case.weights()
    visible = torch.tensor([1, 4, 5, 11, 16])
    masked = torch.tensor([n for n in range(TINY.tokens) if n not in visible])
    model = load_autoencoder(case, tmp_path)
    assert model.config.decoder.heads == 2  # of width 32, as in their code
    encoded = plain.norm(plain.mae_st_tokens(video, w, 2, 3, visible), w, "norm")
    expected = plain.mae_st_predicted(encoded, w, visible, 1, 2)[:, masked]
    mask = TokenMask(visible.expand(2, -1), masked.expand(2, -1))
    with torch.no_grad():
        torch.testing.assert_close(model(video, mask).predicted, expected, **TOLERANCE)


@pytest.mark.parametrize("fused", [False, True], ids=["split", "fused"])
def test_attention_in_one_matrix_or_in_three_is_the_same(tmp_path: Path, fused: bool):
    """The released files have three; the code that wrote them now writes one."""
    case = mae_st(mae_st_released(FIRST_FRAMES), "model_state")
    weights = case.weights()
    expected = load(case, tmp_path).state_dict()
    for part in ["blocks.0", "blocks.1", "pred_head.transforms.0.0"][0 if fused else 2 :]:
        for kind in ("weight", "bias"):
            names = [f"{part}.attn.{letter}.{kind}" for letter in "qkv"]
            weights[f"{part}.attn.qkv.{kind}"] = torch.cat([weights.pop(name) for name in names])
    torch.save({"model_state": weights}, tmp_path / "fused.pth")
    assert_same(load_model(tmp_path / "fused.pth", heads=3).state_dict(), expected)


def test_the_released_models_decoder_differs_from_the_public_codes(tmp_path: Path):
    released = load_autoencoder(OTHER["mae_st released, all split"], tmp_path).config
    assert (released.decoder.class_token, released.decoder.positions) == ("encoder", "joint")
    assert (released.decoder.heads, released.target.spacing) == (1, "stride")  # 64 wide
    public = load_autoencoder(SAME["mae_st autoencoder"], tmp_path).config
    assert (public.decoder.class_token, public.decoder.positions) == ("learned", "separable")
    assert (public.decoder.heads, public.target.spacing) == (2, "linspace")  # 32 wide
    assert (released.target.frames, public.target.frames) == (2, 2)
    both = load_autoencoder(SAME["mae_st autoencoder of both frames"], tmp_path).config
    assert both.target.frames is None


@pytest.mark.parametrize(
    ("args", "normalize"),
    [({}, "patch"), ({"norm_pix_loss": True}, "patch"), ({"norm_pix_loss": False}, None)],
)
def test_the_arguments_beside_mae_sts_weights_give_the_target(
    tmp_path: Path, args: dict[str, bool], normalize: str | None
):
    case = CASES["mae_st as the demo's"]
    torch.save({"model": case.weights(), "args": argparse.Namespace(lr=1.0, **args)}, tmp_path / "x.pth")
    model = load_model(tmp_path / "x.pth", **case.hints)
    assert model.config.target == PixelTarget(normalize=normalize, pixels="normalized")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cfg", "ratio"),
    [
        ({"TRAIN": {"MAE": {"MASK_RATIO": 0.75}}}, 0.75), ({"TRAIN": {}}, 0.5), ("x", 0.5), (None, 0.5),
    ],
)  # fmt: skip
def test_mars_settings_give_its_mask_ratio(tmp_path: Path, cfg: Any, ratio: float):
    content = {"model_state": SAME["mar"].weights(), "cfg": json.dumps(cfg) if isinstance(cfg, dict) else cfg}
    torch.save(content, tmp_path / "x.pyth")
    model = load_model(tmp_path / "x.pyth", **MAR_HINTS)
    assert isinstance(model, VideoClassifier)
    assert model.config.masking == RunningCellMasking(ratio=ratio)
    save_model(model, tmp_path / "again.pyth", "mar")
    again = load_model(tmp_path / "again.pyth", **MAR_HINTS)
    assert again.config == model.config


# From one to another.


def file_of(model: Model, path: Path, layout: str) -> dict[str, Tensor]:
    save_model(model, path, layout)
    return next(iter(torch.load(path, weights_only=True).values()))


def test_a_classifier_is_the_same_after_every_layout(tmp_path: Path):
    case = SAME["videomae classifier"]
    model, video = load(case, tmp_path), some_video()
    with torch.no_grad():
        expected = model(video)
    for i, layout in enumerate(["mmaction2", "huggingface", "videomaev2", "tubelet", "videomae"]):
        path = tmp_path / f"{i}"
        save_model(model, path, layout)
        model = load_model(path, **({} if layout in ("huggingface", "tubelet") else HINTS))
        with torch.no_grad():
            torch.testing.assert_close(model(video), expected, **TOLERANCE)
    assert_same(file_of(model, tmp_path / "back.pth", "videomae"), case.weights())


def test_an_autoencoder_is_the_same_after_every_layout(tmp_path: Path):
    case = SAME["videomae autoencoder"]
    model, video = load(case, tmp_path), some_video()
    mask = TokenMask.from_visible(torch.arange(TINY.tokens).expand(2, -1) % 6 == 2)
    with torch.no_grad():
        expected = model(video, mask)
    for i, layout in enumerate(["huggingface", "mar", "videomaev2", "tubelet", "videomae"]):
        path = tmp_path / f"{i}"
        save_model(model, path, layout)
        model = load_model(path, **({} if layout in ("huggingface", "tubelet") else HINTS))
        with torch.no_grad():
            found = model(video, mask)
        torch.testing.assert_close(found.predicted, expected.predicted, **TOLERANCE)
        torch.testing.assert_close(found.loss, expected.loss, **TOLERANCE)
    assert_same(file_of(model, tmp_path / "back.pth", "videomae"), case.weights())


def test_a_videomae_file_becomes_what_mar_starts_from(tmp_path: Path):
    """MAR calls the encoder its backbone, and computes the constants itself."""
    case = SAME["videomae autoencoder"]
    theirs = file_of(load(case, tmp_path), tmp_path / "x.pyth", "mar")
    expected = {
        name.replace("encoder.", "backbone.", name.startswith("encoder.")): x
        for name, x in case.weights().items()
    }
    assert_same(theirs, expected)
    assert torch.load(tmp_path / "x.pyth", weights_only=True).keys() == {"model_state"}


# Hugging Face's folders; test_huggingface.py compares with its own code.


def huggingface_folder(
    folder: Path, shapes: Shapes, config: dict[str, Any], seed: int = 0
) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    weights = random_weights(shapes, seed)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return weights


@pytest.mark.parametrize(
    "shapes", [huggingface_autoencoder(TINY), huggingface_classifier(TINY)], ids=["autoencoder", "classifier"]
)
def test_a_hugging_face_folder_is_written_again_bit_for_bit(tmp_path: Path, shapes: Shapes):
    weights = huggingface_folder(tmp_path / "theirs", shapes, huggingface_config(TINY))
    model = load_model(tmp_path / "theirs")
    save_model(model, tmp_path / "ours", "huggingface")
    assert_same(load_file(tmp_path / "ours" / "model.safetensors"), weights)
    theirs = json.loads((tmp_path / "theirs" / "config.json").read_text())
    ours = json.loads((tmp_path / "ours" / "config.json").read_text())
    decoders = {key for key in theirs if key.startswith("decoder")}
    kept = theirs.keys() - (decoders if "classifier.weight" in weights else set())
    assert {key: ours[key] for key in kept} == {key: theirs[key] for key in kept}
    assert load_model(tmp_path / "ours").config == model.config


@pytest.mark.parametrize("make", [huggingface_autoencoder, huggingface_classifier])
def test_both_spellings_of_the_biases_are_read(tmp_path: Path, make: Callable[..., Shapes]):
    old = huggingface_folder(tmp_path / "old", make(TINY, HUB_BIASES), huggingface_config(TINY))
    renamed = {
        name.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias"): x for name, x in old.items()
    }
    huggingface_folder(tmp_path / "new", make(TINY, MODULE_BIASES), huggingface_config(TINY))
    assert renamed.keys() == make(TINY, MODULE_BIASES).keys()
    save_file(renamed, tmp_path / "new" / "model.safetensors")
    assert_same(load_model(tmp_path / "new").state_dict(), load_model(tmp_path / "old").state_dict())


def test_a_file_that_lost_its_biases_is_refused(tmp_path: Path):
    huggingface_folder(tmp_path / "x", huggingface_autoencoder(TINY, ()), huggingface_config(TINY))
    with pytest.raises(UserError, match=r"/x: expected the biases of queries and values"):
        load_model(tmp_path / "x")


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_parts_with_an_index_are_joined(tmp_path: Path, kind: str):
    weights = huggingface_folder(tmp_path / "x", huggingface_classifier(TINY), huggingface_config(TINY))
    expected = load_model(tmp_path / "x").state_dict()
    (tmp_path / "x" / "model.safetensors").unlink()
    stem, _, suffix = kind.partition(".")
    parts = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    part_of = {name: parts[i % 2] for i, name in enumerate(weights)}
    for part in parts:
        own = {name: x for name, x in weights.items() if part_of[name] == part}
        if suffix == "bin":
            torch.save(own, tmp_path / "x" / part)
        else:
            save_file(own, tmp_path / "x" / part)
    index = {"metadata": {}, "weight_map": part_of}
    (tmp_path / "x" / f"{kind}.index.json").write_text(json.dumps(index))
    assert_same(load_model(tmp_path / "x").state_dict(), expected)
    (tmp_path / "x" / parts[1]).unlink()
    with pytest.raises(UserError, match=r"no file .*00002-of-00002"):
        load_model(tmp_path / "x")


def test_a_pickle_of_weights_is_read_only_without_safetensors(tmp_path: Path):
    shapes, config = huggingface_classifier(TINY), huggingface_config(TINY)
    weights = huggingface_folder(tmp_path / "x", shapes, config)
    torch.save(random_weights(shapes, seed=1), tmp_path / "x" / "pytorch_model.bin")
    first = load_model(tmp_path / "x").state_dict()
    assert torch.equal(first["head.classify.weight"], weights["classifier.weight"])
    (tmp_path / "x" / "model.safetensors").unlink()
    second = load_model(tmp_path / "x").state_dict()
    assert torch.equal(second["head.classify.weight"], random_weights(shapes, seed=1)["classifier.weight"])


def test_hugging_faces_settings_have_class_names_and_pixel_statistics(tmp_path: Path):
    config = huggingface_config(TINY) | {"id2label": {"4": "k", "2": "c", "0": "a", "1": "b", "3": "d"}}
    huggingface_folder(tmp_path / "x", huggingface_classifier(TINY), config)
    pixels = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
    (tmp_path / "x" / "preprocessor_config.json").write_text(json.dumps(pixels))
    model = load_model(tmp_path / "x")
    assert model.card.classes == ("a", "b", "c", "d", "k")
    assert (model.config.encoder.mean, model.config.encoder.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    save_model(model, tmp_path / "y", "huggingface")
    again = load_model(tmp_path / "y")
    assert again.card.classes == model.card.classes
    assert again.config == model.config
    config = json.loads((tmp_path / "y" / "config.json").read_text())
    assert config["label2id"] == {"a": 0, "b": 1, "c": 2, "d": 3, "k": 4}


def test_classes_without_names_stay_without(tmp_path: Path):
    """Their settings number them: the names of a data set would not agree with such names."""
    model = load(SAME["videomae classifier"], tmp_path)
    save_model(model, tmp_path / "x", "huggingface")
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    assert config["id2label"] == {str(i): f"LABEL_{i}" for i in range(5)}
    assert load_model(tmp_path / "x").card.classes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "vivit"}, "model_type vivit"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"qkv_bias": False}, "biases of queries and values"),
        ({"qv_bias": False}, "biases of queries and values"),
        ({"num_attention_heads": 7}, "dim must be a multiple of heads"),
        ({"num_hidden_layers": 3}, "num_hidden_layers to be 2, as in the weights; found 3"),
        ({"num_hidden_layers": 1}, "num_hidden_layers to be 2, as in the weights; found 1"),
        ({"num_hidden_layers": None}, "num_hidden_layers to be 2, as in the weights; it is missing"),
        ({"hidden_size": 48}, "hidden_size to be 24, as in the weights; found 48"),
        ({"intermediate_size": 7}, "intermediate_size to be"),
        ({"image_size": 13}, "height must be a multiple of 4, found 13"),
        ({"image_size": [12, 16]}, "image_size"),
        ({"hidden_size": "24"}, "expected hidden_size to be a whole number from 1, found '24'"),
    ],
)
def test_hugging_face_settings_that_do_not_fit_the_weights_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
):
    huggingface_folder(tmp_path / "x", huggingface_classifier(TINY), huggingface_config(TINY) | change)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / "x")
    assert message in str(caught.value)
    assert str(tmp_path / "x") in str(caught.value)


def test_sizes_may_be_given_as_two_sides(tmp_path: Path):
    config = huggingface_config(TINY) | {"image_size": [12, 12], "patch_size": [4, 4]}
    huggingface_folder(tmp_path / "x", huggingface_classifier(TINY), config)
    assert load_model(tmp_path / "x").config.encoder.image_size == 12


def test_a_folder_with_only_the_backbone_or_without_weights_is_refused(tmp_path: Path):
    shapes = {
        name: shape for name, shape in huggingface_autoencoder(TINY).items() if name.startswith("videomae.")
    }
    huggingface_folder(tmp_path / "x", shapes, huggingface_config(TINY))
    with pytest.raises(UserError, match="/x has only an encoder"):
        load_model(tmp_path / "x")
    (tmp_path / "x" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"/x .*neither model\.safetensors nor pytorch_model\.bin"):
        load_model(tmp_path / "x")


def test_another_models_weights_beside_the_settings_are_refused(tmp_path: Path):
    huggingface_folder(tmp_path / "x", videomae_classifier(TINY), huggingface_config(TINY))
    with pytest.raises(UserError, match=r"/x: .*model_type videomae"):
        load_model(tmp_path / "x")


def test_heads_may_be_given_where_the_settings_are_wrong(tmp_path: Path):
    huggingface_folder(tmp_path / "x", huggingface_autoencoder(TINY), huggingface_config(TINY, heads=4))
    model = load_model(tmp_path / "x", heads=3, decoder_heads=4)
    assert isinstance(model, MaskedAutoencoder)
    assert (model.config.encoder.heads, model.config.decoder.heads) == (3, 4)


def test_videomae_v2s_own_folders_on_the_hub_are_read(tmp_path: Path):
    """Only an encoder, under `model.`, with its settings in their own member."""
    settings = {"img_size": 12, "num_frames": 4, "num_heads": 3, "num_classes": 0, "use_mean_pooling": True}
    config = {"model_type": "VideoMAEv2_Base", "model_config": settings}
    shapes = {f"model.{name}": shape for name, shape in videomae_classifier(ENCODER_ONLY).items()}
    weights = huggingface_folder(tmp_path / "x", shapes, config)
    model = load_model(tmp_path / "x")
    assert isinstance(model, VideoClassifier)
    assert (model.config.encoder.heads, model.config.encoder.image_size, model.config.classes) == (3, 12, 0)
    own = {name.removeprefix("model."): x for name, x in weights.items()}
    assert_same(file_of(model, tmp_path / "back.pth", "videomaev2"), own)


# What cannot be written is refused by name.

ENCODER = EncoderConfig(frames=4, image_size=16, patch_size=4, dim=24, depth=1, heads=3, mlp_dim=40)
DECODER = DecoderConfig(dim=16, depth=1, heads=2, mlp_dim=24)
CLASSIFIER = ClassifierConfig(encoder=replace(ENCODER, final_norm=False), classes=5)
AUTOENCODER = AutoencoderConfig(encoder=ENCODER, decoder=DECODER)
BRIDGE = BridgingHeadConfig(dim=16, depth=1, heads=2, mlp_dim=24)
MAR_CLASSIFIER = ClassifierConfig(
    encoder=ENCODER, classes=5, head=BRIDGE, masking=RunningCellMasking(), decoder=DECODER
)
MAE_ST_ENCODER = replace(
    ENCODER, positions="separable", class_token=True, key_bias=True, mean=(0.45,) * 3, std=(0.225,) * 3
)
MAE_ST_CLASSIFIER = ClassifierConfig(encoder=replace(MAE_ST_ENCODER, final_norm=False), classes=5)

Config = AutoencoderConfig | ClassifierConfig
REFUSED: dict[str, tuple[Config, str, str]] = {
    "MAE-ST to VideoMAE": (MAE_ST_CLASSIFIER, "videomae", "encoder.class_token"),
    "MAE-ST to mmaction2": (MAE_ST_CLASSIFIER, "mmaction2", "encoder.class_token"),
    "MAE-ST to Hugging Face": (MAE_ST_CLASSIFIER, "huggingface", "encoder.class_token"),
    "VideoMAE's classifier to MAE-ST": (CLASSIFIER, "mae_st", "without class token"),
    "VideoMAE's autoencoder to MAE-ST": (AUTOENCODER, "mae_st", "query_bias"),
    "autoencoder to mmaction2": (AUTOENCODER, "mmaction2", "an autoencoder"),
    "linear head to MAR": (CLASSIFIER, "mar", "linear head"),
    "bridging head to VideoMAE": (MAR_CLASSIFIER, "videomae", "bridging head"),
    "bridging head to mmaction2": (MAR_CLASSIFIER, "mmaction2", "bridging head"),
    "bridging head to Hugging Face": (MAR_CLASSIFIER, "huggingface", "bridging head"),
    "bridging head to MAE-ST": (MAR_CLASSIFIER, "mae_st", "bridging head"),
    "MAR without decoder": (replace(MAR_CLASSIFIER, decoder=None), "mar", "without its decoder"),
    "MAR without masking": (replace(MAR_CLASSIFIER, masking=None), "mar", "masking=None"),
    "MAR with other cells": (
        replace(MAR_CLASSIFIER, masking=RunningCellMasking(cell=(1, 2))), "mar", "cell=(1, 2)",
    ),
    "masking": (replace(CLASSIFIER, masking=RunningCellMasking()), "videomae", "masking=RunningCellMasking("),
    "decoder beside a linear head": (
        replace(CLASSIFIER, decoder=DECODER), "videomae", "decoder.embed.weight",
    ),
    "pixel statistics": (
        replace(AUTOENCODER, encoder=replace(ENCODER, mean=(0.5,) * 3, std=(0.25,) * 3)), "videomae",
        "encoder.mean=(0.5, 0.5, 0.5), encoder.std=(0.25, 0.25, 0.25)",
    ),
    "pixel statistics to MAE-ST": (
        replace(MAE_ST_CLASSIFIER, encoder=replace(MAE_ST_CLASSIFIER.encoder, mean=(0.5,) * 3)), "mae_st",
        "encoder.mean=(0.5, 0.5, 0.5)",
    ),
    "3D positions": (
        replace(CLASSIFIER, encoder=replace(CLASSIFIER.encoder, dim=48, positions="sinusoid_3d")),
        "mmaction2", "encoder.positions=sinusoid_3d",
    ),
    "learned positions": (
        replace(CLASSIFIER, encoder=replace(CLASSIFIER.encoder, positions="joint")), "videomae",
        "encoder.positions.table",
    ),
    "predicted frames": (
        replace(AUTOENCODER, target=PixelTarget(frames=2)), "videomae", "target.frames=2",
    ),
    "normalised tokens under a linear head": (
        replace(CLASSIFIER, encoder=ENCODER), "videomae", "encoder.norm.bias",
    ),
    "layer scale to Hugging Face": (
        replace(CLASSIFIER, encoder=replace(CLASSIFIER.encoder, layer_scale=0.1)), "huggingface", "scale1",
    ),
    "first token to mmaction2": (
        replace(CLASSIFIER, head=replace(CLASSIFIER.head, pool="first")), "mmaction2",  # type: ignore[arg-type]
        "head.pool=first",
    ),
    "encoder only to mmaction2": (replace(CLASSIFIER, classes=0), "mmaction2", "head.classify.weight"),
    "encoder only to Hugging Face": (replace(CLASSIFIER, classes=0), "huggingface", "head.classify.weight"),
}  # fmt: skip


def test_what_a_layout_cannot_hold_is_refused_by_name(tmp_path: Path):
    for name, (config, layout, what) in REFUSED.items():
        with pytest.raises(UserError) as caught:
            save_model(build_model(config), tmp_path / "x", layout)
        assert f"the layout {layout} cannot hold" in str(caught.value), name
        assert what in str(caught.value), name
        assert not (tmp_path / "x").exists(), name


@pytest.mark.parametrize("layout", ["videomae", "videomaev2", "mmaction2", "huggingface"])
def test_resized_fixed_positions_are_refused_by_layouts_that_compute_them(layout: str, tmp_path: Path):
    model = resize_model(VideoClassifier(CLASSIFIER), image_size=24)
    with pytest.raises(UserError, match=r"encoder\.position_grid=\(2, 4, 4\)"):
        save_model(model, tmp_path / "x", layout)


def test_an_unknown_layout_is_refused_with_the_nearest(tmp_path: Path):
    with pytest.raises(UserError, match="found huggingfase; did you mean 'huggingface'"):
        save_model(VideoClassifier(CLASSIFIER), tmp_path / "x", "huggingfase")


def test_a_file_for_a_folder_and_a_folder_for_a_file_are_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    for layout in ("tubelet", "huggingface"):
        with pytest.raises(UserError, match=f"{tmp_path}/file is a file"):
            save_model(VideoClassifier(CLASSIFIER), tmp_path / "file", layout)
    with pytest.raises(UserError, match=f"{tmp_path} is a folder"):
        save_model(VideoClassifier(CLASSIFIER), tmp_path, "videomae")


def test_missing_folders_are_made(tmp_path: Path):
    save_model(VideoClassifier(CLASSIFIER), tmp_path / "a" / "b" / "x.pth", "videomae")
    assert load_model(tmp_path / "a" / "b" / "x.pth", heads=3, image_size=16, frames=4)


def test_saving_does_not_change_a_model(tmp_path: Path):
    model = VideoClassifier(CLASSIFIER)
    model.train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    save_model(model, tmp_path / "x.pth", "videomae")
    assert_same(model.state_dict(), before)
    assert model.training


# Heads and sizes that shapes do not give.


def test_heads_that_shapes_do_not_give_are_required(tmp_path: Path):
    path = write(SAME["videomae autoencoder"], tmp_path)
    with pytest.raises(UserError, match=r" heads.* 24 .*load_model\(\.\.\., heads=N\)"):
        load_model(path)
    with pytest.raises(UserError, match=r"heads=5 does not divide the width 24"):
        load_model(path, heads=5)
    narrow = replace(TINY, decoder_dim=40)
    torch.save({"model": random_weights(videomae_autoencoder(narrow))}, tmp_path / "narrow.pth")
    with pytest.raises(UserError, match=r"decoder_heads.* 40 .*--decoder-heads N"):
        load_model(tmp_path / "narrow.pth", **HINTS)
    bridge = replace(MAR, bridge_dim=48)
    torch.save(with_constants(random_weights(mar(bridge)), bridge), tmp_path / "bridge.pth")
    with pytest.raises(UserError, match=r"bridge_heads.* 48 .*--bridge-heads N"):
        load_model(tmp_path / "bridge.pth", **MAR_HINTS)
    model = load_model(tmp_path / "bridge.pth", **MAR_HINTS, bridge_heads=6, decoder_heads=4)
    assert isinstance(model, VideoClassifier)
    assert isinstance(model.config.head, BridgingHeadConfig)
    assert (model.config.head.heads, model.config.decoder and model.config.decoder.heads) == (6, 4)


def test_a_position_table_gives_the_frames(tmp_path: Path):
    path = write(SAME["mmaction2"], tmp_path)
    assert load_model(path, heads=3, image_size=12).config.encoder.frames == 4
    with pytest.raises(UserError, match="18 tokens, which 16 frames of 224 pixels"):
        load_model(path, heads=3)
    with pytest.raises(UserError, match=r"16 frames of 2 pixels .* --image-size N --frames N"):
        load_model(path, heads=3, image_size=2)
    with pytest.raises(UserError, match="height must be a multiple of 4"):
        load_model(path, heads=3, image_size=13, frames=4)


def test_a_mar_model_with_a_linear_head_is_refused(tmp_path: Path):
    weights = random_weights(videomae_autoencoder(MAR, encoder="backbone"))
    weights |= {"cls_head.linear.weight": torch.zeros(5, 24), "cls_head.linear.bias": torch.zeros(5)}
    torch.save({"model_state": weights}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth .* linear head"):
        load_model(tmp_path / "x.pth", **MAR_HINTS)
