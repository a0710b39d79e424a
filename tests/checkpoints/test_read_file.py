"""Checkpoint files: containers, prefixes, dtypes, and damage of every kind."""

import argparse
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.checkpoints.layouts import (
    HINTS,
    TINY,
    huggingface_autoencoder,
    mae_st_autoencoder,
    mae_st_released,
    mar,
    mmaction2,
    random_weights,
    videomae_autoencoder,
    videomae_classifier,
    with_constants,
)
from tubelet.checkpoints import weight_sets
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model
from tubelet.checkpoints.save import save_model
from tubelet.checkpoints.weight_sets import read_checkpoint
from tubelet.errors import UserError

Weights = dict[str, Tensor]


@pytest.fixture
def weights() -> Weights:
    return random_weights(videomae_classifier(TINY))


@pytest.fixture
def plain(weights: Weights, tmp_path: Path) -> Model:
    """The model that every readable file must give."""
    torch.save(weights, tmp_path / "plain.pth")
    return load_model(tmp_path / "plain.pth", **HINTS)


def same(a: Model, b: Model) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def refused(path: Path, **given: Any) -> str:
    """The message, which names the file."""
    with pytest.raises(UserError) as caught:
        load_model(path, **given)
    message = str(caught.value)
    assert str(path) in message
    assert "Traceback" not in message
    return message


def outcome(path: Path) -> str | None:
    """The message of a refusal, or None."""
    try:
        load_model(path, **HINTS)
    except UserError as error:
        return str(error)
    return None


CONTAINERS: dict[str, Callable[[Weights], Any]] = {
    "raw": lambda w: w,
    "model": lambda w: {"model": w},
    "module": lambda w: {"module": w, "epoch": 3},
    "model_state": lambda w: {"epoch": 3, "model_state": w, "optimizer_state": {}, "cfg": "{}"},
    "state_dict": lambda w: {"meta": {"epoch": 3}, "state_dict": w},
    "model_state_dict": lambda w: {"model_state_dict": w},
    "nested": lambda w: {"state_dict": {"model": {"module": w}}},
    "with averages": lambda w: {"model": w, "model_ema": {name: x + 1 for name, x in w.items()}},
    "with the state of training": lambda w: {
        "model": w,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(lr=1.5e-4, betas=[0.9, 0.95], output_dir="out", finetune=None),
    },
    "with NumPy's scalars": lambda w: {
        "model": w,
        "best": np.float64(81.5), "loss": np.float32(0.5), "step": np.int64(7), "seen": np.int32(7),
        "done": np.bool_(True),
    },
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy pickle"])
def test_weights_are_found_in_every_container(weights: Weights, plain: Model, tmp_path: Path, legacy: bool):
    path = tmp_path / "file.pth"
    for name, contain in CONTAINERS.items():
        torch.save(contain(weights), path, _use_new_zipfile_serialization=not legacy)
        assert same(load_model(path, **HINTS), plain), name


PREFIXES = (
    "module.", "module.module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "backbone.",
    "model.", "model.backbone.", "model.module.", "model._orig_mod.backbone.", "backbone.model.",
)  # fmt: skip


def test_prefixes_of_wrappers_are_removed(weights: Weights, plain: Model, tmp_path: Path):
    for prefix in PREFIXES:
        torch.save({"model": {prefix + name: x for name, x in weights.items()}}, tmp_path / "file.pth")
        assert same(load_model(tmp_path / "file.pth", **HINTS), plain), prefix


def test_the_prefix_of_a_compiled_part_is_removed(weights: Weights, plain: Model, tmp_path: Path):
    renamed = {name.replace("blocks.1.", "blocks.1._orig_mod."): x for name, x in weights.items()}
    torch.save(renamed, tmp_path / "file.pth")
    assert same(load_model(tmp_path / "file.pth", **HINTS), plain)


def test_weights_with_and_without_a_prefix_are_refused(weights: Weights, tmp_path: Path):
    torch.save(weights | {"_orig_mod.head.bias": torch.zeros(5)}, tmp_path / "file.pth")
    assert "the same weights twice" in refused(tmp_path / "file.pth", **HINTS)


def test_the_content_of_a_file_decides_not_its_suffix(weights: Weights, plain: Model, tmp_path: Path):
    for suffix in (".pth", ".pt", ".pyth", ".bin", ".ckpt", ".tar", ""):
        torch.save({"model": weights}, tmp_path / f"pickle{suffix}")
        assert same(load_model(tmp_path / f"pickle{suffix}", **HINTS), plain), suffix
        save_file(weights, tmp_path / f"safe{suffix}")
        assert same(load_model(tmp_path / f"safe{suffix}", **HINTS), plain), suffix


def test_safetensors_are_read_with_their_metadata(weights: Weights, plain: Model, tmp_path: Path):
    save_file(weights, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert same(load_model(tmp_path / "x.safetensors", **HINTS), plain)


def test_other_precisions_become_float32(weights: Weights, tmp_path: Path):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        rounded = {name: x.to(dtype) for name, x in weights.items()}
        save_file(rounded, tmp_path / "safetensors")
        torch.save({"module": rounded}, tmp_path / "pickle")
        torch.save({name: x.float() for name, x in rounded.items()}, tmp_path / "float")
        for path in (tmp_path / "safetensors", tmp_path / "pickle"):
            assert {x.dtype for x in read_checkpoint(path)[1].weights.values()} == {torch.float32}, path
            assert same(load_model(path, **HINTS), load_model(tmp_path / "float", **HINTS)), (path, dtype)


def test_views_of_one_storage_and_parameters_are_read(weights: Weights, plain: Model, tmp_path: Path):
    both = torch.stack([weights["fc_norm.weight"], weights["fc_norm.bias"]])
    weights |= {"fc_norm.weight": both[0], "fc_norm.bias": both[1]}
    weights["head.weight"] = torch.nn.Parameter(weights["head.weight"].t().contiguous()).t()
    torch.save({"model": weights}, tmp_path / "file.pth")
    assert same(load_model(tmp_path / "file.pth", **HINTS), plain)


def test_scalars_that_numpy_1_pickled_are_read(weights: Weights, plain: Model, tmp_path: Path):
    path = tmp_path / "file.pth"
    torch.save({"model": weights, "best": np.float64(81.5)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count(b"numpy._core.multiarray\n") == 1
    path.write_bytes(content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert same(load_model(path, **HINTS), plain)
    assert read_checkpoint(path)[1].others["best"] == 81.5


def test_other_members_are_kept(weights: Weights, tmp_path: Path):
    args = argparse.Namespace(norm_pix_loss=False)
    torch.save({"outer": 1, "state_dict": {"model": weights, "epoch": 3, "args": args}}, tmp_path / "x.pth")
    _, file = read_checkpoint(tmp_path / "x.pth")
    assert dict(file.others) == {"outer": 1, "epoch": 3, "args": args}
    assert file.setting("norm_pix_loss") is False
    assert file.setting("nothing") is None
    assert file.weights.keys() == weights.keys()


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def _legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _bare(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [_zip, _legacy, _bare])
def test_code_in_a_file_is_not_run_and_the_message_says_what_to_do(
    weights: Weights, tmp_path: Path, write: Callable[[Any, Path], None]
):
    path, trace = tmp_path / "file.pth", tmp_path / "it ran"
    write({"model": weights if write is not _bare else {}, "x": _Bomb(trace)}, path)
    message = refused(path, **HINTS)
    assert not trace.exists()
    assert "could run code" in message
    assert ".mkdir" in message  # the code that it would run
    assert "torch.load(PATH, weights_only=False)" in message


def test_the_advice_about_a_file_with_classes_works(weights: Weights, plain: Model, tmp_path: Path):
    path = tmp_path / "file.pth"
    torch.save({"model": weights, "folder": tmp_path}, path)
    assert "pathlib" in refused(path, **HINTS)
    torch.save(torch.load(path, weights_only=False)["model"], tmp_path / "weights.pth")
    assert same(load_model(tmp_path / "weights.pth", **HINTS), plain)


def test_an_empty_or_a_missing_file_is_named(tmp_path: Path):
    path = tmp_path / "file.pth"
    assert "no model at" in refused(path)
    path.touch()
    assert "is empty" in refused(path)


def _cuts(size: int) -> list[int]:
    """Short beginnings, and positions all over the file."""
    return sorted(
        {*range(1, 20), 64, 200, 1000, *(size * i // 12 for i in range(1, 12)), size - 300, size - 1}
    )


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused(weights: Weights, tmp_path: Path, kind: str):
    path = tmp_path / ("file.safetensors" if kind == "safetensors" else "file.pth")
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"model": weights}, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for cut in _cuts(len(whole)):
        path.write_bytes(whole[:cut])
        message = refused(path, **HINTS)
        in_name = kind == "legacy" and "more than tensors" in message  # The cut is in the name of a type.
        assert in_name or "not a checkpoint" in message, (cut, message)


def test_a_folders_truncated_weights_are_refused(plain: Model, tmp_path: Path):
    save_model(plain, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    whole = path.read_bytes()
    for cut in _cuts(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
            load_model(tmp_path / "model")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_changed_bytes_never_cause_a_traceback(weights: Weights, tmp_path: Path):
    generator = np.random.default_rng(0)
    for legacy in (False, True):
        path = tmp_path / "file.pth"
        torch.save({"model": weights}, path, _use_new_zipfile_serialization=not legacy)
        whole = bytearray(path.read_bytes())
        for _ in range(60):
            damaged = whole.copy()
            offsets = np.concatenate([generator.integers(0, 3000, 8), generator.integers(0, len(whole), 8)])
            for offset in offsets:
                damaged[offset] = generator.integers(256)
            path.write_bytes(damaged)
            message = outcome(path)  # None if only numbers have changed
            assert message is None or str(path) in message


def _picture(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path, format="png")


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes/readme.txt", "no weights here")


UNRELATED: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("path,label\nvideos/0.mp4,3\n"), "not a checkpoint"),
    "json": (lambda path: path.write_text(json.dumps({"lr": 0.1})), "not a checkpoint"),
    "picture": (_picture, "not a checkpoint"),
    "zip": (_archive, "not a checkpoint"),
    "tensor": (lambda path: torch.save(torch.zeros(3), path), "expected a dictionary, found Tensor"),
    "list": (lambda path: torch.save([torch.zeros(3)], path), "expected a dictionary, found list"),
    "numbers": (lambda path: torch.save({"lr": 0.1, "epoch": 3}, path), "found lr, epoch"),
    "nothing": (lambda path: torch.save({}, path), "expected named tensors, found nothing"),
    "empty model": (lambda path: torch.save({"model": {}}, path), "expected named tensors, found model"),
    "mixture": (
        lambda path: torch.save({"a": torch.zeros(3), "epoch": 3}, path),
        "not from a known family",
    ),
    "another network": (
        lambda path: torch.save({"conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(3)}, path),
        "(VideoMAE, VideoMAE V2, MAE-ST, mmaction2, MAR, Hugging Face): its first tensors are conv1.weight, "
        "fc.bias",
    ),
    "empty safetensors": (lambda path: save_file({}, path), "has no weights"),
}


def test_a_file_that_is_something_else_is_refused(tmp_path: Path):
    for kind, (write, expected) in UNRELATED.items():
        write(tmp_path / "file.pth")
        assert expected in refused(tmp_path / "file.pth"), kind


def test_hugging_faces_weights_without_their_config_are_refused(tmp_path: Path):
    save_file(random_weights(huggingface_autoencoder(TINY)), tmp_path / "model.safetensors")
    assert "config.json" in refused(tmp_path / "model.safetensors")


def test_tubelets_weights_without_their_config_are_refused(plain: Model, tmp_path: Path):
    save_model(plain, tmp_path / "model")
    moved = (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model.safetensors")
    assert "config.json" in refused(moved)


def test_tubelets_weights_beside_their_config_are_the_model(plain: Model, tmp_path: Path):
    save_model(plain, tmp_path / "model")
    assert same(load_model(tmp_path / "model" / "model.safetensors"), plain)


FILES = {
    "videomae autoencoder": videomae_autoencoder(TINY),
    "videomae classifier": videomae_classifier(TINY),
    "mae_st": mae_st_autoencoder(TINY),
    "mae_st released": mae_st_released(TINY),
    "mae_st joint": mae_st_autoencoder(TINY, joint=True, fused=True),
    "mmaction2": mmaction2(TINY),
    "mar": mar(TINY),
}


def _damaged(name: str) -> list[tuple[str, Weights]]:
    """Each tensor missing, then of wrong shapes."""
    whole = with_constants(random_weights(FILES[name]), TINY)
    cases = []
    for key, value in whole.items():
        cases.append((f"no {key}", {k: x for k, x in whole.items() if k != key}))
        for shape in ((), (3,), (2, 3), tuple(side + 1 for side in value.shape)):
            cases.append((f"{key} as {shape}", whole | {key: torch.zeros(shape)}))
    return cases


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_any_missing_or_misshapen_tensor_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file.pth"
    path.touch()
    accepted = []
    for case, weights in _damaged(name):
        monkeypatch.setattr(weight_sets, "read_content", lambda _, w=weights: w)
        message = outcome(path)
        assert message is None or str(path) in message, case
        accepted += [case] if message is None else []
    # Older files of mmaction2 are without the position table.
    assert [case for case in accepted if case != "no backbone.pos_embed"] == []


def test_a_missing_and_an_extra_tensor_are_named_together(weights: Weights, tmp_path: Path):
    path = tmp_path / "file.pth"
    del weights["blocks.1.norm2.bias"]
    torch.save(weights | {"teacher.weight": torch.zeros(3)}, path)
    message = refused(path, **HINTS)
    assert "blocks.1.norm2.bias: expected (24,), found nothing" in message
    assert "teacher.weight: expected nothing, found (3,)" in message


def test_a_wrong_shape_is_reported_with_the_right_one(weights: Weights, tmp_path: Path):
    path = tmp_path / "file.pth"
    torch.save(weights | {"blocks.0.mlp.fc2.bias": torch.zeros(7)}, path)
    assert "blocks.0.mlp.fc2.bias: expected (24,), found (7,)" in refused(path, **HINTS)


def test_other_learned_positions_than_the_fixed_ones_are_refused(tmp_path: Path):
    weights = with_constants(random_weights(mmaction2(TINY)), TINY)
    weights["backbone.pos_embed"] += 0.1
    torch.save({"state_dict": weights}, tmp_path / "file.pth")
    assert "expected backbone.pos_embed" in refused(tmp_path / "file.pth", **HINTS)
