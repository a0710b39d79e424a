"""Boxes of a frame and their pixels at another size."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_resize(clip: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Cut a box out of every frame and scale it to (height, width): bilinear with antialiasing."""
    part = clip[..., box.top : box.top + box.height, box.left : box.left + box.width]
    if (box.height, box.width) == size:
        return part.contiguous()
    return functional.resize(part, list(size), antialias=True)


def spread_crops(clip: Tensor, crops: int) -> Tensor:
    """Square crops as large as the short side, spread along the long one.

    Args:
        clip: uint8 (T, C, H, W).
        crops: how many; a single one is central.

    Returns:
        uint8 (crops, T, C, side, side), side = min(H, W).
    """
    height, width = clip.shape[-2:]
    side, free = min(height, width), abs(height - width)
    places = [free // 2] if crops == 1 else [free * k // (crops - 1) for k in range(crops)]
    axis = -1 if height < width else -2
    return torch.stack([clip.narrow(axis, place, side) for place in places])
