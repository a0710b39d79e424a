"""Random erasing: noise over a box of the clip."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tubelet.errors import UserError

_ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Noise over one random box, the same in all frames (arXiv 1708.04896), as in VideoMAE, MAE-ST and MAR.

    The published noise is normal, of mean 0 and deviation 1 for each pixel of each frame, in the model's
    normalised space. Here it is drawn about `mean` with deviation `std` and rounded to a pixel, so what would
    be darker than black or brighter than white (about 3 %) is cut off.

    Attributes:
        probability: of a clip to be erased.
        area: least and greatest share of the frame's area.
        aspect: least and greatest height over width, drawn log-uniformly.
        mean: of the noise by channel, for pixels in [0, 1]: as the model's, ImageNet's for VideoMAE and MAR.
        std: deviation of the noise, likewise; MAE-ST has 0.45 and 0.225 throughout.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise UserError(f"probability must lie in [0, 1], found {self.probability}")
        if not (0 < self.area[0] <= self.area[1] <= 1 and 0 < self.aspect[0] <= self.aspect[1] < math.inf):
            raise UserError(
                f"area must be a range in (0, 1] and aspect one above 0, found {self.area}, {self.aspect}"
            )

    def __call__(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """uint8 (T, 3, H, W) to the same; a box that fits is sought a hundred times."""
        if rng.random() >= self.probability:
            return clip
        frames, _, height, width = clip.shape
        for _ in range(_ATTEMPTS):
            area = height * width * rng.uniform(*self.area)
            aspect = math.exp(rng.uniform(*np.log(self.aspect)))
            h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < h < height and 0 < w < width:
                top, left = (int(rng.integers(free + 1)) for free in (height - h, width - w))
                noise = rng.standard_normal((frames, h, w, 3), dtype=np.float32)
                pixels = 255 * (noise * np.array(self.std, np.float32) + np.array(self.mean, np.float32))
                erased = clip.clone()
                erased[..., top : top + h, left : left + w] = torch.from_numpy(
                    pixels.round().clip(0, 255).astype(np.uint8)
                ).permute(0, 3, 1, 2)
                return erased
        return clip
