"""Which tokens are visible to the encoder and which are masked: masks as index tensors.

Every masking is a frozen dataclass that keeps equally many tokens in every row, so batches are never ragged.
`sample` draws random masks; `from_noise` is the pure function in it, from uniform noise to masks.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import torch
from torch import Tensor

from tubelet.errors import UserError, require_below_1
from tubelet.patches import Size3
from tubelet.settings import BY_KIND


@dataclass(frozen=True, repr=False)
class TokenMask:
    """Indices of tokens in raster order, equally many in every row.

    Attributes:
        visible: (B, V) int64, ascending: the tokens that the encoder sees.
        masked: (B, M) int64, ascending: the tokens to reconstruct, usually all others.
        scored: (B, M) bool: which of `masked` count in the loss; None is all.
    """

    visible: Tensor
    masked: Tensor
    scored: Tensor | None = None

    def __repr__(self) -> str:
        rows, num_visible = self.visible.shape
        return f"TokenMask({rows} x {num_visible} visible, {self.masked.shape[1]} masked)"

    @classmethod
    def from_visible(cls, visible: Tensor) -> "TokenMask":
        """Return the mask of a boolean tensor (B, N) that is True where a token is visible.

        Raises:
            ValueError: the rows do not have equally many True, there is no row, or it is not such a tensor.
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
        """Return the mask of a boolean tensor (B, N) that is True where a token is masked."""
        return cls.from_visible(~masked if masked.dtype == torch.bool else masked)

    def to(self, device: torch.device | str) -> "TokenMask":
        """Return the mask on another device."""
        scored = None if self.scored is None else self.scored.to(device)
        return TokenMask(self.visible.to(device), self.masked.to(device), scored)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Gather tokens by row: (B, N, D) by (B, K) to (B, K, D); tokens (1, N, D) are used for every row."""
    if tokens.shape[0] == 1 != index.shape[0]:
        return tokens[0][index]
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def row_noise(seeds: Tensor, size: int) -> Tensor:
    """Return uniform noise in [0, 1) that depends only on each row's seed.

    The mask of an item is therefore the same in any batch, process and device. It is SplitMix64's output
    function (Steele et al., OOPSLA 2014) of the counter seed + k * 0x9E3779B97F4A7C15.

    Args:
        seeds: (B,) int64.
        size: numbers for each row.

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
    """The interface of every masking."""

    def noise_size(self, grid: Size3) -> int:
        """Return how many random numbers a mask needs."""
        ...

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Return the masks for uniform noise (B, noise_size)."""
        ...


@dataclass(frozen=True, kw_only=True)
class _RatioMasking:
    """What every masking has: a ratio, and the method `sample`."""

    kind: str
    ratio: float = 0.9

    def __post_init__(self) -> None:
        require_below_1(ratio=self.ratio)

    def sample(
        self: Masking,
        grid: Size3,
        batch: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> TokenMask:
        """Draw `batch` masks for a grid of tokens, on `device` or on that of the generator."""
        device = device or (generator.device if generator else None)
        noise = torch.rand(batch, self.noise_size(grid), generator=generator, device=device)
        return self.from_noise(grid, noise)


@dataclass(frozen=True, kw_only=True)
class TubeMasking(_RatioMasking):
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
        plane = _split(noise, area - int(self.ratio * area))
        start = torch.arange(0, grid.volume, area, device=noise.device)
        return TokenMask(
            *((start[:, None] + index[:, None]).flatten(1) for index in (plane.visible, plane.masked))
        )


@dataclass(frozen=True, kw_only=True)
class RandomMasking(_RatioMasking):
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
        return _split(noise, int(grid.volume * (1 - self.ratio)))


@dataclass(frozen=True, kw_only=True)
class FrameMasking(_RatioMasking):
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
        times = _split(noise, grid.t - int(self.ratio * grid.t))
        position = torch.arange(area, device=noise.device)
        return TokenMask(
            *((index[:, :, None] * area + position).flatten(1) for index in (times.visible, times.masked))
        )


@dataclass(frozen=True, kw_only=True)
class BlockMasking(_RatioMasking):
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
        axes = [(torch.arange(side, device=noise.device) + 0.5) / side for side in grid]
        position = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
        center, extent = noise[:, None, :3], 4 ** (noise[:, None, 3:] - 0.5)
        distance = ((position - center).abs() / extent).amax(-1)
        return _split(-distance, grid.volume - int(self.ratio * grid.volume))


@dataclass(frozen=True, kw_only=True)
class RunningCellMasking(_RatioMasking):
    """MAR's cell running masking (arXiv 2207.11660, section III-B).

    In each cell the visible slots move by one slot, in raster order, from each token time to the next.

    Attributes:
        ratio: fraction of the tokens that is masked, in [0, 1); rounded down to whole slots of a cell, as in
            MAR.
        cell: rows and columns of a cell. In MAR's 2 x 2 cells the masked slots are consecutive; in all other
            cells they are evenly spread, as in MAR's ablation of the cell's size.
        same_start: whether all cells of a training clip share one random start (MAR's choice).
        shuffle_time: whether the token times of each training clip are in random order (MAR's choice).
    """

    kind: Literal["running_cell"] = "running_cell"
    ratio: float = 0.5
    cell: tuple[int, int] = (2, 2)
    same_start: bool = True
    shuffle_time: bool = True

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
            order = noise[:, -grid.t :].argsort(dim=1, stable=True)
            visible = take(visible, order)
        return self._to_mask(grid, visible)

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
        return whole // (grid.t * self._cells(grid))

    def _visible(self, grid: Size3, start: Tensor) -> Tensor:
        """Return a boolean (B, t, h * w), True where visible, for starts (B, cells)."""
        masked, slots = self._masked_slots(grid), self._slots
        slot = torch.arange(slots, device=start.device)
        if self.cell == (2, 2):
            visible = slot >= masked
        else:  # even spacing: slot s is masked if (s + 1) * masked / slots reaches the next whole number
            visible = (slot + 1) * masked // slots == slot * masked // slots
        time = torch.arange(grid.t, device=start.device)
        phase = (slot - time[:, None, None] - start[:, None, :, None]) % slots  # (B, t, cells, slots)
        return _tile(visible[phase], grid, self.cell)

    def _to_mask(self, grid: Size3, visible: Tensor) -> TokenMask:
        count = grid.t * self._cells(grid) * (self._slots - self._masked_slots(grid))
        return _partition(visible.flatten(1), count)


@dataclass(frozen=True, kw_only=True)
class DualMasking(_RatioMasking):
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
        decoded = _tile(cells, grid, (2, 2)).flatten(1)
        masked = _partition(decoded, grid.volume * (4 - skipped) // 4).visible
        visible = torch.zeros_like(decoded).scatter_(1, tubes.visible, True)
        return TokenMask(tubes.visible, masked, ~visible.gather(1, masked))


AnyMasking = Annotated[
    TubeMasking | RandomMasking | FrameMasking | BlockMasking | RunningCellMasking | DualMasking, BY_KIND
]


def _tile(slots: Tensor, grid: Size3, cell: tuple[int, int]) -> Tensor:
    """Arrange (B, t, cells, slots) in raster order: (B, t, h * w)."""
    cells = slots.unflatten(3, cell).unflatten(2, (grid.h // cell[0], grid.w // cell[1]))
    return cells.transpose(3, 4).reshape(-1, grid.t, grid.h * grid.w)


def _partition(visible: Tensor, count: int) -> TokenMask:
    """Return the mask of a boolean (B, N) with `count` True in every row."""
    order = torch.sort((~visible).to(torch.uint8), dim=1, stable=True).indices
    return TokenMask(order[:, :count], order[:, count:])


def _split(noise: Tensor, keep: int) -> TokenMask:
    """Return the mask with the `keep` lowest values of each row visible; of equal values, the first."""
    order = noise.argsort(dim=1, stable=True)  # an unstable order would depend on the processor
    return TokenMask(order[:, :keep].sort(1).values, order[:, keep:].sort(1).values)
