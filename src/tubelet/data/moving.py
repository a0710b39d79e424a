"""Pixels moved about in a frame, bicubically, the same in all frames of a clip.

The kernel is torch's, with a = -0.75.
"""

from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

Fill = tuple[int, int, int]

_ROWS = 16  # worked on at a time, so that they stay in the processor's cache


def move(clip: Tensor, matrix: tuple[float, float, float, float, float, float], fill: Fill) -> Tensor:
    """Every pixel (x, y) of the outcome from (a x + b y + c, d x + e y + f), bicubic; `fill` from outside.

    Places are of pixel centers, the first at (1/2, 1/2). Beside the edge the frame's last pixels go on, so
    that no fill bleeds in, as in Pillow.

    Args:
        clip: uint8 (T, C=3, H, W).
        matrix: a to f.
        fill: RGB in [0, 255].
    """
    height, width = clip.shape[-2:]
    a, b, c, d, e, f = matrix
    y, x = (torch.arange(size) + 0.5 for size in (height, width))
    across = a * x + b * y[:, None] + c
    down = d * x + e * y[:, None] + f
    outside = (across < 0) | (across >= width) | (down < 0) | (down >= height)
    grid = torch.stack([2 * across / width - 1, 2 * down / height - 1], -1)[None]
    # Frames as channels of one picture: the places are worked out once for all of them.
    picture = clip.flatten(0, 1)[None].float()
    moved = grid_sample(picture, grid, "bicubic", padding_mode="border", align_corners=False)
    pixels = moved.round_().clamp_(0, 255).to(torch.uint8).view_as(clip)
    return torch.where(outside, torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1), pixels)


def slide(clip: Tensor, shift: Tensor, fill: Fill) -> Tensor:
    """Every row of the outcome from its own row, `shift` pixels to the right of itself: `move` along rows.

    One kernel in place of two, which makes it three times as fast.

    Args:
        clip: uint8 (T, C=3, H, W).
        shift: float (H,), of each row in pixels.
        fill: RGB in [0, 255] of what comes from outside.
    """
    width = clip.shape[-1]
    whole = shift.floor()
    weights = _kernel(shift - whole)
    edged = torch.cat([clip[..., :1], clip[..., :1], clip, clip[..., -1:], clip[..., -1:]], -1)
    places = torch.arange(width) + 0.5 + shift[:, None]
    inside = (places >= 0) & (places < width)
    out = torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1).expand_as(clip).contiguous()
    for start, rows in _runs(whole.int().tolist()):
        left, right = max(0, -start - 1), min(width, width - start)
        if left >= right:
            continue
        source = edged[..., rows, left + start + 1 : right + start + 4].float()
        weight = weights[rows]
        total = source[..., :-3] * weight[:, :1]
        for k in range(1, 4):
            total.addcmul_(source[..., k : k + right - left], weight[:, k : k + 1])
        moved = total.round_().clamp_(0, 255).to(torch.uint8)
        target = out[..., rows, left:right]
        target.copy_(torch.where(inside[rows, left:right], moved, target))
    return out


def _runs(starts: list[int]) -> list[tuple[int, slice]]:
    """Rows that follow each other and start alike, a few at a time."""
    return [
        (start, slice(rows[k], rows[min(k + _ROWS, len(rows)) - 1] + 1))
        for start, group in groupby(range(len(starts)), key=starts.__getitem__)
        for rows in [list(group)]
        for k in range(0, len(rows), _ROWS)
    ]


def _kernel(part: Tensor) -> Tensor:
    """Weights (N, 4) of the pixels at -1, 0, 1 and 2 for places (N,) in [0, 1) between 0 and 1."""
    a = -0.75
    near = torch.stack([part, 1 - part], -1)
    far = torch.stack([1 + part, 2 - part], -1)
    near = ((a + 2) * near - (a + 3)) * near**2 + 1
    far = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return torch.stack([far[:, 0], near[:, 0], near[:, 1], far[:, 1]], -1)
