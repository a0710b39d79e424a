"""What is done to the pixels of a clip: uint8 (T, C, H, W) in and out, every frame alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from tubelet.data.erasing import RandomErasing
from tubelet.data.randaugment import RandAugment
from tubelet.errors import UserError


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class MultiScaleCrop:
    """VideoMAE's pre-training crop: sides of 1, .875, .75 or .66 of the short side, at one of 13 places.

    Width and height are drawn together so that their scales are at most one step apart; a side within 3
    pixels of the output's is taken to be it (TSN's GroupMultiScaleCrop, arXiv 1507.02159, section 3.2).

    Attributes:
        scales: the candidate sides in the order of their size, as shares of the short side in (0, 1].

    Raises:
        UserError: there are none, or one is no such share.
    """

    kind: Literal["multi_scale"] = "multi_scale"
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise UserError(f"scales must be shares in (0, 1], at least one, found {self.scales}")

    def box(self, height: int, width: int, size: int, rng: np.random.Generator) -> Box:
        """Draw a crop of a frame of (height, width) for an output of `size` pixels."""
        short = min(height, width)
        sides = [size if abs(side - size) < 3 else side for side in (int(short * s) for s in self.scales)]
        sides = [min(side, short) for side in sides]
        steps = len(sides)
        pairs = [(i, j) for i in range(steps) for j in range(steps) if abs(i - j) <= 1]
        i, j = pairs[rng.integers(len(pairs))]
        y, x = _THIRTEEN[rng.integers(len(_THIRTEEN))]
        return Box((height - sides[i]) // 4 * y, (width - sides[j]) // 4 * x, sides[i], sides[j])


# The corners, the middles of the sides, the center and four points between, in quarters of the free space.
_THIRTEEN = [(y, x) for y in (0, 2, 4) for x in (0, 2, 4)] + [(y, x) for y in (1, 3) for x in (1, 3)]


@dataclass(frozen=True, kw_only=True)
class ResizedCrop:
    """A random share of the frame at a random aspect ratio (Inception's crop, arXiv 1409.4842, section 6).

    Attributes:
        scale: least and greatest share of the frame's area, in (0, 1].
        ratio: least and greatest width over height, above 0, drawn log-uniformly.

    Raises:
        UserError: they are outside, or the least is above the greatest.
    """

    kind: Literal["resized"] = "resized"
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"scale must be two shares in (0, 1], the lesser first, found {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise UserError(f"ratio must be two numbers above 0, the lesser first, found {self.ratio}")

    def box(self, height: int, width: int, size: int, rng: np.random.Generator) -> Box:
        """Draw a crop of a frame of (height, width): ten attempts, then the central one that fits best."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = np.exp(rng.uniform(*np.log(self.ratio)))
            w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                return Box(int(top), int(left), h, w)
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
        return Box((height - h) // 2, (width - w) // 2, h, w)


AnyCrop = MultiScaleCrop | ResizedCrop


@dataclass(frozen=True, kw_only=True)
class Augment:
    """The random changes to a training clip, in this order.

    Attributes:
        randaugment: random operations on colors and geometry; null has none.
        crop: how the part of the frame that is kept is drawn.
        flip: probability of a mirror image; 0 where left and right matter.
        flip_labels: a flipped clip may `keep` its classes, or `swap` each for the one whose name has left and
            right swapped; clips of a class that has no such counterpart are not flipped (MAR on
            Something-Something).
        erasing: noise over a random box; null has none.
    """

    randaugment: RandAugment | None = None
    crop: AnyCrop = MultiScaleCrop()
    flip: float = 0.0
    flip_labels: Literal["keep", "swap"] = "keep"
    erasing: RandomErasing | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise UserError(f"flip must lie in [0, 1], found {self.flip}")

    @property
    def whole_frames(self) -> bool:
        """Whether anything happens to frames before they are cropped: `place` alone does not do then."""
        return self.randaugment is not None and not self.randaugment.cropped

    def __call__(self, clip: Tensor, size: int, rng: np.random.Generator) -> Tensor:
        """uint8 (T, C, H, W) to uint8 (T, C, size, size), whatever the clip's classes."""
        return self.labeled(clip, size, rng)[0]

    def labeled(
        self,
        clip: Tensor,
        size: int,
        rng: np.random.Generator,
        classes: Sequence[int] = (),
        mirrored: Sequence[int | None] = (),
    ) -> tuple[Tensor, tuple[int, ...]]:
        """As the call, with the clip's classes, which a flip may change; arguments as in `place`."""
        if self.randaugment and self.whole_frames:
            clip = self.randaugment(clip, rng)
        placed = self.place(clip.shape[-2], clip.shape[-1], size, rng, classes, mirrored)
        clip = crop_resize(clip, placed.box, (size, size))
        return self.finish(clip.flip(-1) if placed.flip else clip, rng), placed.classes

    def place(
        self,
        height: int,
        width: int,
        size: int,
        rng: np.random.Generator,
        classes: Sequence[int] = (),
        mirrored: Sequence[int | None] = (),
    ) -> "Placed":
        """Draw what of a frame of (height, width) is shown and whether in a mirror.

        Args:
            height: of the frame in pixels.
            width: likewise.
            size: side of the outcome in pixels.
            rng: what all that is random is drawn from.
            classes: what the clip shows, as far as it is known.
            mirrored: the class of each class's mirror image, as `mirrored_classes` has it.
        """
        box = self.crop.box(height, width, size, rng)
        flip = rng.random() < self.flip
        if not flip or self.flip_labels == "keep":
            return Placed(box, flip, tuple(classes))
        images = [mirrored[number] for number in classes]
        known = tuple(image for image in images if image is not None)
        return Placed(box, True, known) if len(known) == len(images) else Placed(box, False, tuple(classes))

    def finish(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """What happens after cropping: uint8 (T, C, size, size) to the same."""
        if self.randaugment and self.randaugment.cropped:
            clip = self.randaugment(clip, rng)
        return self.erasing(clip, rng) if self.erasing else clip


class Placed(NamedTuple):
    """A crop that was drawn.

    Attributes:
        box: the part of the frame.
        flip: whether left and right are swapped.
        classes: of what is then seen, as far as they are known.
    """

    box: Box
    flip: bool
    classes: tuple[int, ...]


def crop_resize(clip: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Cut a box out of every frame and scale it to (height, width): bilinear with antialiasing."""
    part = clip[..., box.top : box.top + box.height, box.left : box.left + box.width]
    if (box.height, box.width) == size:
        return part.contiguous()
    return functional.resize(part, list(size), antialias=True)


def spread_crops(clip: Tensor, crops: int) -> Tensor:
    """Square crops as large as the short side, spread along the long one.

    Args:
        clip: uint8 (T, C, H, W).
        crops: how many; a single one is central.

    Returns:
        uint8 (crops, T, C, side, side), side = min(H, W).
    """
    height, width = clip.shape[-2:]
    side, free = min(height, width), abs(height - width)
    places = [free // 2] if crops == 1 else [free * k // (crops - 1) for k in range(crops)]
    axis = -1 if height < width else -2
    return torch.stack([clip.narrow(axis, place, side) for place in places])
