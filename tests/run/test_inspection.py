"""What is in a checkpoint, of every family."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints.layouts import (
    HINTS,
    TINY,
    Shapes,
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
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.save import save_model
from tubelet.errors import UserError
from tubelet.masking import RunningCellMasking
from tubelet.models.card import ModelCard
from tubelet.models.classifier import VideoClassifier
from tubelet.models.flops import gflops_per_view
from tubelet.run.inspection import Inspection, inspect_checkpoint

Command = Callable[..., tuple[int, str, str]]
ENCODER_ONLY = replace(TINY, classes=0)
MAR = replace(TINY, side=4)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file, and the expected inspection."""

    shapes: Shapes
    family: str
    kind: str
    missing: tuple[str, ...]
    member: str = "model"
    others: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        weights = with_constants(random_weights(self.shapes), MAR if self.family == "mar" else TINY)
        others: dict[str, Any] = {name: {} for name in self.others}
        torch.save({self.member: weights, **others}, folder / "x.pth")
        return folder / "x.pth"

    @property
    def hints(self) -> dict[str, Any]:
        if self.family == "mae_st":
            return {"heads": 3}
        return HINTS | ({"image_size": 16} if self.family == "mar" else {})


CASES = {
    "videomae's pre-training": Case(
        shapes=videomae_autoencoder(TINY), family="videomae", kind="autoencoder",
        missing=("classifier", "optimizer"),
    ),
    "videomae's pre-training, to be resumed": Case(
        shapes=videomae_autoencoder(TINY), family="videomae", kind="autoencoder", missing=("classifier",),
        others=("optimizer", "epoch", "scaler"),
    ),
    "videomae's classifier": Case(
        shapes=videomae_classifier(TINY), family="videomae", kind="classifier",
        missing=("decoder", "optimizer"), member="module",
    ),
    "videomae v2's encoder": Case(
        shapes=videomae_classifier(ENCODER_ONLY), family="videomae", kind="encoder",
        missing=("decoder", "classifier", "optimizer"), member="module",
    ),
    "mae_st's pre-training": Case(
        shapes=mae_st_autoencoder(TINY), family="mae_st", kind="autoencoder",
        missing=("classifier", "optimizer"),
    ),
    "mae_st's released files": Case(
        shapes=mae_st_released(TINY), family="mae_st", kind="autoencoder", missing=("classifier",),
        member="model_state", others=("optimizer_state", "epoch", "cfg"),
    ),
    "mae_st's classifier": Case(
        shapes=mae_st_classifier(TINY), family="mae_st", kind="classifier", missing=("decoder", "optimizer"),
    ),
    "mae_st's encoder": Case(
        shapes=mae_st_classifier(ENCODER_ONLY), family="mae_st", kind="encoder",
        missing=("decoder", "classifier", "optimizer"),
    ),
    "mmaction2's classifier": Case(
        shapes=mmaction2(TINY), family="mmaction2", kind="classifier", missing=("decoder", "optimizer"),
        member="state_dict", others=("meta",),
    ),
    "mar's model": Case(
        shapes=mar(MAR), family="mar", kind="classifier", missing=("optimizer",), member="model_state",
    ),
    "mar's model, to be resumed": Case(
        shapes=mar(MAR), family="mar", kind="classifier", missing=(), member="model_state",
        others=("optimizer_state", "epoch"),
    ),
    "mar's start": Case(
        shapes=videomae_autoencoder(MAR, encoder="backbone"), family="mar", kind="autoencoder",
        missing=("classifier", "optimizer"), member="model_state",
    ),
}  # fmt: skip


def line(found: Inspection, name: str) -> str:
    return dict(found.lines)[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_family_kind_and_missing_parts_are_found(name: str, tmp_path: Path):
    case = CASES[name]
    path = case.write(tmp_path)
    found = inspect_checkpoint(path, **case.hints)
    assert (found.source, found.family, found.kind, found.missing) == (
        str(path), case.family, case.kind, case.missing,
    )  # fmt: skip
    text = str(found)
    assert text.splitlines()[0] == f"family       {case.family}"
    assert text.splitlines()[1] == f"kind         {case.kind}"
    assert ("\nmissing      " + ", ".join(case.missing) in text) == bool(case.missing)


@pytest.mark.parametrize(
    ("shapes", "kind", "missing"),
    [
        (huggingface_autoencoder(TINY), "autoencoder", ("classifier", "optimizer")),
        (huggingface_classifier(TINY), "classifier", ("decoder", "optimizer")),
    ],
)
def test_a_hugging_face_folder_is_inspected(
    shapes: Shapes, kind: str, missing: tuple[str, ...], tmp_path: Path
):
    save_file(random_weights(shapes), tmp_path / "model.safetensors")
    names = {str(i): name for i, name in enumerate("abcde")}
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(TINY) | {"id2label": names}))
    found = inspect_checkpoint(tmp_path)
    assert (found.family, found.kind, found.missing) == ("huggingface", kind, missing)
    if kind == "classifier":
        assert line(found, "classes") == "a, b, c, d and 1 more"


@pytest.mark.slow
def test_a_run_is_inspected(trained: Path, tmp_path: Path):
    for run, kind, missing in (
        ("pretrain", "autoencoder", ("classifier",)),
        ("finetune", "classifier", ("decoder",)),
        ("mar", "classifier", ()),
    ):
        for source in (trained / run, trained / run / "model.safetensors"):
            found = inspect_checkpoint(source)
            assert (found.family, found.kind, found.missing) == ("tubelet", kind, missing)
    model = load_model(trained / "mar")
    model.card = replace(model.card, multi_label=True)
    save_model(model, tmp_path / "copy")
    assert inspect_checkpoint(tmp_path / "copy").missing == ("optimizer",)
    assert line(inspect_checkpoint(tmp_path / "copy"), "head") == "bridging, 12 classes, multi-label"
    assert inspect_checkpoint(trained / "finetune" / "best").missing == ("decoder", "optimizer")


def test_a_copy_in_our_layout_has_no_optimizer_though_the_file_had(tmp_path: Path):
    case = CASES["videomae's pre-training, to be resumed"]
    save_model(load_model(case.write(tmp_path), **case.hints), tmp_path / "copy")
    found = inspect_checkpoint(tmp_path / "copy")
    assert found.missing == ("classifier", "optimizer")
    assert found.family == "videomae"


def test_sizes_costs_and_heads_are_reported(tmp_path: Path):
    case = CASES["mae_st's pre-training"]
    found = inspect_checkpoint(case.write(tmp_path), heads=3)
    assert line(found, "clip") == "4 frames of 12 x 12 pixels"
    assert line(found, "sampling").startswith("kind=dense, frames=4, stride=4")
    assert "assumed" in line(found, "sampling")
    assert line(found, "tokens") == "18 = 2 x 3 x 3, each 2 x 4 x 4"
    assert line(found, "encoder") == ("2 blocks, 24 wide, 3 heads, MLP 40, positions separable, class token")
    assert line(found, "pixels") == "mean 0.45 0.45 0.45, deviation 0.225 0.225 0.225"
    assert line(found, "decoder") == "1 blocks, 64 wide, 2 heads, positions separable"
    model = load_model(tmp_path / "x.pth", heads=3)
    own, total = (
        sum(x.numel() for name, x in model.state_dict().items() if not name.startswith(without))
        for without in ("decoder.", "-")
    )
    assert line(found, "parameters") == f"{total:,} ({own:,} without the decoder)"
    assert line(found, "GFLOPs").startswith(f"{gflops_per_view(model):.4g} for all tokens of a clip")


def test_mars_head_and_masking_are_reported(tmp_path: Path):
    found = inspect_checkpoint(CASES["mar's model"].write(tmp_path), **CASES["mar's model"].hints)
    assert line(found, "head") == "bridging, 5 classes"
    assert line(found, "masking") == "running cell, 50% masked"
    model = load_model(tmp_path / "x.pth", **CASES["mar's model"].hints)
    assert isinstance(model, VideoClassifier)
    half = gflops_per_view(model, RunningCellMasking(ratio=0.5))
    assert f"{half:.4g} with 50% masked" in line(found, "GFLOPs")


def test_a_license_is_reported(trained: Path, tmp_path: Path):
    model = load_model(trained / "finetune")
    model.card = ModelCard(classes=tuple("abcdefghijkl"), license="CC-BY-NC-4.0")
    save_model(model, tmp_path / "x")
    found = inspect_checkpoint(tmp_path / "x")
    assert line(found, "license") == "CC-BY-NC-4.0"
    assert line(found, "classes") == "a, b, c, d and 8 more"


def test_a_missing_hint_is_required(tmp_path: Path):
    with pytest.raises(UserError, match="heads=N"):
        inspect_checkpoint(CASES["videomae's classifier"].write(tmp_path))


def test_the_command_prints_what_is_found(tubelet: Command, tmp_path: Path):
    path = CASES["mar's model"].write(tmp_path)
    hints = ("--heads", 3, "--image-size", 16, "--frames", 4, "--decoder-heads", 4, "--bridge-heads", 2)
    code, out, err = tubelet("inspect", path, *hints)
    assert (code, err) == (0, "")
    rows = [row[:12].rstrip() for row in out.splitlines()]
    assert rows == [
        "family", "kind", "clip", "sampling", "tokens", "encoder", "pixels", "decoder", "head", "masking",
        "parameters", "GFLOPs", "missing",
    ]  # fmt: skip
    assert "decoder      1 blocks, 64 wide, 4 heads" in out


def test_the_command_requires_heads_in_one_line(tubelet: Command, tmp_path: Path):
    code, out, err = tubelet("inspect", CASES["mar's model"].write(tmp_path))
    assert (code, out) == (2, "")
    assert "--heads N" in err
    assert err.count("\n") == 1
