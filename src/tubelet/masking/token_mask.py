"""Which tokens are visible to the encoder and which are masked, as index tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor


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
        return partition(visible, int(counts[0]))

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


def partition(visible: Tensor, count: int) -> TokenMask:
    """Return the mask of a boolean (B, N) with `count` True in every row."""
    order = torch.sort((~visible).to(torch.uint8), dim=1, stable=True).indices
    return TokenMask(order[:, :count], order[:, count:])


def split(noise: Tensor, keep: int) -> TokenMask:
    """Return the mask with the `keep` lowest values of each row visible; of equal values, the first."""
    order = noise.argsort(dim=1, stable=True)  # an unstable order would depend on the processor
    return TokenMask(order[:, :keep].sort(1).values, order[:, keep:].sort(1).values)
