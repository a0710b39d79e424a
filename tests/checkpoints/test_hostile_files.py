"""Files and folders that are damaged, huge or something else: each is named for what it is."""

import gzip
import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.checkpoints.layouts import (
    HINTS,
    TINY,
    huggingface_classifier,
    huggingface_config,
    random_weights,
    videomae_classifier,
)
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model
from tubelet.checkpoints.save import save_model
from tubelet.checkpoints.tensor_file import read_tensors
from tubelet.clips import DenseClip
from tubelet.errors import UserError
from tubelet.run.inspection import inspect_checkpoint

Weights = dict[str, Tensor]
Command = Callable[..., tuple[int, str, str]]
HUGE = 10**9


@pytest.fixture
def weights() -> Weights:
    return random_weights(videomae_classifier(TINY))


@pytest.fixture
def model(weights: Weights, tmp_path: Path) -> Model:
    torch.save(weights, tmp_path / "source.pth")
    return load_model(tmp_path / "source.pth", **HINTS)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A Hugging Face folder."""
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(random_weights(huggingface_classifier(TINY)), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(huggingface_config(TINY)))
    return folder


def change(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def refused(path: Path, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_model(path, **given)
    return str(caught.value)


# What it is


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_files_of_other_kinds_are_named_with_the_way_out(weights: Weights, tmp_path: Path):
    def script(path: Path) -> None:
        torch.jit.script(nn.Linear(2, 2)).save(path)

    def arrays(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, a=np.zeros(3))

    def archive(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("checkpoint.pth", "x")

    kinds: dict[str, tuple[Callable[[Path], object], str]] = {
        "TorchScript": (script, "is a TorchScript archive.*torch.jit.load"),
        "NumPy": (arrays, "archive of NumPy arrays.*a.npy"),
        "zip": (archive, "zip archive.*checkpoint.pth.*unpack"),
        "gzip": (lambda path: path.write_bytes(gzip.compress(b"x")), "gzip: unpack"),
        "LFS": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        "page": (lambda path: path.write_text("<!DOCTYPE html><html>"), "web page"),
        "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "a bare pickle.*if you trust"),
        "arrays": (
            lambda path: path.write_bytes(pickle.dumps({"a": np.zeros(3)})),
            r"bare pickle.*could run code.*numpy.*_reconstruct",
        ),
        "newer pickle": (lambda path: torch.save(weights, path, pickle_protocol=4), "protocol 4 or 5"),
        "newer pickle, old format": (
            lambda path: torch.save(weights, path, pickle_protocol=5, _use_new_zipfile_serialization=False),
            "protocol 4 or 5",
        ),
    }  # fmt: skip
    for kind, (write, expected) in kinds.items():
        path = tmp_path / "file.pth"
        write(path)
        with pytest.raises(UserError, match=rf"file\.pth .*{expected}") as caught:
            load_model(path)
        assert "damaged" not in str(caught.value), kind


def test_a_bare_pickle_of_any_protocol_is_not_run(tmp_path: Path):
    path, trace = tmp_path / "file.pth", tmp_path / "it ran"
    for protocol in range(6):
        path.write_bytes(pickle.dumps({"model": {}, "x": _Bomb(trace)}, protocol=protocol))
        message = refused(path)
        assert "bare pickle" in message, protocol
        assert ".mkdir" in message, protocol
    assert not trace.exists()


def test_text_that_begins_like_a_pickle_is_not_called_one(tmp_path: Path):
    (tmp_path / "file.pth").write_text("clip_name,class_id\nvideos/0.mp4,3\n")
    assert "pickle" not in refused(tmp_path / "file.pth")


def test_folders_of_other_kinds_are_named_with_the_way_out(weights: Weights, tmp_path: Path):
    def files(*names: str) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text("{}")

        return make

    adapter = json.dumps({"base_model_name_or_path": "MCG-NJU/videomae-base"})
    kinds: dict[str, tuple[Callable[[Path], object], str]] = {
        "Trainer": (
            files("checkpoint-500/config.json", "checkpoint-1000/config.json", "runs/x"),
            r"checkpoint-500, checkpoint-1000.*such as \S+/checkpoint-1000",
        ),
        "Trainer, with the processor's config": (
            lambda folder: [
                files("checkpoint-5/model.safetensors")(folder),
                (folder / "config.json").write_text('{"model_type": "videomae"}'),
            ],
            r"such as \S+/checkpoint-5",
        ),
        "adapter": (
            lambda folder: (folder / "adapter_config.json").write_text(adapter),
            "PEFT adapter.*MCG-NJU/videomae-base",
        ),
        "DCP": (files(".metadata", "__0_0.distcp"), "dcp_to_torch"),
        "DeepSpeed": (files("checkpoint-best/mp_rank_00_model_states.pt"), "mp_rank_00_model_states.pt"),
        "VideoMAE's run": (files("checkpoint-9.pth", "log.txt"), r"such as \S+/checkpoint-9\.pth"),
        "index outside": (
            lambda folder: (folder / "x.txt").write_text(""),
            "expected a folder with config.json and model.safetensors",
        ),
    }
    for number, (make, expected) in enumerate(kinds.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder)
        with pytest.raises(UserError, match=expected):
            load_model(folder)


# What it claims


def test_huge_sizes_in_a_hub_config_are_compared_with_the_weights(hub: Path):
    for setting in (
        "num_hidden_layers", "num_frames", "hidden_size", "image_size", "patch_size", "tubelet_size",
        "num_attention_heads",
    ):  # fmt: skip
        (hub / "config.json").write_text(json.dumps(huggingface_config(TINY) | {setting: HUGE}))
        assert str(hub) in refused(hub), setting


def test_huge_sizes_in_our_config_are_compared_with_the_weights(model: Model, tmp_path: Path):
    save_model(model, tmp_path / "x")
    path = tmp_path / "x" / "config.json"
    whole = json.loads(path.read_text())
    values: dict[str, Any] = dict.fromkeys(("depth", "dim", "heads", "mlp_dim", "frames", "image_size"), HUGE)
    for setting, value in (values | {"position_grid": [HUGE, 3, 3], "patch_size": 30_000}).items():
        encoder = whole["model"]["encoder"] | {setting: value}
        path.write_text(json.dumps(whole | {"model": whole["model"] | {"encoder": encoder}}))
        assert str(tmp_path / "x") in refused(tmp_path / "x"), setting
    path.write_text(json.dumps(whole | {"model": whole["model"] | {"classes": HUGE}}))
    assert "head.classify.weight: expected (1000000000, 24), found (5, 24)" in refused(tmp_path / "x")


def test_a_clip_of_too_many_tokens_is_refused(model: Model, tmp_path: Path):
    for name in ("frames", "image_size"):
        assert "tokens" in refused(tmp_path / "source.pth", **HINTS | {name: 4 * HUGE})
    save_model(model, tmp_path / "x")
    assert "tokens" in refused(tmp_path / "x", frames=4 * HUGE)


def test_tensors_without_memory_are_compared_with_the_file(weights: Weights, tmp_path: Path):
    path = tmp_path / "file.pth"
    whole = torch.zeros(1).expand(10**5, 3 * 10**5)  # 120 GB
    torch.save({"model": weights | {"head.weight": whole}}, path)
    assert "claims to contain 120,0" in refused(path, **HINTS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x/data.pkl", bytes(10**8))
    assert "claims to contain 100,000,000 bytes" in refused(path, **HINTS)


def test_a_pickle_that_contains_itself_has_no_weights(weights: Weights, tmp_path: Path):
    path = tmp_path / "file.pth"
    content: dict[str, Any] = {}
    content |= dict.fromkeys(("model", "module", "state_dict", "a", "b", "c"), content)
    torch.save(content, path)
    assert "has no weights" in refused(path)
    torch.save(content | {"state_dict": weights}, path)
    load_model(path, **HINTS)


def test_parts_outside_the_folder_are_not_read(hub: Path):
    (hub.parent / "secret.txt").write_text("do not print this")
    (hub / "model.safetensors").rename(hub / "part.safetensors")
    index = hub / "model.safetensors.index.json"
    for name in ("../secret.txt", "/etc/passwd", "..\\secret.txt", "a/../../secret.txt", "..", ""):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        message = refused(hub)
        assert "in its own folder" in message, name
        assert "do not" not in message, name
    wrongs: list[Any] = [{"a": 3}, {"a": ["x"]}, {}, [], None]
    for wrong in wrongs:
        index.write_text(json.dumps({"weight_map": wrong}))
        assert "expected weight_map to name a file" in refused(hub)
    index.write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    load_model(hub)
    shutil.copy(hub / "part.safetensors", hub / "again.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "part.safetensors", "b": "again.safetensors"}}))
    assert "another part also has" in refused(hub)


@pytest.mark.parametrize("depth", [10**5])
def test_a_deeply_nested_config_is_damaged(hub: Path, depth: int):
    (hub / "config.json").write_text('{"model_type": ' + "[" * depth + "]" * depth + "}")
    assert "config.json is damaged" in refused(hub)


def test_class_names_that_are_not_text_are_refused(hub: Path):
    for names in (
        {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4}, {"0": "a", "1": None, "2": "c", "3": "d", "4": "e"},
        {"0": "a"}, {"a": "b", "1": "b", "2": "c", "3": "d", "4": "e"}, ["a", "b", "c", "d", "e"], "abcde", 5,
        {"0": "a\nb", "1": "b", "2": "c", "3": "d", "4": "e"},
    ):  # fmt: skip
        change(hub / "config.json", id2label=names)
        assert str(hub) in refused(hub), names


def test_settings_of_other_types_are_one_message(hub: Path):
    for setting, value in {
        "num_frames": "16", "hidden_size": 24.0, "num_hidden_layers": True, "image_size": [12, None],
        "layer_norm_eps": "small", "num_attention_heads": {}, "patch_size": [],
    }.items():  # fmt: skip
        (hub / "config.json").write_text(json.dumps(huggingface_config(TINY) | {setting: value}))
        assert str(hub) in refused(hub), setting


def test_a_config_of_other_types_is_one_message(model: Model, tmp_path: Path):
    save_model(model, tmp_path / "x")
    path = tmp_path / "x" / "config.json"
    whole = json.loads(path.read_text())
    cards: list[Any] = [[], None, {"classes": ["a"]}, {"clip": {"kind": "dense", "frames": 99, "stride": 4}}]
    for changed in (
        {"kind": []}, {"kind": {}}, {"kind": None}, {"tubelet": []}, {"model": None}, {"model": []},
        *({"card": card} for card in cards),
    ):  # fmt: skip
        path.write_text(json.dumps(whole | changed))
        assert str(path) in refused(tmp_path / "x"), changed


def test_a_card_that_does_not_fit_is_not_saved(model: Model, tmp_path: Path):
    whole = model.card
    for card in (replace(whole, classes=("a", "b")), replace(whole, clip=DenseClip(frames=99, stride=4))):
        model.card = card
        with pytest.raises(UserError, match="card"):
            save_model(model, tmp_path / "x")
        assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["heads", "decoder_heads", "bridge_heads", "image_size", "frames"])
def test_a_hint_of_zero_is_refused(hub: Path, tmp_path: Path, model: Model, name: str):
    for source in (hub, tmp_path / "source.pth"):
        for value in (0, -3):
            assert f"{name} must be at least 1, found {value}" in refused(source, **{name: value})


# Values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    model: Model, weights: Weights, tmp_path: Path, tubelet: Command, value: float
):
    weights["blocks.1.norm1.bias"][3] = value
    torch.save({"model": weights}, tmp_path / "x.pth")
    message = refused(tmp_path / "x.pth", **HINTS)
    assert "blocks.1.norm1.bias" in message
    assert "x.pth" in message
    assert "--allow-nonfinite" in message
    diverged = load_model(tmp_path / "x.pth", **HINTS, allow_nonfinite=True)
    save_model(diverged, tmp_path / "own")
    assert "encoder.transformer.blocks.1.norm1.bias" in refused(tmp_path / "own")
    load_model(tmp_path / "own", allow_nonfinite=True)
    inspection = inspect_checkpoint(tmp_path / "own", allow_nonfinite=True)
    assert dict(inspection.lines)["not finite"].startswith("1 ")
    assert tubelet("inspect", tmp_path / "own")[0] == 2
    assert tubelet("inspect", tmp_path / "own", "--allow-nonfinite")[0] == 0
    assert tubelet("convert", tmp_path / "own", tmp_path / "z", "--allow-nonfinite")[0] == 0


def test_numbers_that_float32_cannot_hold_are_refused(weights: Weights, tmp_path: Path):
    large = {name: value.double() for name, value in weights.items()}
    large["head.bias"][0] = 1e300
    torch.save({"model": large}, tmp_path / "x.pth")
    assert "head.bias" in refused(tmp_path / "x.pth", **HINTS)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_our_folders_with_other_numbers_are_refused_by_name(model: Model, tmp_path: Path, dtype: torch.dtype):
    save_model(model, tmp_path / "x")
    path = tmp_path / "x" / "model.safetensors"
    stored = read_tensors(path)
    save_file(stored | {"head.classify.bias": stored["head.classify.bias"].to(dtype)}, path)
    message = refused(tmp_path / "x")
    assert "head.classify.bias" in message
    assert str(dtype).removeprefix("torch.") in message


# Checksums


def flips(path: Path, count: int) -> list[int]:
    """Offsets of bits all over a file."""
    return [int(x) for x in np.random.default_rng(0).integers(0, path.stat().st_size * 8, count)]


def outcome(source: Path, **given: Any) -> Weights | str:
    """The weights, or the message of the refusal."""
    try:
        return load_model(source, **given).state_dict()
    except UserError as error:
        return str(error)


@pytest.mark.slow
def test_one_flipped_bit_in_our_files_is_noticed(model: Model, tmp_path: Path):
    save_model(model, tmp_path / "own")
    save_model(model, tmp_path / "x.pth", "videomae")
    for source, hints in ((tmp_path / "own", {}), (tmp_path / "x.pth", HINTS)):
        path = source / "model.safetensors" if source.is_dir() else source
        whole = path.read_bytes()
        expected = load_model(source, **hints).state_dict()
        for bit in flips(path, 60):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            found = outcome(source, **hints)
            if isinstance(found, str):
                assert str(source) in found, bit
            else:  # Only what pads the records, or is not used in the list of them, has changed.
                assert all(torch.equal(found[name], expected[name]) for name in expected), bit
        path.write_bytes(whole)


def test_a_flipped_bit_in_a_hub_folder_of_ours_is_noticed(hub: Path, tmp_path: Path):
    save_model(load_model(hub), tmp_path / "hf", "huggingface")
    path = tmp_path / "hf" / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["format"] == "pt"
    damaged = bytearray(path.read_bytes())
    damaged[-9] ^= 1
    path.write_bytes(damaged)
    assert "CRC-32" in refused(tmp_path / "hf")


def test_files_whose_checksums_were_not_computed_are_read(weights: Weights, tmp_path: Path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    load_model(tmp_path / "x.pth", **HINTS)


def test_a_folder_whose_weights_were_replaced_by_hand_is_read(model: Model, tmp_path: Path):
    save_model(model, tmp_path / "x")
    stored = read_tensors(tmp_path / "x" / "model.safetensors")
    save_file({name: value + 1 for name, value in stored.items()}, tmp_path / "x" / "model.safetensors")
    load_model(tmp_path / "x")


def test_a_loaded_model_owns_its_memory(model: Model, tmp_path: Path):
    """A model is not changed by writing over its file, nor are tensors that share memory in a file tied."""
    save_model(model, tmp_path / "x")
    path = tmp_path / "x" / "model.safetensors"
    loaded = load_model(tmp_path / "x")
    with path.open("rb+") as file:
        file.write(bytes(path.stat().st_size))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert all(parameter.requires_grad and parameter.is_contiguous() for parameter in loaded.parameters())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of memory are POSIX's")
def test_hostile_sizes_need_little_memory(hub: Path, tmp_path: Path):
    """A process that may use 12 GB of addresses refuses all of them."""
    sizes = {"num_frames": HUGE, "num_hidden_layers": HUGE, "image_size": 4000, "patch_size": 4000}
    for name, value in sizes.items():
        folder = shutil.copytree(hub, tmp_path / name)
        change(folder / "config.json", **{name: value})
    program = (
        "import sys, tubelet\n"
        "for source in sys.argv[1:]:\n"
        "    try: tubelet.load_model(source)\n"
        "    except tubelet.UserError: print('refused')\n"
    )
    sources = [str(tmp_path / name) for name in sizes]
    run = subprocess.run(
        [sys.executable, "-c", program, *sources],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)),
    )
    assert run.stdout == "refused\n" * len(sizes)


# Long values, odd numbers, full disks


@pytest.mark.slow
def test_messages_do_not_repeat_a_value_of_a_megabyte(model: Model, hub: Path, tmp_path: Path):
    save_model(model, tmp_path / "own")
    (hub / "preprocessor_config.json").write_text("{}")
    long: list[Any] = ["x" * 10**6, ["x" * 10**5] * 10, "9" * 5000, [[[["y" * 10**6]]]], {"z" * 10**6: 1}]
    own, hub_config = tmp_path / "own" / "config.json", hub / "config.json"
    keys_of: dict[Path, tuple[str, ...]] = {
        own: ("tubelet", "kind", "model", "card", "z" * 10**6),
        hub_config: ("model_type", "hidden_size", "image_size", "problem_type", "id2label", "hidden_act"),
        hub / "preprocessor_config.json": ("image_mean", "rescale_factor", "do_normalize"),
    }
    for path, keys in keys_of.items():
        original = json.loads(path.read_text())
        for key in keys:
            for value in long:
                path.write_text(json.dumps(original | {key: value}))
                with suppress(UserError):
                    load_model(path.parent)
                    continue
                message = refused(path.parent)
                assert len(message) < 2500, (path, key)
                assert str(path.parent) in message, (path, key)
        path.write_text(json.dumps(original))


def test_a_few_of_many_tensors_are_named(weights: Weights, model: Model, tmp_path: Path):
    kept = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "blocks.0.attn.q_bias")
    few = {name: weights[name] for name in kept} | {f"more.{k}": torch.zeros(1) for k in range(99)}
    torch.save(few, tmp_path / "x.pth")
    message = refused(tmp_path / "x.pth", **HINTS)
    assert re.search(r"and \d+ more$", message)
    assert len(message.splitlines()) < 12

    save_model(model, tmp_path / "own")
    path = tmp_path / "own" / "config.json"
    settings = json.loads(path.read_text())
    settings["model"]["encoder"]["depth"] = 12
    path.write_text(json.dumps(settings))
    assert len(refused(tmp_path / "own").splitlines()) < 12


def test_pixel_statistics_of_no_pixels_are_refused_by_file_and_field(model: Model, hub: Path, tmp_path: Path):
    for field, value in (
        ("image_mean", 1e30), ("image_mean", [0.5, -1e5, 0.5]), ("image_std", 1e30), ("image_std", 1e-30),
        ("image_std", 0), ("image_std", -0.5), ("rescale_factor", 1e30), ("rescale_factor", 1e-30),
        ("rescale_factor", 0),
    ):  # fmt: skip
        for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
            (hub / name).write_text(json.dumps({field: value}))
            message = refused(hub)
            assert f"{hub}/{name}: {field}" in message, (field, value)
            (hub / name).unlink()
    save_model(model, tmp_path / "own")
    path = tmp_path / "own" / "config.json"
    for name in ("mean", "std"):
        settings = json.loads(path.read_text())
        settings["model"]["encoder"][name] = [1e30] * 3
        path.write_text(json.dumps(settings))
        assert f"{name} must be between" in refused(path.parent)
        settings["model"]["encoder"][name] = [0.5] * 3
        path.write_text(json.dumps(settings))


def test_what_a_full_disk_interrupts_leaves_nothing(model: Model, tmp_path: Path, tubelet: Command):
    save_model(model, tmp_path / "own")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for layout in ("huggingface", "tubelet", "videomae"):
        out = tmp_path / layout / "out"
        for size in (10, 3000):  # bytes of a file that can be written
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            try:
                code, _, err = tubelet("convert", tmp_path / "own", out, "--to", layout)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert code == 2, (layout, err)
            assert err.count("tubelet: ") == 1
            assert list(out.parent.iterdir()) == [], layout
        assert tubelet("convert", tmp_path / "own", out, "--to", layout)[0] == 0


@pytest.mark.slow
def test_equal_models_make_equal_files(model: Model, tmp_path: Path):
    """The Rust library writes two or more metadata keys in an order that is random in each call."""
    for layout in ("tubelet", "huggingface"):
        written = set()
        for number in range(8):
            save_model(model, tmp_path / f"{layout}{number}", layout)
            written.add((tmp_path / f"{layout}{number}" / "model.safetensors").read_bytes())
        assert len(written) == 1
        with safe_open(tmp_path / f"{layout}0" / "model.safetensors", framework="pt") as file:
            assert file.metadata()["format"] == "pt"
    program = """
import sys
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.save import save_model
save_model(load_model(sys.argv[1]), sys.argv[2])
"""
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", program, tmp_path / "tubelet0", tmp_path / f"by {seed}"],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
        )
    names = ("by 1", "by 2", "tubelet0")
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in names}) == 1
