"""Mixup and cutmix: each clip of a batch mixed with the one as far from the batch's other end."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tubelet.errors import UserError, require_at_least


class Mix(NamedTuple):
    """What was drawn for a batch.

    Attributes:
        share: of each clip that is its own, in [0, 1].
        box: (top, bottom, left, right) of the part that is the partner's in cutmix; None in mixup.
    """

    share: float
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixup (arXiv 1710.09412) or cutmix (arXiv 1905.04899) of whole batches, as in timm's `batch` mode.

    One share and one box are drawn for the batch of each process; the partners are the batch in reverse, and
    the box reaches through all frames. The pixels stay uint8, so mixup rounds them.

    Attributes:
        mixup: alpha of the share's Beta distribution in mixup; 0 never does it.
        cutmix: likewise in cutmix; the share is then corrected to the box as far as it lies in the frame.
        switch: probability of cutmix rather than mixup, where both are on.
        probability: of a batch to be mixed at all.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    switch: float = 0.5
    probability: float = 1.0

    def __post_init__(self) -> None:
        for name in ("switch", "probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must lie in [0, 1], found {getattr(self, name)}")
        require_at_least(0, mixup=self.mixup, cutmix=self.cutmix)
        if not (self.mixup or self.cutmix):
            raise UserError("mixup and cutmix must not both be 0; mixing=null does not mix")

    def draw(self, seed: Tensor, height: int, width: int) -> Mix:
        """The mix of a batch: a pure function of its clips' seeds, int64 (B,) on the CPU, and the frame."""
        rng = np.random.default_rng(seed.numpy().view(np.uint64).tolist())
        if rng.random() >= self.probability:
            return Mix(1.0)
        cut = rng.random() < self.switch if self.mixup and self.cutmix else self.cutmix > 0
        alpha = self.cutmix if cut else self.mixup
        share = float(rng.beta(alpha, alpha))
        if not cut:
            return Mix(share)
        h, w = (int(side * (1 - share) ** 0.5) // 2 for side in (height, width))
        y, x = int(rng.integers(height)), int(rng.integers(width))
        top, bottom = max(y - h, 0), min(y + h, height)
        left, right = max(x - w, 0), min(x + w, width)
        return Mix(1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))

    def __call__(self, video: Tensor, label: Tensor, seed: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            video: uint8 (B, T, C, H, W); it is not changed.
            label: int64 (B,), the class of each clip; or bool (B, classes), those that it shows.
            seed: int64 (B,) on the CPU, a random number of each clip's own.
            classes: how many there are.

        Returns:
            The mixed clips, uint8 (B, T, C, H, W), and the share of each class in them, float32 (B, classes).
        """
        mix = self.draw(seed, *video.shape[-2:])
        target = (label if label.ndim == 2 else functional.one_hot(label, classes)).float()
        return mix_clips(video, mix), torch.lerp(target.flip(0), target, mix.share)


def mix_clips(video: Tensor, mix: Mix) -> Tensor:
    """Mix a batch with itself in reverse, uint8 (B, T, C, H, W) to the same."""
    if mix.box is None:
        return torch.lerp(video.flip(0).float(), video.float(), mix.share).round_().to(torch.uint8)
    top, bottom, left, right = mix.box
    mixed = video.clone()
    mixed[..., top:bottom, left:right] = video.flip(0)[..., top:bottom, left:right]
    return mixed
