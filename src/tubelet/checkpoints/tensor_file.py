"""Files of safetensors: written with a CRC-32 of all tensors in their header, which reading verifies."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from tubelet.errors import UserError
from tubelet.files import replacing

_CRC = "tubelet_crc32"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Replace a file; its header stores the CRC-32 of what is written. Equal tensors make equal bytes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header, values = _split(save(plain))
    header = {"__metadata__": {"format": "pt", _CRC: crc32(plain)}, **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the values are aligned
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(values)


def _split(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header and the values. `save` itself would write metadata in an order that varies."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), memoryview(content)[end:]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of safetensors; if it was written by `write_tensors`, its CRC-32 is verified.

    Raises:
        SafetensorError: the file is truncated or malformed.
        OSError: it cannot be read.
        UserError: its tensors are not those that were written.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        expected = (file.metadata() or {}).get(_CRC)
    if expected is not None and (found := crc32(tensors)) != expected:
        raise UserError(
            f"{path} cannot be read, it is damaged: expected the CRC-32 {expected}, found {found}. Copy or "
            "download it again"
        )
    return tensors


def crc32(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of the names, dtypes, shapes and values, in the order of the names."""
    crc = 0
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
