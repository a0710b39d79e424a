"""What all maskings have in common."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tubelet.errors import require_below_1
from tubelet.masking.token_mask import TokenMask, row_noise
from tubelet.patches import Size3


class Masking(Protocol):
    """The interface of every masking."""

    @property
    def ratio(self) -> float:
        """Fraction of the tokens that the encoder does not see, in [0, 1)."""
        ...

    def noise_size(self, grid: Size3) -> int:
        """Return how many random numbers a mask needs."""
        ...

    def from_noise(self, grid: Size3, noise: Tensor) -> TokenMask:
        """Return the masks for uniform noise (B, noise_size)."""
        ...


@dataclass(frozen=True, kw_only=True)
class RatioMasking:
    """What every masking has: a ratio, and the methods that follow from `from_noise`."""

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

    def test_masks(self: Masking, grid: Size3, seeds: Tensor) -> TokenMask:
        """Return the masks of a test: they depend only on each clip's seed, int64 (B,)."""
        return self.from_noise(grid, row_noise(seeds, self.noise_size(grid)))
