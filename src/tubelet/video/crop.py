"""Boxes of a frame, cut out and scaled."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional


class Box(NamedTuple):
    """A rectangle of a frame in pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_resize(clip: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Cut a box out of every frame (..., H, W) and scale it to (height, width), with antialiasing."""
    part = clip[..., box.top : box.top + box.height, box.left : box.left + box.width]
    if (box.height, box.width) == size:
        return part.contiguous()
    return functional.resize(part, list(size), antialias=True)


def spread_crops(clip: Tensor, crops: int) -> Tensor:
    """Cut square crops as large as the shorter side, spread evenly along the longer side.

    Args:
        clip: uint8 (T, C, H, W).
        crops: how many; a single crop is central.

    Returns:
        uint8 (crops, T, C, side, side), side = min(H, W).
    """
    height, width = clip.shape[-2:]
    side, free = min(height, width), abs(height - width)
    starts = [free // 2] if crops == 1 else [free * k // (crops - 1) for k in range(crops)]
    axis = -1 if height < width else -2
    return torch.stack([clip.narrow(axis, start, side) for start in starts])
