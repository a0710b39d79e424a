"""Mixup and cutmix of each clip of a batch with its partner, the batch in reverse order."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tubelet.errors import UserError, require_at_least, require_probability


class MixDraw(NamedTuple):
    """How to mix a batch.

    Attributes:
        weight: of the clip itself, in [0, 1]; its partner has the rest.
        box: (top, bottom, left, right) of the part that the partner replaces in cutmix; None in mixup.
    """

    weight: float
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixup (arXiv 1710.09412) or cutmix (arXiv 1905.04899) of whole batches, as in timm's `batch` mode.

    One weight and one box are drawn for the batch of each process. The partners are the batch in reverse
    order, and the box is the same in all frames. The pixels stay uint8, so mixup rounds them.

    Attributes:
        mixup: alpha of the weight's Beta distribution in mixup; 0 disables mixup.
        cutmix: alpha of the weight's Beta distribution in cutmix; 0 disables cutmix. The weight is corrected
            to the part of the box that is inside the frame.
        switch: probability of cutmix rather than mixup if both are enabled.
        probability: probability that a batch is mixed.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    switch: float = 0.5
    probability: float = 1.0

    def __post_init__(self) -> None:
        require_probability(switch=self.switch, probability=self.probability)
        require_at_least(0, mixup=self.mixup, cutmix=self.cutmix)
        if not (self.mixup or self.cutmix):
            raise UserError("mixup and cutmix must not both be 0; to disable mixing set mixing=null")

    def draw(self, seed: Tensor, height: int, width: int) -> MixDraw:
        """Draw how to mix a batch: a pure function of its clips' seeds, int64 (B,), and the frame's size."""
        rng = np.random.default_rng(seed.numpy().view(np.uint64).tolist())
        if rng.random() >= self.probability:
            return MixDraw(1.0)
        cut = rng.random() < self.switch if self.mixup and self.cutmix else self.cutmix > 0
        alpha = self.cutmix if cut else self.mixup
        weight = float(rng.beta(alpha, alpha))
        if not cut:
            return MixDraw(weight)
        h, w = (int(side * (1 - weight) ** 0.5) // 2 for side in (height, width))
        y, x = int(rng.integers(height)), int(rng.integers(width))
        top, bottom = max(y - h, 0), min(y + h, height)
        left, right = max(x - w, 0), min(x + w, width)
        return MixDraw(1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))

    def __call__(self, video: Tensor, label: Tensor, seed: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            video: uint8 (B, T, C, H, W); it is not changed.
            label: int64 (B,), the class of each clip; or bool (B, num_classes), true for those that it shows.
            seed: int64 (B,) on the CPU, a random number of each clip.
            num_classes: how many classes there are.

        Returns:
            The mixed clips, uint8 (B, T, C, H, W), and their targets, float32 (B, num_classes) in [0, 1].
        """
        mix = self.draw(seed, *video.shape[-2:])
        target = (label if label.ndim == 2 else functional.one_hot(label, num_classes)).float()
        return mix_clips(video, mix), torch.lerp(target.flip(0), target, mix.weight)


def mix_clips(video: Tensor, mix: MixDraw) -> Tensor:
    """Mix a batch with itself in reverse order, uint8 (B, T, C, H, W) to the same."""
    if mix.box is None:
        return torch.lerp(video.flip(0).float(), video.float(), mix.weight).round_().to(torch.uint8)
    top, bottom, left, right = mix.box
    mixed = video.clone()
    mixed[..., top:bottom, left:right] = video.flip(0)[..., top:bottom, left:right]
    return mixed
