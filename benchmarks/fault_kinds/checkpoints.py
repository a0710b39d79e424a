"""Damaged checkpoints: our model folder, `last.pt`, Hugging Face folders and the files of each family."""

import io
import json
import math
import os
import pickle
import re
import shutil
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fault_kinds.data import motion_data, tensors_digest, tiny_models, tiny_recipe
from fault_kinds.mutations import DAMAGES, one_flipped_bit
from fault_kinds.trial import Case, Failure, LimitedProcesses, pick, require
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model
from tubelet.checkpoints.save import save_model
from tubelet.errors import UserError
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.classifier import VideoClassifier
from tubelet.models.target import PixelTarget
from tubelet.recipe.loading import load_recipe
from tubelet.run.training import run_recipe
from tubelet.train.checkpoint import CheckpointStore

LIMIT_S = 60.0
_HINTS: dict[str, Any] = {"heads": 2, "decoder_heads": 1, "bridge_heads": 1, "image_size": 32, "frames": 4}
_SAVES = 5  # before the training that is resumed was interrupted, in the second of its epochs
_BYTES = {"one flipped bit": one_flipped_bit, **DAMAGES}
Weights = dict[str, Any]


def cases(folder: Path, processes: LimitedProcesses) -> list[Case]:
    """Return the cases; what they damage is written to a folder."""
    models = tiny_models()
    own, files = folder / "own", folder / "files"
    for name, model in models.items():
        save_model(model, own / name)
        save_model(model, folder / "hub" / name, "huggingface") if name != "mar" else None
    files.mkdir()
    for layout, model in _layouts(models).items():
        save_model(model, files / f"{layout}.pth", layout)
    run = processes.call(interrupted_run, folder, limit_s=10 * LIMIT_S)
    folders, hub = sorted(own.iterdir()), sorted((folder / "hub").iterdir())
    foreign = sorted(files.iterdir())
    weights, config = "model.safetensors", "config.json"
    damaged = {
        "model folder, bytes of the weights": partial(_folder_bytes, folders, weights),
        "model folder, other weights": partial(_folder_weights, folders),
        "model folder, bytes of config.json": partial(_folder_bytes, folders, config),
        "model folder, values in config.json": partial(_folder_values, folders, [config]),
        "Hugging Face folder, values in its JSON files": partial(
            _folder_values, hub, [config, "preprocessor_config.json"]
        ),
        "Hugging Face folder, other weights": partial(_folder_weights, hub),
        "other families' .pth, bytes": partial(_file_bytes, foreign),
        "other families' .pth, other content": partial(_file_content, foreign),
    }
    loaded = [Case(name, partial(_load, processes, make)) for name, make in damaged.items()]
    return [
        *loaded,
        Case("last.pt, bytes", partial(_resume, processes, run, _last_bytes)),
        Case("last.pt, parts of other types", partial(_resume, processes, run, _last_parts)),
    ]


def _layouts(models: dict[str, Model]) -> dict[str, Model]:
    """Return a model for each foreign layout of one file."""
    autoencoder = models["autoencoder"].config
    assert isinstance(autoencoder, AutoencoderConfig)
    encoder = replace(
        autoencoder.encoder,
        positions="joint",
        class_token=True,
        key_bias=True,
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
    )
    decoder = replace(
        autoencoder.decoder, positions="joint", class_token="learned", embed_bias=True, key_bias=True
    )
    target = PixelTarget(normalize="patch", pixels="normalized")
    mae_st = MaskedAutoencoder(AutoencoderConfig(encoder=encoder, decoder=decoder, target=target))
    return {
        "videomae": models["autoencoder"],
        "videomaev2": models["classifier"],
        "mae_st": mae_st,
        "mmaction2": models["classifier"],
        "mar": models["mar"],
    }


# Loading


Make = Callable[[np.random.Generator, Path], tuple[Path, Path]]
"""Writes a damaged checkpoint and returns its path and that of the original."""


def _load(processes: LimitedProcesses, make: Make, rng: np.random.Generator, folder: Path) -> None:
    """Load a damaged checkpoint: it is refused, or has the weights of the original."""
    path, original = make(rng, folder)
    processes.call(load_or_refuse, path, original, limit_s=LIMIT_S)
    require(not (folder / "code-was-run").exists(), "code in the file was run")


def load_or_refuse(path: Path, original: Path) -> None:
    """Raise a Failure unless loading is refused by name, or gives the weights of the original."""
    try:
        model = _loaded(path)
    except UserError as error:
        message = str(error)
        require(path.name in message, f"the message does not name the file: {message[:200]}")
        require(len(message) < 3000, f"a message of {len(message):,} characters")
        require("allocate" not in message, f"asked for too much memory: {message[:200]}")
        return
    weights, expected = model.state_dict(), _reference(original)
    require(weights.keys() == expected.keys(), "loaded with other tensors")
    wrong = [name for name, tensor in expected.items() if not torch.equal(weights[name], tensor)]
    require(not wrong, f"loaded with other values: {', '.join(wrong[:3])}")
    config = model.config
    size = config.encoder.image_size
    video = torch.zeros(1, config.encoder.frames, 3, size, size, dtype=torch.uint8)
    with torch.no_grad():
        answer = model(video) if isinstance(model, VideoClassifier) else model.encode(video)
    require(bool(answer.isfinite().all()), "loaded with settings whose answers are not finite")


def _loaded(path: Path) -> Model:
    return load_model(path) if path.is_dir() else load_model(path, **_HINTS)


@cache
def _reference(original: Path) -> dict[str, Tensor]:
    return _loaded(original).state_dict()


def _copied(folders: list[Path], rng: np.random.Generator, folder: Path) -> tuple[Path, Path]:
    original = pick(rng, folders)
    return shutil.copytree(original, folder / "damaged"), original


def _folder_bytes(
    folders: list[Path], name: str, rng: np.random.Generator, folder: Path
) -> tuple[Path, Path]:
    copy, original = _copied(folders, rng, folder)
    damage = pick(rng, list(_BYTES.values()))
    (copy / name).write_bytes(damage((copy / name).read_bytes(), rng))
    return copy, original


def _folder_values(
    folders: list[Path], names: list[str], rng: np.random.Generator, folder: Path
) -> tuple[Path, Path]:
    """Replace values in a JSON file by what cannot be right."""
    copy, original = _copied(folders, rng, folder)
    path = copy / pick(rng, names)
    content = json.loads(path.read_text(encoding="utf-8"))
    marker = "the value"
    _replace_somewhere(content, rng, marker)
    text = json.dumps(content).replace(f'"{marker}"', pick(rng, _JSON_VALUES))
    path.write_text(text, encoding="utf-8")
    return copy, original


_JSON_VALUES = (
    "null", "true", "[]", "{}", '""', '"x"', "-1", "0", "1000000000", "1e30", "1e400", "NaN", "-Infinity",
    "[[[]]]", '[1, "x", null]', "9" * 5000, "[" * 100_000 + "]" * 100_000,
    '{"a":' * 100_000 + "1" + "}" * 100_000, '"' + "x" * 1_000_000 + '"', '"\\ud800"', '"a\\nb"',
    '{"kind": []}', '{"kind": "x"}',
)  # fmt: skip


def _replace_somewhere(content: Any, rng: np.random.Generator, value: Any) -> None:
    """Replace a random value at a random depth of nested dictionaries and lists."""
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = pick(rng, keys)
    if isinstance(content[key], dict | list) and content[key] and rng.random() < 0.85:
        _replace_somewhere(content[key], rng, value)
    else:
        content[key] = value


def _folder_weights(folders: list[Path], rng: np.random.Generator, folder: Path) -> tuple[Path, Path]:
    copy, original = _copied(folders, rng, folder)
    weights = load_file(copy / "model.safetensors")
    save_file(_other_weights(weights, rng), copy / "model.safetensors", metadata={"format": "pt"})
    return copy, original


def _other_weights(weights: Weights, rng: np.random.Generator) -> Weights:
    """Change a tensor into what no model can have, or add or remove one."""
    name = pick(rng, sorted(weights))
    tensor = weights[name].clone()
    element = int(rng.integers(tensor.numel()))
    match int(rng.integers(9)):
        case 0:
            tensor.view(-1)[element] = math.nan
        case 1:
            tensor.view(-1)[element] = math.inf
        case 2:
            tensor = torch.full_like(tensor, math.nan)
        case 3:
            tensor = tensor.to(torch.int8)
        case 4:
            tensor = torch.complex(tensor, torch.zeros_like(tensor))
        case 5:
            tensor = tensor.new_zeros((*tensor.shape, 2))
        case 6:
            tensor = tensor.new_zeros(0)
        case 7:
            return {key: value for key, value in weights.items() if key != name}
        case 8:
            return weights | {f"{name}.another": tensor}
    return weights | {name: tensor}


def _file_bytes(files: list[Path], rng: np.random.Generator, folder: Path) -> tuple[Path, Path]:
    original = pick(rng, files)
    path = folder / original.name
    path.write_bytes(pick(rng, list(_BYTES.values()))(original.read_bytes(), rng))
    return path, original


class _RunsCode:
    """What a pickle of it does when it is opened without care."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def _file_content(files: list[Path], rng: np.random.Generator, folder: Path) -> tuple[Path, Path]:
    """Write other content than a program for training does."""
    original = pick(rng, files)
    path = folder / original.name
    with torch.serialization.safe_globals([_namespace()]):
        outer = torch.load(original, weights_only=True)
    key = next(key for key, value in outer.items() if isinstance(value, dict) and len(value) > 5)
    weights, name = outer[key], pick(rng, sorted(outer[key]))
    itself: dict[str, Any] = dict(outer)
    itself["again"] = itself
    nested: Any = weights
    for _ in range(200):
        nested = {"model": nested}
    contents: list[Any] = [
        None, [], {}, "text", 3.5, weights[name], list(weights.values()), [outer], itself, nested,
        outer | {key: None}, outer | {key: list(weights.items())}, outer | {key: {}},
        outer | {key: weights | {name: "text"}},
        outer | {key: weights | {name: None}},
        outer | {key: weights | {7: weights[name]}},
        outer | {key: weights | {name: weights[name].new_zeros(1).expand(10**5, 10**6)}},
        outer | {key: weights | {name: weights[name].to_sparse()}},
        outer | {key: weights | {name: torch.empty(10**6, 10**6, device="meta")}},
        outer | {key: weights | {name: weights[name].bool()}},
        outer | {key: _RunsCode(folder / "code-was-run")},
        outer | {"other": _RunsCode(folder / "code-was-run")},
        *(outer | {key: _other_weights(weights, rng)} for _ in range(9)),
    ]  # fmt: skip
    content = pick(rng, contents)
    if rng.random() < 0.1:
        path.write_bytes(pickle.dumps(_RunsCode(folder / "code-was-run")))
    else:
        torch.save(content, path)
    return path, original


def _namespace() -> type:
    import argparse

    return argparse.Namespace


# Resuming


def interrupted_run(folder: Path) -> dict[str, Path]:
    """Train in two folders, in one of them only for _SAVES steps; return both and the recipe."""
    recipe = tiny_recipe("finetune", motion_data(folder / "data"), folder)
    paths = {"recipe": recipe, "whole": folder / "whole", "interrupted": folder / "interrupted"}
    run_quietly(recipe, paths["whole"])
    saved, saves = CheckpointStore.save_last, 0

    def save_and_stop(store: CheckpointStore, *state: Any) -> None:
        nonlocal saves
        saved(store, *state)
        saves += 1
        if saves == _SAVES:
            raise _Stopped

    with patch.object(CheckpointStore, "save_last", save_and_stop):
        try:
            run_quietly(recipe, paths["interrupted"])
        except _Stopped:
            return paths
    raise Failure("the training ended before it was interrupted")


class _Stopped(Exception):  # noqa: N818
    """Interrupts a training."""


def run_quietly(recipe: Path, folder: Path) -> None:
    """Run a recipe to its end."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        run_recipe(load_recipe(str(recipe)), folder)


def _resume(
    processes: LimitedProcesses,
    run: dict[str, Path],
    damage: Callable[[bytes, np.random.Generator], bytes],
    rng: np.random.Generator,
    folder: Path,
) -> None:
    """Resume from a damaged `last.pt`: it is refused, or the result is that of an uninterrupted run."""
    copy = shutil.copytree(run["interrupted"], folder / "run")
    (copy / "last.pt").write_bytes(damage((copy / "last.pt").read_bytes(), rng))
    processes.call(resume_or_refuse, run["recipe"], copy, run["whole"], limit_s=2 * LIMIT_S)


def resume_or_refuse(recipe: Path, folder: Path, whole: Path) -> None:
    """Raise a Failure unless resuming is refused, or ends with the model of an uninterrupted run."""
    try:
        run_quietly(recipe, folder)
    except UserError as error:
        require(len(str(error)) < 3000, f"a message of {len(str(error)):,} characters")
        return
    for name in ("model.safetensors", "best/model.safetensors"):
        same = tensors_digest(folder / name) == tensors_digest(whole / name)
        require(same, f"resumed, and {name} is another than that of an uninterrupted run")


def _last_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    return pick(rng, list(_BYTES.values()))(data, rng)


def _last_parts(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace or remove parts of a state; a checksum at the file's end is made to fit again."""
    state = torch.load(io.BytesIO(data), weights_only=True)
    value = pick(rng, _PYTHON_VALUES)
    if rng.random() < 0.1:
        state = value
    elif rng.random() < 0.2:
        del state[pick(rng, sorted(state))]
    else:
        _replace_somewhere(state, rng, value)
    content = io.BytesIO()
    torch.save(state, content)
    return _with_checksum(content.getvalue(), data)


_PYTHON_VALUES: tuple[Any, ...] = (  # no numbers: another one may be right
    None, [], {}, (), "x", math.nan, [1, "x"], {"x": 1}, {1: {}}, torch.zeros(3), torch.full((), math.nan),
    torch.zeros(0, dtype=torch.int8),
)  # fmt: skip


def _with_checksum(data: bytes, original: bytes) -> bytes:
    """Add a CRC-32 as the original has it, if it has one, so that the content is looked at."""
    found = re.search(rb"\ncrc32 [0-9a-f]{8}\n\Z", original)
    return data + b"\ncrc32 %08x\n" % zlib.crc32(data) if found else data
