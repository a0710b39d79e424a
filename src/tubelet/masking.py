"""Which tokens the encoder sees and which it must paint: masks as index tensors.

Every masking is a small frozen dataclass that keeps equally many tokens in every row, so batches are never
ragged. `sample` draws fresh masks; `from_noise` is the pure function beneath it, from uniform noise to masks.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import torch
from torch import Tensor

from tubelet.errors import UserError
from tubelet.patches import Size3
from tubelet.settings import BY_KIND


@dataclass(frozen=True)
class TokenMask:
    """Indices of tokens in raster order, equally many in every row.

    Attributes:
        visible: (B, V) int64, ascending: the tokens that the encoder sees.
        masked: (B, M) int64, ascending: the tokens to predict. Usually all the others.
        scored: (B, M) bool: which of `masked` count in the loss; None where all do.
    """

    visible: Tensor
    masked: Tensor
    scored: Tensor | None = None

    @classmethod
    def from_visible(cls, visible: Tensor) -> "TokenMask":
        """From a boolean tensor (B, N) that is True where a token is visible, equally often in every row.

        Raises:
            ValueError: it is another tensor, or has no row.
        """
        counts = visible.sum(-1)
        if visible.dtype != torch.bool or visible.ndim != 2 or len(counts.unique()) != 1:
            raise ValueError(
                "expected a boolean (B, N) tensor with equally many True in every row, and at least one row, "
                f"found {visible.dtype} {tuple(visible.shape)} with {counts.unique().tolist()} True"
            )
        return _partition(visible, int(counts[0]))

    @classmethod
    def from_masked(cls, masked: Tensor) -> "TokenMask":
        """From a boolean tensor (B, N) that is True where a token is masked; raises as `from_visible`."""
        return cls.from_visible(~masked if masked.dtype == torch.bool else masked)

    def to(self, device: torch.device | str) -> "TokenMask":
        """The same mask on another device."""
        scored = None if self.scored is None else self.scored.to(device)
        return TokenMask(self.visible.to(device), self.masked.to(device), scored)


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
class FrameMasking(_Sampled):
    """Whole token times masked at random (MAE-ST, arXiv 2205.09113, section 3: time-only).

    Attributes:
        ratio: the share of token times masked, in [0, 1); `int(ratio * t)` of them are.
    """

    kind: Literal["frame"] = "frame"
    ratio: float = 0.75

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)

    def noise_size(self, grid: Size3) -> int:
        """One number a token time."""
        return grid.t

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Mask the token times with the highest noise."""
        area = grid.h * grid.w
        times = _split(noise, grid.t - int(self.ratio * grid.t))
        place = torch.arange(area, device=noise.device)
        return TokenMask(
            *((index[:, :, None] * area + place).flatten(1) for index in (times.visible, times.masked))
        )


@dataclass(frozen=True, kw_only=True)
class BlockMasking(_Sampled):
    """One large cuboid masked, of random place and proportions (MAE-ST, arXiv 2205.09113, section 3: block).

    The tokens nearest to a random center are masked, by the largest of their scaled distances in time, row
    and column: a box that stops where the clip does, of exactly as many tokens as wanted.

    Attributes:
        ratio: the share of tokens masked, in [0, 1); `int(ratio * N)` of them are.
    """

    kind: Literal["block"] = "block"
    ratio: float = 0.75

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)

    def noise_size(self, grid: Size3) -> int:
        """Center and extent along each of three axes."""
        return 6

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Sides relative to the clip's are in proportions of 1/2 to 2, evenly spread in the logarithm."""
        axes = [(torch.arange(side, device=noise.device) + 0.5) / side for side in grid]
        place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
        center, extent = noise[:, None, :3], 4 ** (noise[:, None, 3:] - 0.5)
        distance = ((place - center).abs() / extent).amax(-1)
        return _split(-distance, grid.volume - int(self.ratio * grid.volume))


@dataclass(frozen=True, kw_only=True)
class RunningCellMasking(_Sampled):
    """MAR's cell running masking (arXiv 2207.11660, section III-B): in each cell the visible slots move on by
    one slot, in raster order, from each token time to the next.

    Attributes:
        ratio: the share of tokens masked, in [0, 1); rounded down to whole slots of a cell, as MAR does.
        cell: rows and columns of a cell. In MAR's 2 x 2 the hidden slots follow one another; in any other
            they are evenly spread over the cell, as in MAR's ablation of the cell's size.
        same_start: when sampling, let all cells of a clip share one random start (MAR's choice).
        shuffle_time: when sampling, put the token times of each clip in random order (MAR's choice).
    """

    kind: Literal["running_cell"] = "running_cell"
    ratio: float = 0.5
    cell: tuple[int, int] = (2, 2)
    same_start: bool = True
    shuffle_time: bool = True

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)
        if min(self.cell) < 1:
            raise UserError(f"cell is in tokens and must be 1 x 1 or larger, found {self.cell}")

    def noise_size(self, grid: Size3) -> int:
        """One number a start, then one a token time."""
        return (1 if self.same_start else self._cells(grid)) + grid.t

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Training's masks: random starts and, with `shuffle_time`, token times in random order."""
        start = (noise[:, : -grid.t] * self._slots).long().expand(-1, self._cells(grid))
        visible = self._visible(grid, start)
        if self.shuffle_time:
            order = noise[:, -grid.t :].argsort(dim=1, stable=True)
            visible = take(visible, order)
        return self._to_mask(grid, visible)

    def fixed(
        self, grid: Size3, batch: int = 1, device: torch.device | str | None = None, *, start: int = 0
    ) -> TokenMask:
        """Testing's mask: every clip starts at the same slot, MAR's at the first."""
        starts = torch.full((1, self._cells(grid)), start, dtype=torch.int64, device=device)
        mask = self._to_mask(grid, self._visible(grid, starts))
        return TokenMask(mask.visible.expand(batch, -1), mask.masked.expand(batch, -1))

    def complements(
        self, grid: Size3, batch: int = 1, device: torch.device | str | None = None
    ) -> tuple[TokenMask, ...]:
        """The fixed masks that together show every token once: two at half masked, four at three quarters.

        MAR's complementary test (`MASK_INV_TEST`) averages the class scores of these.

        Raises:
            UserError: the visible slots of a cell do not divide the cell.
        """
        shown = self._slots - self._hidden_slots(grid)
        if self._slots % shown or self.cell != (2, 2):
            raise UserError(
                "complementary masks need 2 x 2 cells and a ratio of 0.5 or 0.75, so that whole masks cover "
                f"all tokens; found cell={self.cell} and ratio={self.ratio}"
            )
        return tuple(self.fixed(grid, batch, device, start=start) for start in range(0, self._slots, shown))

    @property
    def _slots(self) -> int:
        return self.cell[0] * self.cell[1]

    def _cells(self, grid: Size3) -> int:
        if grid.h % self.cell[0] or grid.w % self.cell[1]:
            raise UserError(
                f"running cells of {self.cell[0]} x {self.cell[1]} tokens need a grid that they fill, found "
                f"{grid.h} x {grid.w}"
            )
        return grid.h * grid.w // self._slots

    def _hidden_slots(self, grid: Size3) -> int:
        """MAR's own rounding: whole tokens of the clip first, then whole slots of each cell."""
        whole = int(self.ratio * grid.volume + 1e-9)  # 0.29 of 100 is 29, though not in floating point
        return whole // (grid.t * self._cells(grid))

    def _visible(self, grid: Size3, start: Tensor) -> Tensor:
        """(B, cells) starts to a boolean (B, t, h * w), True where visible."""
        hidden, slots = self._hidden_slots(grid), self._slots
        slot = torch.arange(slots, device=start.device)
        if self.cell == (2, 2):
            shown = slot >= hidden
        else:  # slot s is hidden where the count of hidden slots rises there
            shown = (slot + 1) * hidden // slots == slot * hidden // slots
        time = torch.arange(grid.t, device=start.device)
        phase = (slot - time[:, None, None] - start[:, None, :, None]) % slots  # (B, t, cells, slots)
        return _tile(shown[phase], grid, self.cell)

    def _to_mask(self, grid: Size3, visible: Tensor) -> TokenMask:
        count = grid.t * self._cells(grid) * (self._slots - self._hidden_slots(grid))
        return _partition(visible.flatten(1), count)


@dataclass(frozen=True, kw_only=True)
class DualMasking(_Sampled):
    """VideoMAE V2's dual masking (arXiv 2303.16727, section 3.2): a tube mask for the encoder, and a running
    cell mask that has the decoder paint only some of the tokens.

    Attributes:
        ratio: the share of positions that the encoder does not see, in [0, 1), as in `TubeMasking`.
        decoder_ratio: the share of tokens that are not painted, in [0, 1); rounded down to whole slots of a
            2 x 2 cell. The painted tokens include some that the encoder sees; those do not count in the loss.
            Below 0.25 all that the encoder does not see is painted, and nothing else, as in VideoMAE.
    """

    kind: Literal["dual"] = "dual"
    ratio: float = 0.9
    decoder_ratio: float = 0.5

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)
        _check_ratio(self.decoder_ratio)

    def noise_size(self, grid: Size3) -> int:
        """The tubes' numbers, then one for the cells' start."""
        return grid.h * grid.w + 1

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """V2's slots run against MAR's direction, and one ahead; all cells share the start."""
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
        painted = _tile(cells, grid, (2, 2)).flatten(1)
        decoded = _partition(painted, grid.volume * (4 - skipped) // 4).visible
        seen = torch.zeros_like(painted).scatter_(1, tubes.visible, True)
        return TokenMask(tubes.visible, decoded, ~seen.gather(1, decoded))


AnyMasking = Annotated[
    TubeMasking | RandomMasking | FrameMasking | BlockMasking | RunningCellMasking | DualMasking, BY_KIND
]


def _tile(slots: Tensor, grid: Size3, cell: tuple[int, int]) -> Tensor:
    """(B, t, cells, slots) in cells to (B, t, h * w) in raster order."""
    cells = slots.unflatten(3, cell).unflatten(2, (grid.h // cell[0], grid.w // cell[1]))
    return cells.transpose(3, 4).reshape(-1, grid.t, grid.h * grid.w)


def _partition(visible: Tensor, count: int) -> TokenMask:
    """A boolean (B, N) with `count` True in every row as indices, both lists ascending."""
    order = torch.sort((~visible).to(torch.uint8), dim=1, stable=True).indices
    return TokenMask(order[:, :count], order[:, count:])


def _split(noise: Tensor, keep: int) -> TokenMask:
    """The `keep` places with the lowest noise are visible, of equals the first; both index lists ascend."""
    order = noise.argsort(dim=1, stable=True)  # unstable, equals would fall as the processor pleases
    return TokenMask(order[:, :keep].sort(1).values, order[:, keep:].sort(1).values)


def _check_ratio(ratio: float) -> None:
    if not 0 <= ratio < 1:
        raise UserError(f"ratio is the share of tokens masked and must lie in [0, 1), found {ratio}")
