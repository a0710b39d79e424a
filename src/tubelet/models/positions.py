"""Position tables, fixed and learned, and how they are resized."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tubelet.patches import Size3, require_tokens

PositionKind = Literal["sinusoid", "sinusoid_3d", "joint", "separable"]


class Positions(nn.Module):
    """A position vector for each token of a grid and, if there is one, for the class token.

    Args:
        kind: fixed ones are `sinusoid` over the flat token index (VideoMAE, MAR) and `sinusoid_3d` over time,
            row and column separately; `joint` learns one vector for each token, `separable` one for each
            position in the frame plus one for each time (MAE-ST, arXiv 2205.09113).
        grid: the size of a clip in tokens.
        dim: width of the tokens.
        class_token: whether to learn a position for a class token too; only with a learned kind.
        native_grid: the grid that a fixed table is computed for before it is resized; None is `grid`.

    Raises:
        ValueError: a class token with fixed positions, `native_grid` with learned ones, or a grid of too many
            tokens.
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
            raise ValueError(f"position_grid must be null with positions {kind}, found {tuple(native_grid)}")
        require_tokens(native_grid or grid, "position_grid")
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
        """Return the tokens' positions (1, grid.volume, dim), in raster order."""
        if self.kind == "separable":
            return (self.time[:, :, None] + self.space[:, None]).flatten(1, 2)
        table: Tensor = self.table
        return table

    def learned_tokens(self) -> set[str]:
        """Return the names of all learned positions."""
        return {name for name, _ in self.named_parameters()}


def fixed_table(kind: PositionKind, grid: Size3, dim: int) -> Tensor:
    """Return the table of a fixed kind: (1, grid.volume, dim) float32."""
    return sinusoid_table(grid.volume, dim) if kind == "sinusoid" else sinusoid_3d_table(grid, dim)


def resize_table(table: Tensor, old: Size3, new: Size3) -> Tensor:
    """Interpolate a position table along time, rows and columns (never along the flat index).

    Linear in time and bicubic in the frame, in float32, as PySlowFast does for MAE-ST's tables.

    Args:
        table: (1, old.volume, D); a table of positions in the frame has old.t == new.t == 1.
        old: the grid of the table.
        new: the grid to resize it to.

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
    """Return the sine-cosine table over the flat token index, as in VideoMAE and MAR (arXiv 1706.03762, 3.5).

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
    """Return a table of sines and cosines of each axis, so that neighbors in space and time look alike.

    The first quarter of the features encodes the time, half of the others the row, the rest the column. In
    each part, feature k of n is the sine, and feature n + k the cosine, of index / 100 ** (k / n). It is the
    image autoencoder's table (arXiv 2111.06377) with a third axis, and 100 for 10000, as the axes are short.

    Args:
        grid: the size of a clip in tokens.
        dim: width of the tokens, a multiple of 16.

    Returns:
        (1, grid.volume, dim) float32, in raster order.

    Raises:
        ValueError: dim is not a multiple of 16.
    """
    if dim % 16:
        raise ValueError(f"sinusoid_3d positions need a dim that is a multiple of 16, found {dim}")
    widths = (dim // 4, dim * 3 // 8, dim * 3 // 8)
    axes = torch.meshgrid(*(torch.arange(side, device="cpu") for side in grid), indexing="ij")
    waves = (_waves(index.flatten(), width) for index, width in zip(axes, widths, strict=True))
    return torch.cat(list(waves), dim=1).float().unsqueeze(0)


def _waves(index: Tensor, width: int) -> Tensor:
    """Return the sines and cosines (N, width) of positions (N,) along one axis."""
    count = width // 2
    angle = index.double()[:, None] / 100 ** (torch.arange(count, device="cpu").double() / count)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
