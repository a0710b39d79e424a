"""Read any checkpoint file as plain Python values and tensors, without running code from it."""

import argparse
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from tubelet.checkpoints.other_files import SAVE_WEIGHTS, describe_other_file, newer_pickle_names
from tubelet.checkpoints.tensor_file import read_tensors
from tubelet.errors import UserError, first_few

CHUNK_BYTES = 1 << 20
MAX_BYTES_PER_BYTE = 4
"""Bytes of tensors that one byte of a file may stand for: tensors may share memory, and zip may compress."""
_SPARE_BYTES = 1 << 24
"""What a small file may expand to besides."""
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
    """A set of weights, and what is stored beside it.

    Attributes:
        source: the path, for messages.
        weights: the model's tensors, with the prefixes of wrappers removed.
        others: what is stored beside them: epoch, optimizer, settings, ...
    """

    source: str
    weights: dict[str, Tensor]
    others: Mapping[str, Any] = field(default_factory=dict)

    def setting(self, name: str) -> Any:
        """Return a setting of the program that wrote the file (an argparse `args`), or None."""
        return getattr(self.others.get("args"), name, None)


def read_content(path: Path) -> Any:
    """Read a `.pth`, `.pt`, `.pyth`, `.bin` or `.safetensors` file; the content decides, not the suffix.

    Pickles are read by `torch.load(weights_only=True)` with a list of harmless types: no code in the file is
    run. The CRC-32 of each record in a file of torch.save, which torch.load ignores, is verified, and so is
    that of safetensors that Tubelet wrote.

    Raises:
        UserError: the file is missing, empty, damaged, unsafe, no checkpoint, or its tensors claim to be far
            larger than it.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise UserError(f"{path} is empty: copy or download it again")
    if _is_safetensors(head, path):
        content = _read_safetensors(path)
    elif kind := describe_other_file(path, head):
        raise UserError(f"{path} is {kind}")
    else:
        content = _read_pickle(path, head)
    size = sum(tensor.numel() * tensor.element_size() for tensor in _tensors_in(content))
    _require_backed(path, size)
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file does not parse, or is not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def float_tensors(
    weights: Mapping[str, Tensor], source: str, *, allow_nonfinite: bool = False
) -> dict[str, Tensor]:
    """Return a model's tensors as float32.

    Raises:
        UserError: one is not a plain tensor of floating numbers, or has values that are NaN or infinite.
    """
    floats: dict[str, Tensor] = {}
    for name, value in weights.items():
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            kind = f"{'meta ' if value.is_meta else ''}{value.dtype}, {value.layout}".replace("torch.", "")
            raise UserError(f"{source}: expected {name} to be a plain floating tensor, found {kind}")
        floats[name] = value.float()
    bad = [] if allow_nonfinite else [name for name, value in floats.items() if not is_finite(value)]
    if bad:
        raise UserError(
            f"{source}: expected finite weights, found NaN or infinite values in {first_few(bad, 4)}: "
            "its training diverged, or the file is damaged. allow_nonfinite=True (--allow-nonfinite) loads "
            "it anyway"
        )
    return floats


def is_finite(tensor: Tensor) -> bool:
    """Return whether all values are finite, several times as fast as `isfinite` does.

    The smallest and the largest value are NaN if any value is.
    """
    return not tensor.numel() or all(bool(bound.isfinite()) for bound in tensor.aminmax())


def _tensors_in(content: Any) -> Iterator[Tensor]:
    """Yield each tensor once; the content may contain itself."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if value.layout == torch.strided and not value.is_meta:
                yield value
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value


def _require_backed(path: Path, claimed: int) -> None:
    size = path.stat().st_size
    if claimed > MAX_BYTES_PER_BYTE * size + _SPARE_BYTES:
        raise UserError(
            f"{path} has {size:,} bytes, but claims to contain {claimed:,} bytes of tensors: it is damaged, "
            "or not a checkpoint"
        )


def _is_safetensors(head: bytes, path: Path) -> bool:
    """A length, then a JSON object; the suffix decides if the file is cut before that."""
    return head[8:9] == b"{" or (path.suffix == ".safetensors" and len(head) < 9)


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(read_tensors(path))
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def _read_pickle(path: Path, head: bytes) -> Any:
    if head[:2] != b"PK" and head[:1] != b"\x80":  # neither a zip file nor a pickle
        raise UserError(
            f"{path} is not a checkpoint: expected a file of torch.save or safetensors, found one that "
            f"begins with {head[:8]!r}"
        )
    try:
        if head[:2] == b"PK":
            _verify_records(path)
        with torch.serialization.safe_globals(_HARMLESS_TYPES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The messages below cover what torch warns of.
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise _unsafe(path, error) from None
    except Exception as error:  # Damaged bytes make torch.load fail in any way.
        raise _damaged(path, error) from None


def _verify_records(path: Path) -> None:
    """Read all records of a zip file once: `zipfile` compares their CRC-32, which torch.load does not.

    A CRC-32 of 0 means that `torch.serialization.set_crc32_options(False)` was set when it was written.
    """
    with zipfile.ZipFile(path) as archive:
        _require_backed(path, sum(record.file_size for record in archive.infolist()))
        for record in archive.infolist():
            if record.CRC:
                with archive.open(record) as file:
                    while file.read(CHUNK_BYTES):
                        pass


def _unsafe(path: Path, error: pickle.UnpicklingError) -> UserError:
    """The refusal of a pickle that needs more than tensors, or of one whose protocol torch cannot check."""
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        contains = f"more than tensors ({named[1]})"
    elif names := newer_pickle_names(path):
        contains = f"a pickle of protocol 4 or 5 ({', '.join(names)})"
    else:
        return _damaged(path, error)
    return UserError(
        f"{path} contains {contains} and could run code when it is opened, so it was not opened. If you "
        f"trust its source, save only its weights once (under model or another name): {SAVE_WEIGHTS}"
    )


def _damaged(path: Path, error: Exception) -> UserError:
    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{path} is damaged, truncated or not a checkpoint ({first}): copy or download it again")
