"""Where a token is: fixed and learned position tables, and how they are resized."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tubelet.patches import Size3

PositionKind = Literal["sinusoid", "sinusoid_3d", "joint", "separable"]


class Positions(nn.Module):
    """A position vector for every token of a grid, and one for the class token where there is one.

    Args:
        kind: `sinusoid` over the flat token index (VideoMAE, MAR) and `sinusoid_3d` over time, row and column
            apart are fixed; `joint` learns one vector for each token, `separable` one for each place in the
            frame plus one for each time (MAE-ST, arXiv 2205.09113).
        grid: the clip, in tokens.
        dim: width of the tokens.
        class_token: learn a position for a class token too; only with a learned kind.
        native_grid: the grid that a fixed table is computed for, where that is another: it is then resized.

    Raises:
        ValueError: a class token with fixed positions, or `native_grid` with learned ones.
    """

    def __init__(
        self,
        kind: PositionKind,
        grid: Size3,
        dim: int,
        *,
        class_token: bool = False,
        native_grid: Size3 | None = None,
    ) -> None:
        super().__init__()
        learned = kind in ("joint", "separable")
        if class_token and not learned:
            raise ValueError(f"a class token needs positions joint or separable, found {kind}")
        if native_grid and learned:
            raise ValueError(f"learned positions ({kind}) are resized themselves: position_grid must be null")
        self.kind, self.grid = kind, grid
        if not learned:
            table = fixed_table(kind, native_grid or grid, dim)
            if native_grid:
                table = resize_table(table, native_grid, grid)
            self.register_buffer("table", table, persistent=False)
        elif kind == "joint":
            self.table = nn.Parameter(torch.empty(1, grid.volume, dim))
        else:
            self.time = nn.Parameter(torch.empty(1, grid.t, dim))
            self.space = nn.Parameter(torch.empty(1, grid.h * grid.w, dim))
        self.class_position = nn.Parameter(torch.empty(1, 1, dim)) if class_token else None
        for parameter in self.parameters():
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self) -> Tensor:
        """The tokens' positions: (1, grid.volume, dim), in raster order."""
        if self.kind == "separable":
            return (self.time[:, :, None] + self.space[:, None]).flatten(1, 2)
        table: Tensor = self.table
        return table


def tokens_and_positions(module: nn.Module) -> set[str]:
    """The names of learned positions, class tokens and mask tokens below a module."""
    return {
        name
        for name, _ in module.named_parameters()
        if ".positions." in name or name.endswith(("class_token", "mask_token"))
    }


def fixed_table(kind: PositionKind, grid: Size3, dim: int) -> Tensor:
    """The table of a fixed kind for a grid of tokens: (1, grid.volume, dim) float32."""
    return sinusoid_table(grid.volume, dim) if kind == "sinusoid" else sinusoid_3d_table(grid, dim)


def resize_table(table: Tensor, old: Size3, new: Size3) -> Tensor:
    """Stretch a position table over another grid, along time, rows and columns (never the flat index).

    Linear in time and bicubic in the frame, in float32, as PySlowFast does for MAE-ST's tables.

    Args:
        table: (1, old.volume, D); a table of places alone is one with old.t == new.t == 1.
        old: the grid it was made for.
        new: the grid it is needed for.

    Returns:
        (1, new.volume, D), of the table's dtype.
    """
    dim, planes = table.shape[-1], table.float().reshape(*old, -1).permute(0, 3, 1, 2)  # (t, D, h, w)
    if (old.h, old.w) != (new.h, new.w):
        planes = functional.interpolate(planes, (new.h, new.w), mode="bicubic", align_corners=False)
    times = planes.permute(1, 2, 3, 0).reshape(1, -1, old.t)  # (1, D * h * w, t)
    if old.t != new.t:
        times = functional.interpolate(times, new.t, mode="linear", align_corners=False)
    resized = times.reshape(dim, new.h, new.w, new.t).permute(3, 1, 2, 0)
    return resized.reshape(1, new.volume, dim).to(table.dtype).contiguous()


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
