"""What all maskings have in common."""

from typing import Protocol

import torch
from torch import Tensor

from tubelet.errors import UserError
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


class Sampled:
    """The methods that follow from `from_noise`."""

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


def check_ratio(ratio: float) -> None:
    """Raise a UserError unless a ratio is in [0, 1)."""
    if not 0 <= ratio < 1:
        raise UserError(f"ratio is the fraction of masked tokens and must be in [0, 1), found {ratio}")
