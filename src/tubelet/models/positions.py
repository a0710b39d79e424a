"""Where a token is: position tables."""

from typing import Literal

import torch
from torch import Tensor

from tubelet.patches import Size3

Positions = Literal["sinusoid", "sinusoid_3d"]


def position_table(kind: Positions, grid: Size3, dim: int) -> Tensor:
    """The table of a kind for a grid of tokens: (1, grid.volume, dim) float32."""
    return sinusoid_table(grid.volume, dim) if kind == "sinusoid" else sinusoid_3d_table(grid, dim)


def sinusoid_table(tokens: int, dim: int) -> Tensor:
    """The sine-cosine table over the flat token index that VideoMAE and MAR use (arXiv 1706.03762, 3.5).

    Feature j of token n is sin (even j) or cos (odd j) of n / 10000 ** (2 * (j // 2) / dim), computed in
    float64.

    Returns:
        (1, tokens, dim) float32.
    """
    feature = torch.arange(dim, dtype=torch.float64, device="cpu")
    index = torch.arange(tokens, dtype=torch.float64, device="cpu")
    angle = index[:, None] / 10000 ** (2 * (feature // 2) / dim)
    table = torch.where(feature % 2 == 0, angle.sin(), angle.cos())
    return table.float().unsqueeze(0)


def sinusoid_3d_table(grid: Size3, dim: int) -> Tensor:
    """Sine and cosine of each axis apart, so that a token's neighbors in space and time look alike.

    The first quarter of the features tells the time, half of the others the row, the rest the column; in
    each, feature k of n is the sine, and feature n + k the cosine, of place / 100 ** (k / n). It is the image
    autoencoder's table (arXiv 2111.06377) with a third axis, and 100 for 10000, as the axes are short.

    Args:
        grid: the clip, in tokens.
        dim: a multiple of 16.

    Returns:
        (1, grid.volume, dim) float32, in raster order.

    Raises:
        ValueError: dim is not a multiple of 16.
    """
    if dim % 16:
        raise ValueError(f"sinusoid_3d positions need a dim that is a multiple of 16, found {dim}")
    widths = (dim // 4, dim * 3 // 8, dim * 3 // 8)
    places = torch.meshgrid(*(torch.arange(side, device="cpu") for side in grid), indexing="ij")
    waves = (_waves(place.flatten(), width) for place, width in zip(places, widths, strict=True))
    return torch.cat(list(waves), dim=1).float().unsqueeze(0)


def _waves(place: Tensor, width: int) -> Tensor:
    """(N,) places to (N, width)."""
    count = width // 2
    angle = place.double()[:, None] / 100 ** (torch.arange(count, device="cpu").double() / count)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
