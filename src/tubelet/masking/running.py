"""Masks that move by one token from each token time to the next: MAR's, and VideoMAE V2's for its decoder."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tubelet.errors import UserError, require_below_1
from tubelet.masking.base import RatioMasking
from tubelet.masking.still import TubeMasking, box_distance
from tubelet.masking.token_mask import TokenMask, partition, row_noise, split, take
from tubelet.patches import Size3


@dataclass(frozen=True, kw_only=True)
class RunningCellMasking(RatioMasking):
    """MAR's cell running masking (arXiv 2207.11660, section III-B).

    In each cell the visible slots move by one slot, in raster order, from each token time to the next.

    Attributes:
        ratio: fraction of the tokens that is masked, in [0, 1). As in MAR it is rounded to whole slots of a
            cell: down in 2 x 2 cells, up in all others.
        cell: rows and columns of a cell. In MAR's 2 x 2 cells the masked slots are consecutive; in all other
            cells they are evenly spread from the first slot on, as in MAR's ablation of the cell's size.
        same_start: whether all cells of a training clip share one random start (MAR's choice).
        shuffle_time: whether the token times of each training clip are in random order (MAR's choice).
        shuffle_test_time: whether those of each test clip are, too (not in MAR).
    """

    kind: Literal["running_cell"] = "running_cell"
    ratio: float = 0.5
    cell: tuple[int, int] = (2, 2)
    same_start: bool = True
    shuffle_time: bool = True
    shuffle_test_time: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.cell) < 1:
            raise UserError(f"cell must be at least 1 x 1 tokens, found {self.cell}")

    def noise_size(self, grid: Size3) -> int:
        """Return one number for each start, then one for each token time."""
        return (1 if self.same_start else self._cells(grid)) + grid.t

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Return training masks: random starts and, with `shuffle_time`, token times in random order."""
        start = (noise[:, : -grid.t] * self._slots).long().expand(-1, self._cells(grid))
        visible = self._visible(grid, start)
        if self.shuffle_time:
            visible = _shuffled(visible, noise[:, -grid.t :])
        return self._to_mask(grid, visible)

    def test_masks(self, grid: Size3, seeds: Tensor) -> TokenMask:
        """Return the fixed mask for every clip; only with `shuffle_test_time` it depends on the seeds."""
        if not self.shuffle_test_time:
            return self.fixed(grid, len(seeds), seeds.device)
        starts = seeds.new_zeros(1, self._cells(grid))
        return self._to_mask(grid, _shuffled(self._visible(grid, starts), row_noise(seeds, grid.t)))

    def fixed(
        self, grid: Size3, batch: int = 1, device: torch.device | str | None = None, *, start: int = 0
    ) -> TokenMask:
        """Return the test mask: every cell starts at the same slot, in MAR at the first."""
        starts = torch.full((1, self._cells(grid)), start, dtype=torch.int64, device=device)
        mask = self._to_mask(grid, self._visible(grid, starts))
        return TokenMask(mask.visible.expand(batch, -1), mask.masked.expand(batch, -1))

    def complements(
        self, grid: Size3, batch: int = 1, device: torch.device | str | None = None
    ) -> tuple[TokenMask, ...]:
        """Return the fixed masks in which each token is visible once: two at ratio 0.5, four at 0.75.

        MAR's complementary test (`MASK_INV_TEST`) averages the class scores of these masks.

        Raises:
            UserError: the visible slots of a cell do not divide the cell.
        """
        visible = self._slots - self._masked_slots(grid)
        if self._slots % visible or self.cell != (2, 2):
            raise UserError(
                "complementary masks need 2 x 2 cells and a ratio of 0.5 or 0.75, so that each token is "
                f"visible in one of them; found cell={self.cell} and ratio={self.ratio}"
            )
        return tuple(self.fixed(grid, batch, device, start=start) for start in range(0, self._slots, visible))

    @property
    def _slots(self) -> int:
        return self.cell[0] * self.cell[1]

    def _cells(self, grid: Size3) -> int:
        if grid.h % self.cell[0] or grid.w % self.cell[1]:
            raise UserError(
                f"running cells of {self.cell[0]} x {self.cell[1]} tokens must divide the grid, found "
                f"{grid.h} x {grid.w} tokens"
            )
        return grid.h * grid.w // self._slots

    def _masked_slots(self, grid: Size3) -> int:
        """Return the masked slots of a cell, rounded as in MAR: first to whole tokens of the clip."""
        whole = int(self.ratio * grid.volume + 1e-9)  # 0.29 of 100 is 29, though not in floating point
        cells = grid.t * self._cells(grid)
        return whole // cells if self.cell == (2, 2) else -(-whole // cells)

    def _visible(self, grid: Size3, start: Tensor) -> Tensor:
        """Return a boolean (B, t, h * w), True where visible, for starts (B, cells)."""
        masked, slots = self._masked_slots(grid), self._slots
        slot = torch.arange(slots, device=start.device)
        visible = slot >= masked if self.cell == (2, 2) else _spread(masked, slots).to(start.device)
        time = torch.arange(grid.t, device=start.device)
        phase = (slot - time[:, None, None] - start[:, None, :, None]) % slots  # (B, t, cells, slots)
        return tile(visible[phase], grid, self.cell)

    def _to_mask(self, grid: Size3, visible: Tensor) -> TokenMask:
        count = grid.t * self._cells(grid) * (self._slots - self._masked_slots(grid))
        return partition(visible.flatten(1), count)


@dataclass(frozen=True, kw_only=True)
class RunningMasking(RatioMasking):
    """MAR's other running masks (arXiv 2207.11660, figure 3 and table II).

    Each token time has the mask of the one before it, shifted by one token in raster order around the frame.

    Attributes:
        ratio: fraction of the tokens that is masked, in [0, 1): `int(ratio * h * w)` at each token time.
        pattern: the tokens that are masked at the first token time: `random` ones, a `block` (one box) or
            `uniform`, evenly spread over the frame in raster order.
        shuffle_time: whether the token times of each training clip are in random order.
        shuffle_test_time: whether those of each test clip are, too.
    """

    kind: Literal["running"] = "running"
    ratio: float = 0.5
    pattern: Literal["random", "block", "uniform"] = "random"
    shuffle_time: bool = True
    shuffle_test_time: bool = False

    def noise_size(self, grid: Size3) -> int:
        """Return the numbers of the pattern, then one for each token time."""
        return {"random": grid.h * grid.w, "block": 4, "uniform": 1}[self.pattern] + grid.t

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Return training masks: random patterns and, with `shuffle_time`, token times in random order."""
        pattern, time = noise[:, : -grid.t], noise[:, -grid.t :]
        return self._run(grid, pattern, time if self.shuffle_time else None)

    def test_masks(self, grid: Size3, seeds: Tensor) -> TokenMask:
        """Return the masks of a test; a uniform pattern begins at the first token, others have a seed's."""
        noise = row_noise(seeds, self.noise_size(grid))
        pattern, time = noise[:, : -grid.t], noise[:, -grid.t :]
        if self.pattern == "uniform":
            pattern = torch.zeros_like(pattern)
        return self._run(grid, pattern, time if self.shuffle_test_time else None)

    def _run(self, grid: Size3, pattern: Tensor, time_noise: Tensor | None) -> TokenMask:
        area = grid.h * grid.w
        masked = int(self.ratio * area)
        token, time = (torch.arange(count, device=pattern.device) for count in (area, grid.t))
        if self.pattern == "uniform":
            first = _spread(masked, area).to(pattern.device).expand(len(pattern), -1)
            start = (pattern * area).long()
        else:
            score = pattern if self.pattern == "random" else -box_distance(grid[1:], pattern)
            visible = split(score, area - masked).visible
            first = torch.zeros_like(score, dtype=torch.bool).scatter(1, visible, True)
            start = torch.zeros_like(pattern[:, :1], dtype=torch.int64)
        source = (token - time[:, None] - start[:, :, None]) % area  # (B, t, h * w)
        running = first.gather(1, source.flatten(1)).view_as(source)
        if time_noise is not None:
            running = _shuffled(running, time_noise)
        return partition(running.flatten(1), grid.t * (area - masked))


@dataclass(frozen=True, kw_only=True)
class DualMasking(RatioMasking):
    """VideoMAE V2's dual masking (arXiv 2303.16727, section 3.2).

    The encoder has a tube mask; a running cell mask selects the tokens that the decoder reconstructs.

    Attributes:
        ratio: fraction of the positions that the encoder does not see, in [0, 1), as in `TubeMasking`.
        decoder_ratio: fraction of the tokens that is not reconstructed, in [0, 1); rounded down to whole
            slots of a 2 x 2 cell. Some reconstructed tokens are visible to the encoder; they do not count in
            the loss. Below 0.25 exactly the tokens that the encoder does not see are reconstructed, as in
            VideoMAE.
    """

    kind: Literal["dual"] = "dual"
    decoder_ratio: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_below_1(decoder_ratio=self.decoder_ratio)

    def noise_size(self, grid: Size3) -> int:
        """Return the tubes' numbers plus one for the start of the cells."""
        return grid.h * grid.w + 1

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Return V2's masks: slots move in the opposite direction to MAR's, and all cells share the start."""
        if grid.h % 2 or grid.w % 2:
            raise UserError(f"dual masking needs an even grid of tokens, found {grid.h} x {grid.w}")
        tubes = TubeMasking(ratio=self.ratio).from_noise(grid, noise[:, :-1])
        skipped = int(4 * self.decoder_ratio)
        if not skipped:
            return tubes
        slot, time = (torch.arange(count, device=noise.device) for count in (4, grid.t))
        start = (noise[:, -1:, None, None] * 4).long()
        phase = (slot + time[:, None, None] + start + 1) % 4  # (B, t, 1, slots)
        cells = (phase >= skipped).expand(-1, -1, grid.h * grid.w // 4, -1)
        decoded = tile(cells, grid, (2, 2)).flatten(1)
        masked = partition(decoded, grid.volume * (4 - skipped) // 4).visible
        visible = torch.zeros_like(decoded).scatter_(1, tubes.visible, True)
        return TokenMask(tubes.visible, masked, ~visible.gather(1, masked))


def tile(slots: Tensor, grid: Size3, cell: tuple[int, int]) -> Tensor:
    """Arrange (B, t, cells, slots) in raster order: (B, t, h * w)."""
    cells = slots.unflatten(3, cell).unflatten(2, (grid.h // cell[0], grid.w // cell[1]))
    return cells.transpose(3, 4).reshape(-1, grid.t, grid.h * grid.w)


def _spread(masked: int, slots: int) -> Tensor:
    """Return a boolean (slots,), False at evenly spread slots, as in MAR's ablation of the cell's size.

    Of the masked and the visible slots the fewer are at 0, n, 2n, ... with n rounded up. Where MAR's code
    fails, because that leads past the last slot, n is not rounded, but the slots are.
    """
    fewer = min(masked, slots - masked)
    step = -(-slots // max(1, fewer))
    if (fewer - 1) * step < slots:
        chosen = torch.arange(fewer) * step
    else:
        chosen = torch.arange(fewer) * slots // fewer
    is_chosen = torch.zeros(slots, dtype=torch.bool)
    is_chosen[chosen] = True
    return ~is_chosen if fewer == masked else is_chosen


def _shuffled(visible: Tensor, time_noise: Tensor) -> Tensor:
    """Put the token times of (B or 1, t, h * w) in the order of noise (B, t)."""
    return take(visible, time_noise.argsort(dim=1, stable=True))
