"""Masks without motion: tubes, random tokens, whole token times and blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tubelet.masking.base import RatioMasking
from tubelet.masking.token_mask import TokenMask, split
from tubelet.patches import Size3


@dataclass(frozen=True, kw_only=True)
class TubeMasking(RatioMasking):
    """One random map of masked positions, the same at all times (VideoMAE, arXiv 2203.12602, section 3.3).

    Attributes:
        ratio: fraction of the positions that is masked, in [0, 1): `int(ratio * h * w)` positions.
    """

    kind: Literal["tube"] = "tube"

    def noise_size(self, grid: Size3) -> int:
        """Return one number for each position in the frame."""
        return grid.h * grid.w

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Mask the positions with the highest noise, at all times."""
        area = grid.h * grid.w
        plane = split(noise, area - int(self.ratio * area))
        start = torch.arange(0, grid.volume, area, device=noise.device)
        return TokenMask(
            *((start[:, None] + index[:, None]).flatten(1) for index in (plane.visible, plane.masked))
        )


@dataclass(frozen=True, kw_only=True)
class RandomMasking(RatioMasking):
    """Tokens masked at random, space-time agnostic (MAE-ST, arXiv 2205.09113, section 3).

    Attributes:
        ratio: fraction of the tokens that is masked, in [0, 1): `int(N * (1 - ratio))` tokens are visible.
    """

    kind: Literal["random"] = "random"

    def noise_size(self, grid: Size3) -> int:
        """Return one number for each token."""
        return grid.volume

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Keep the tokens with the lowest noise visible."""
        return split(noise, int(grid.volume * (1 - self.ratio)))


@dataclass(frozen=True, kw_only=True)
class FrameMasking(RatioMasking):
    """Whole token times masked at random (MAE-ST, arXiv 2205.09113, section 3: time-only).

    Attributes:
        ratio: fraction of the token times that is masked, in [0, 1): `int(ratio * t)` times.
    """

    kind: Literal["frame"] = "frame"
    ratio: float = 0.75

    def noise_size(self, grid: Size3) -> int:
        """Return one number for each token time."""
        return grid.t

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Mask the token times with the highest noise."""
        area = grid.h * grid.w
        times = split(noise, grid.t - int(self.ratio * grid.t))
        position = torch.arange(area, device=noise.device)
        return TokenMask(
            *((index[:, :, None] * area + position).flatten(1) for index in (times.visible, times.masked))
        )


@dataclass(frozen=True, kw_only=True)
class BlockMasking(RatioMasking):
    """One random cuboid masked (MAE-ST, arXiv 2205.09113, section 3: block).

    The tokens nearest to a random center are masked, by the largest of their scaled distances in time, row
    and column: a box that is cut at the clip's borders and has exactly the number of tokens of the ratio.

    Attributes:
        ratio: fraction of the tokens that is masked, in [0, 1): `int(ratio * N)` tokens.
    """

    kind: Literal["block"] = "block"
    ratio: float = 0.75

    def noise_size(self, grid: Size3) -> int:
        """Return 6: center and extent along each of three axes."""
        return 6

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Mask a box whose sides, relative to the clip's, are 1/2 to 2 times each other, log-uniformly."""
        return split(-box_distance(grid, noise), grid.volume - int(self.ratio * grid.volume))


def box_distance(sides: Sequence[int], noise: Tensor) -> Tensor:
    """Return the distance of each token (B, N) to the center of a box, 1 on the faces of a box of that shape.

    Args:
        sides: the grid, of any number of axes K.
        noise: (B, 2 K), center and extent along each axis.
    """
    axes = [(torch.arange(side, device=noise.device) + 0.5) / side for side in sides]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, len(sides))
    center, extent = noise[:, None, : len(sides)], 4 ** (noise[:, None, len(sides) :] - 0.5)
    return ((position - center).abs() / extent).amax(-1)
