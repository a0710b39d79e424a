"""Which tokens the encoder sees and which it must paint: masks as index tensors.

Every masking is a small frozen dataclass that keeps equally many tokens in every row, so batches are never
ragged. `sample` draws fresh masks; `from_noise` is the pure function beneath it, from uniform noise to masks.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

from tubelet.errors import UserError
from tubelet.patches import Size3


@dataclass(frozen=True)
class TokenMask:
    """Indices of tokens in raster order, equally many in every row.

    Attributes:
        visible: (B, V) int64, ascending: the tokens that the encoder sees.
        masked: (B, M) int64, ascending: the tokens to predict. Usually all the others.
    """

    visible: Tensor
    masked: Tensor

    @classmethod
    def from_visible(cls, visible: Tensor) -> Self:
        """From a boolean tensor (B, N) that is True where a token is visible, equally often in every row."""
        counts = visible.sum(-1)
        if visible.dtype != torch.bool or visible.ndim != 2 or bool((counts != counts[:1]).any()):
            raise ValueError(
                "expected a boolean (B, N) tensor with equally many True in every row, found "
                f"{visible.dtype} {tuple(visible.shape)} with {sorted(set(counts.flatten().tolist()))} True"
            )
        order = torch.sort(visible.to(torch.uint8), dim=1, descending=True, stable=True).indices
        count = int(counts[0])
        return cls(order[:, :count].contiguous(), order[:, count:].contiguous())

    @classmethod
    def from_masked(cls, masked: Tensor) -> Self:
        """From a boolean tensor (B, N) that is True where a token is masked, equally often in every row."""
        return cls.from_visible(~masked if masked.dtype == torch.bool else masked)

    def to(self, device: torch.device | str) -> "TokenMask":
        """The same mask on another device."""
        return TokenMask(self.visible.to(device), self.masked.to(device))


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Gather tokens by row: (B, N, D) and (B, K) to (B, K, D); tokens (1, N, D) serve every row."""
    if tokens.shape[0] == 1 != index.shape[0]:
        return tokens[0][index]
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def row_noise(seeds: Tensor, size: int) -> Tensor:
    """Uniform noise in [0, 1) that depends on each row's own seed and on nothing else.

    So the mask of an item is the same whatever batch, process or device it falls on. SplitMix64's output
    function (Steele et al., OOPSLA 2014) over the counter seed + k * 0x9E3779B97F4A7C15.

    Args:
        seeds: (B,) int64.
        size: numbers a row.

    Returns:
        (B, size) float32 on the seeds' device.
    """
    counter = torch.arange(1, size + 1, device=seeds.device, dtype=torch.int64)
    x = seeds[:, None] + counter * -0x61C8864680B583EB
    x = (x ^ ((x >> 30) & 0x3_FFFF_FFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1F_FFFF_FFFF)) * -0x6B2FB644ECCEEE15
    x = x ^ ((x >> 31) & 0x1_FFFF_FFFF)
    return ((x >> 40) & 0xFF_FFFF).to(torch.float32) / 2**24


class Masking(Protocol):
    """What every masking offers."""

    def noise_size(self, grid: Size3) -> int:
        """How many random numbers one mask takes."""
        ...

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """The masks that uniform noise (B, noise_size) stands for."""
        ...


class _Sampled:
    """`sample`, for every masking alike."""

    def sample(
        self: Masking,
        grid: Size3,
        batch: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> TokenMask:
        """Draw `batch` masks for a grid of tokens, in bulk on the device (the generator's if it is given)."""
        device = device or (generator.device if generator else None)
        noise = torch.rand(batch, self.noise_size(grid), generator=generator, device=device)
        return self.from_noise(grid, noise)


@dataclass(frozen=True, kw_only=True)
class TubeMasking(_Sampled):
    """One random map of masked positions, the same at all times (VideoMAE, arXiv 2203.12602, section 3.3).

    Attributes:
        ratio: the share of positions masked, in [0, 1); `int(ratio * h * w)` of them are.
    """

    kind: Literal["tube"] = "tube"
    ratio: float = 0.9

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)

    def noise_size(self, grid: Size3) -> int:
        """One number a position."""
        return grid.h * grid.w

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Mask the positions with the highest noise."""
        area = grid.h * grid.w
        plane = _split(noise, area - int(self.ratio * area))
        start = torch.arange(0, grid.volume, area, device=noise.device)
        return TokenMask(
            *((start[:, None] + index[:, None]).flatten(1) for index in (plane.visible, plane.masked))
        )


@dataclass(frozen=True, kw_only=True)
class RandomMasking(_Sampled):
    """Tokens masked at random, space-time agnostic (MAE-ST, arXiv 2205.09113, section 3).

    Attributes:
        ratio: the share of tokens masked, in [0, 1); `int(N * (1 - ratio))` stay visible.
    """

    kind: Literal["random"] = "random"
    ratio: float = 0.9

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)

    def noise_size(self, grid: Size3) -> int:
        """One number a token."""
        return grid.volume

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Keep the tokens with the lowest noise."""
        return _split(noise, int(grid.volume * (1 - self.ratio)))


@dataclass(frozen=True, kw_only=True)
class RunningCellMasking(_Sampled):
    """MAR's cell running masking (arXiv 2207.11660, section III-B): in each 2 x 2 cell the visible slots move
    on by one slot, in raster order, from each token time to the next.

    Attributes:
        ratio: the share of tokens masked, in [0, 1); rounded down to whole slots of a cell, as MAR does.
        same_start: when sampling, let all cells of a clip share one random start (MAR's choice).
        shuffle_time: when sampling, put the token times of each clip in random order (MAR's choice).
    """

    kind: Literal["running_cell"] = "running_cell"
    ratio: float = 0.5
    same_start: bool = True
    shuffle_time: bool = True

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)

    def noise_size(self, grid: Size3) -> int:
        """One number a start, then one a token time."""
        return (1 if self.same_start else self._cells(grid)) + grid.t

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Training's masks: random starts and, with `shuffle_time`, token times in random order."""
        start = (noise[:, : -grid.t] * 4).long().expand(-1, self._cells(grid))
        visible = self._visible(grid, start)
        if self.shuffle_time:
            order = noise[:, -grid.t :].argsort(1)
            visible = take(visible, order)
        return self._to_mask(grid, visible)

    def fixed(self, grid: Size3, batch: int = 1, device: torch.device | str | None = None) -> TokenMask:
        """Testing's mask: every clip starts at the first slot."""
        start = torch.zeros(1, self._cells(grid), dtype=torch.int64, device=device)
        mask = self._to_mask(grid, self._visible(grid, start))
        return TokenMask(mask.visible.expand(batch, -1), mask.masked.expand(batch, -1))

    def _cells(self, grid: Size3) -> int:
        if grid.h % 2 or grid.w % 2:
            raise ValueError(f"running cells need an even grid of tokens, found {grid.h} x {grid.w}")
        return grid.h * grid.w // 4

    def _hidden_slots(self, grid: Size3) -> int:
        """MAR's own rounding: whole tokens of the clip first, then whole slots of each cell."""
        return int(self.ratio * grid.volume) // (grid.t * self._cells(grid))

    def _visible(self, grid: Size3, start: Tensor) -> Tensor:
        """(B, cells) starts to a boolean (B, t, h * w), True where visible."""
        time = torch.arange(grid.t, device=start.device)
        slot = torch.arange(4, device=start.device)
        phase = slot - time[:, None, None] - start[:, None, :, None]  # (B, t, cells, slots)
        visible = phase.remainder(4) >= self._hidden_slots(grid)
        cells = visible.reshape(-1, grid.t, grid.h // 2, grid.w // 2, 2, 2)
        return cells.permute(0, 1, 2, 4, 3, 5).reshape(-1, grid.t, grid.h * grid.w)

    def _to_mask(self, grid: Size3, visible: Tensor) -> TokenMask:
        count = grid.t * self._cells(grid) * (4 - self._hidden_slots(grid))
        order = torch.sort((~visible).flatten(1).to(torch.uint8), dim=1, stable=True).indices
        return TokenMask(order[:, :count], order[:, count:])


AnyMasking = TubeMasking | RandomMasking | RunningCellMasking


def _split(noise: Tensor, keep: int) -> TokenMask:
    """The `keep` places with the lowest noise are visible; both index lists ascend."""
    order = noise.argsort(1)
    return TokenMask(order[:, :keep].sort(1).values, order[:, keep:].sort(1).values)


def _check_ratio(ratio: float) -> None:
    if not 0 <= ratio < 1:
        raise UserError(f"ratio is the share of tokens masked and must lie in [0, 1), found {ratio}")
