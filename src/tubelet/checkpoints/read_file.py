"""Read any checkpoint file or Hugging Face folder as plain tensors, without running code from it."""

import argparse
import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tubelet.checkpoints.hub import HUB_CONFIG, HUB_PREPROCESSOR, HUB_WEIGHTS
from tubelet.errors import UserError

_OUTER_KEYS = ("model", "module", "model_state", "state_dict", "model_state_dict")
"""Where code bases store the weights, in the order in which they are looked for."""
_restore_scalar = np.float64(0).__reduce__()[0]  # NumPy keeps its name private.
# Published files pickle settings and metrics beside the tensors.
_HARMLESS_TYPES: list[Any] = [
    argparse.Namespace,
    np.dtype,
    _restore_scalar,
    (_restore_scalar, "numpy.core.multiarray.scalar"),  # the name in NumPy 1
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)),
]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        source: the path, for messages.
        weights: the model's tensors; floating ones as float32, with the prefixes of wrappers removed.
        others: what is stored beside them: epoch, optimizer, settings, ...
    """

    source: str
    weights: dict[str, Tensor]
    others: Mapping[str, Any] = field(default_factory=dict)

    def setting(self, name: str) -> Any:
        """Return a setting of the program that wrote the file (an argparse `args`), or None."""
        return getattr(self.others.get("args"), name, None)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.pth`, `.pt`, `.pyth`, `.bin` or `.safetensors` file; the content decides, not the suffix.

    Pickles are read by `torch.load(weights_only=True)` with a list of harmless types: no code in the file is
    run.

    Raises:
        UserError: the file is missing, empty, truncated or unsafe, or has no weights.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise UserError(f"{path} is empty: copy or download it again")
    content = _read_safetensors(path) if _is_safetensors(head, path) else _read_pickle(path, head)
    weights, others = _unwrap(content, str(path))
    return Checkpoint(str(path), _plain(weights, str(path)), others)


def read_hub_folder(folder: Path) -> Checkpoint:
    """Read a Hugging Face folder: its weights, in one file or in parts, and its settings as other members.

    Raises:
        UserError: a file is missing or damaged.
    """
    others = {
        name: read_json(folder / name) for name in (HUB_CONFIG, HUB_PREPROCESSOR) if (folder / name).is_file()
    }
    for name in HUB_WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            parts = [name]
        elif index.is_file():
            files = read_json(index).get("weight_map")
            if not isinstance(files, dict):
                raise UserError(f"{index}: expected weight_map to name a file for each weight")
            parts = sorted(set(files.values()))
        else:
            continue
        weights: dict[str, Tensor] = {}
        for part in parts:
            weights |= read_checkpoint(folder / part).weights
        return Checkpoint(str(folder), weights, others)
    raise UserError(f"{folder} has a {HUB_CONFIG}, but neither {' nor '.join(HUB_WEIGHTS)}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file does not parse, or is not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _is_safetensors(head: bytes, path: Path) -> bool:
    """A length, then a JSON object; the suffix decides if the file is cut before that."""
    return head[8:9] == b"{" or (path.suffix == ".safetensors" and head[:2] != b"PK")


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, struct.error, json.JSONDecodeError) as error:
        raise _damaged(path, error) from None


def _read_pickle(path: Path, head: bytes) -> Any:
    if head[:2] != b"PK" and head[:1] != b"\x80":  # neither a zip file nor a bare pickle
        raise UserError(
            f"{path} is not a checkpoint: expected a file of torch.save or safetensors, found one that "
            f"begins with {head[:8]!r}"
        )
    try:
        with torch.serialization.safe_globals(_HARMLESS_TYPES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The messages below cover what torch warns of.
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        if unsafe is None:
            raise _damaged(path, error) from None
        raise UserError(
            f"{path} contains more than tensors ({unsafe[1]}) and could run code when it is opened, so it "
            "was not opened. If you trust its source, save only its weights once (under model or another "
            'name): torch.save(torch.load(PATH, weights_only=False)["model"], "weights.pth")'
        ) from None
    except Exception as error:  # Damaged bytes make torch.load fail in any way.
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{path} is damaged, truncated or not a checkpoint ({first}): copy or download it again")


def _unwrap(content: Any, source: str) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the weights, and what is stored beside them."""
    others: dict[str, Any] = {}
    while isinstance(content, Mapping):
        inner = next((key for key in _OUTER_KEYS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        others |= {str(key): value for key, value in content.items() if key != inner}
        content = content[inner]
    if not isinstance(content, Mapping):
        raise UserError(f"{source} has no weights: expected a dictionary, found {type(content).__name__}")
    if _has_tensors(content):
        return content, others
    inside = [key for key, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]
    if len(inside) == 1:  # under a key that no known code base uses
        return content[inside[0]], others | {str(k): v for k, v in content.items() if k != inside[0]}
    if inside:
        raise UserError(
            f"{source} has more than one set of weights, {', '.join(map(str, inside))}: save the one you "
            'want as {"model": ...}'
        )
    found = ", ".join(map(str, list(content)[:8])) or "nothing"
    raise UserError(f"{source} has no weights: expected named tensors, found {found}")


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def _plain(weights: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Remove the prefixes that DDP and torch.compile add to names; floating tensors as float32."""
    named = {str(key).replace("_orig_mod.", ""): value for key, value in weights.items()}
    while all(key.startswith("module.") for key in named):
        named = {key.removeprefix("module."): value for key, value in named.items()}
    if len(named) < len(weights):
        raise UserError(f"{source} has the same weights twice, with and without _orig_mod.")
    for key, value in named.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{source}: expected only tensors among the weights, found {key}")
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            kind = f"{'meta ' if value.is_meta else ''}{value.dtype}, {value.layout}".replace("torch.", "")
            raise UserError(f"{source}: expected {key} to be a plain floating tensor, found {kind}")
    return {key: value.float() for key, value in named.items()}
