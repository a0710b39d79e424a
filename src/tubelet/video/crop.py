"""Boxes of a frame, cut out and scaled, and where a test puts them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from tubelet.clips import GeometryName

Scaling = Literal["one_step", "antialias", "bilinear"]
"""How a part of a frame is scaled, always bilinearly: with antialiasing in `one_step` with the conversion to
RGB; or after it, with `antialias` as by Pillow and torchvision, or without (`bilinear`) as by OpenCV."""


class Box(NamedTuple):
    """A rectangle of a frame in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a test scales frames and cuts square crops, as large as the shorter side, out of them.

    Attributes:
        longer_side: how the length of the longer side is made whole: longer * size / shorter is rounded down
            (`floor`) or to the nearest (`round`), or (longer / shorter) * size is rounded down
            (`ratio_floor`), which is a pixel less in the rare cases where floating point falls below a whole
            number.
        spread: how the positions of two or more crops are made whole: rounded down (`floor`), rounded up
            (`ceil`), or in equal whole `steps`, so that the last crop may end before the edge.
        center: how the position of a single crop is made whole: `floor`, `ceil` or `half_to_even`.
        scaling: how pixels are scaled.
    """

    longer_side: Literal["floor", "ratio_floor", "round"] = "floor"
    spread: Literal["floor", "ceil", "steps"] = "floor"
    center: Literal["floor", "ceil", "half_to_even"] = "floor"
    scaling: Scaling = "one_step"

    def scaled(self, height: int, width: int, size: int) -> tuple[int, int]:
        """Return the (height, width) to which a frame of (height, width) is scaled: the shorter is `size`."""
        shorter, longer = min(height, width), max(height, width)
        if self.longer_side == "round":
            whole = int(longer * (size / shorter) + 0.5)
        elif self.longer_side == "ratio_floor":
            whole = int(longer / shorter * size)
        else:
            whole = longer * size // shorter
        return (size, whole) if height <= width else (whole, size)

    def starts(self, free: int, crops: int) -> list[int]:
        """Return where crops start along a side that is `free` pixels longer than they are."""
        if crops == 1:
            return [{"floor": free // 2, "ceil": -(-free // 2), "half_to_even": round(free / 2)}[self.center]]
        if self.spread == "steps":
            return [free // (crops - 1) * k for k in range(crops)]
        if self.spread == "ceil":
            return [-(-free * k // (crops - 1)) for k in range(crops)]
        return [free * k // (crops - 1) for k in range(crops)]


GEOMETRIES: Mapping[GeometryName, Geometry] = {
    "default": Geometry(),
    "videomae": Geometry(center="half_to_even", scaling="bilinear"),
    "mae_st": Geometry(longer_side="ratio_floor", spread="ceil", center="ceil", scaling="bilinear"),
    "mar": Geometry(longer_side="ratio_floor", scaling="bilinear"),
    "mmaction2": Geometry(longer_side="round", spread="steps", scaling="bilinear"),
    "huggingface": Geometry(scaling="antialias"),
}
"""The geometry of published test code, and the default."""


def crop_resize(clip: Tensor, box: Box, size: tuple[int, int], *, antialias: bool = True) -> Tensor:
    """Cut a box out of every frame, uint8 (..., H, W), and scale it to (height, width), bilinearly."""
    part = clip[..., box.top : box.top + box.height, box.left : box.left + box.width]
    if (box.height, box.width) == size:
        return part.contiguous()
    if antialias:
        return functional.resize(part, list(size), antialias=True)
    # In floating point, as torchvision's bytes without antialiasing are often a level too low.
    return functional.resize(part.float(), list(size), antialias=False).round().to(clip.dtype)


def spread_crops(clip: Tensor, crops: int, geometry: Geometry = GEOMETRIES["default"]) -> Tensor:
    """Cut square crops as large as the shorter side, spread evenly along the longer side.

    Args:
        clip: uint8 (T, C, H, W).
        crops: how many; a single crop is central.
        geometry: where exactly they are.

    Returns:
        uint8 (crops, T, C, side, side), side = min(H, W).
    """
    height, width = clip.shape[-2:]
    side, axis = min(height, width), -1 if height < width else -2
    return torch.stack([clip.narrow(axis, k, side) for k in geometry.starts(abs(height - width), crops)])
