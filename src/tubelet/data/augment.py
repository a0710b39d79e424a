"""Random changes to the pixels of a clip, uint8 (T, C, H, W) in and out, the same for every frame."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tubelet.data.randaugment import RandAugment
from tubelet.errors import UserError, require_probability
from tubelet.settings import BY_KIND
from tubelet.video.crop import Box, crop_resize

_OPPOSITES = {"left": "right", "right": "left", "anticlockwise": "clockwise", "counterclockwise": "clockwise"}
_OPPOSITES_OF_CLOCKWISE = ("anticlockwise", "counterclockwise")
_BUT_RIGHT_OUT = r"(?!(?<=right) out\b(?! of\b))"


def mirrored_classes(names: Sequence[str]) -> tuple[int | None, ...]:
    """Return the class of each class's mirror image, by class index.

    The words `left` and `right`, and `clockwise` and `anticlockwise` or `counterclockwise`, are swapped in
    each name, in any case. A name without them is its own mirror image. None where no class has the swapped
    name, so its videos must not be mirrored. "Right out" (not "right out of") is not a side, unless a class
    has the swapped name.

    On Something-Something v2 this is what MAR does (arXiv 2207.11660): the classes of pulling something,
    pushing something and turning the camera to one side are swapped (86 and 87, 93 and 94, 166 and 167), and
    all others are their own mirror image, also 50, "... but pulling it right out as you remove your hand".
    """
    numbers = {name: number for number, name in enumerate(names)}
    return tuple(_mirror_of(name, numbers) for name in names)


def _mirror_of(name: str, numbers: dict[str, int]) -> int | None:
    mirrored = (
        _swap(name, _OPPOSITES | {"clockwise": word}, but)
        for but in ("", _BUT_RIGHT_OUT)
        for word in _OPPOSITES_OF_CLOCKWISE
    )
    return next((numbers[image] for image in mirrored if image in numbers), None)


def _swap(name: str, words: dict[str, str], but: str) -> str:
    def change(found: re.Match[str]) -> str:
        word = words[found[0].lower()]
        return word.upper() if found[0].isupper() else word.title() if found[0].istitle() else word

    return re.sub(rf"\b({'|'.join(words)})\b{but}", change, name, flags=re.IGNORECASE)


_ERASING_ATTEMPTS = 100
_CROP_ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Noise over one random box, the same in all frames (arXiv 1708.04896), as in VideoMAE, MAE-ST and MAR.

    The published noise is standard normal for each pixel of each frame, after pixels are normalized for the
    model. Here it is drawn with `mean` and `std` before that and rounded to uint8, which clips about 3 % of
    the values.

    Attributes:
        probability: of a clip to be erased.
        area: smallest and largest fraction of the frame's area.
        aspect: smallest and largest height over width, drawn log-uniformly.
        mean: of the noise by channel, for pixels in [0, 1]: the model's, ImageNet's for VideoMAE and MAR.
        std: standard deviation of the noise by channel, the model's; MAE-ST has mean 0.45 and std 0.225.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        require_probability(probability=self.probability)
        if not (0 < self.area[0] <= self.area[1] <= 1 and 0 < self.aspect[0] <= self.aspect[1] < math.inf):
            raise UserError(
                f"area must be a range in (0, 1] and aspect one above 0, found {self.area} and {self.aspect}"
            )

    def __call__(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """Erase a box of a clip, uint8 (T, 3, H, W) to the same, if one of a hundred draws fits the frame."""
        if rng.random() >= self.probability:
            return clip
        frames, _, height, width = clip.shape
        for _ in range(_ERASING_ATTEMPTS):
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


@dataclass(frozen=True, kw_only=True)
class MultiScaleCrop:
    """VideoMAE's pre-training crop: sides of 1, .875, .75 or .66 of the short side, at one of 13 positions.

    Width and height are drawn together so that their scales are at most one step apart; a side within 3
    pixels of the output's is rounded to it (TSN's GroupMultiScaleCrop, arXiv 1507.02159, section 3.2).

    Attributes:
        scales: the candidate sides in the order of their size, as fractions of the short side in (0, 1].

    Raises:
        UserError: there are no scales, or one is outside that range.
    """

    kind: Literal["multi_scale"] = "multi_scale"
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise UserError(f"scales must be numbers in (0, 1], at least one, found {self.scales}")

    def box(self, height: int, width: int, size: int, rng: np.random.Generator) -> Box:
        """Draw a crop of a frame of (height, width) for an output of `size` pixels."""
        short = min(height, width)
        sides = [size if abs(side - size) < 3 else side for side in (int(short * s) for s in self.scales)]
        sides = [min(side, short) for side in sides]
        steps = len(sides)
        pairs = [(i, j) for i in range(steps) for j in range(steps) if abs(i - j) <= 1]
        i, j = pairs[rng.integers(len(pairs))]
        y, x = _POSITIONS[rng.integers(len(_POSITIONS))]
        return Box((height - sides[i]) // 4 * y, (width - sides[j]) // 4 * x, sides[i], sides[j])


# The corners, the middles of the sides, the center and four points between, in quarters of the free space.
_POSITIONS = [(y, x) for y in (0, 2, 4) for x in (0, 2, 4)] + [(y, x) for y in (1, 3) for x in (1, 3)]


@dataclass(frozen=True, kw_only=True)
class ResizedCrop:
    """A random part of the frame at a random aspect ratio (Inception's crop, arXiv 1409.4842, section 6).

    Attributes:
        scale: smallest and largest fraction of the frame's area, in (0, 1].
        ratio: smallest and largest width over height, above 0, drawn log-uniformly.

    Raises:
        UserError: a bound is outside that range, or the smallest is above the largest.
    """

    kind: Literal["resized"] = "resized"
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"scale must be two numbers in (0, 1], the smaller first, found {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise UserError(f"ratio must be two numbers above 0, the smaller first, found {self.ratio}")

    def box(self, height: int, width: int, size: int, rng: np.random.Generator) -> Box:
        """Draw a crop of a frame of (height, width): ten attempts, then the central one that fits best."""
        for _ in range(_CROP_ATTEMPTS):
            area = height * width * rng.uniform(*self.scale)
            aspect = np.exp(rng.uniform(*np.log(self.ratio)))
            w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                return Box(int(top), int(left), h, w)
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
        return Box((height - h) // 2, (width - w) // 2, h, w)


AnyCrop = Annotated[MultiScaleCrop | ResizedCrop, BY_KIND]


class CropDraw(NamedTuple):
    """A random crop that was drawn for a clip.

    Attributes:
        box: the part of the frame.
        flip: whether left and right are swapped.
        classes: classes that the crop shows; a flip may have changed them.
    """

    box: Box
    flip: bool
    classes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """The random changes to a training clip, in this order.

    Attributes:
        randaugment: random operations on colors and geometry; null: none.
        crop: how the part of the frame that is kept is drawn.
        flip: probability of a mirror image; 0 where left and right matter.
        flip_labels: a flipped clip may `keep` its classes, or `swap` each for the one whose name has left and
            right swapped, as MAR does on Something-Something; clips of a class whose name has a side, but no
            such counterpart, are not flipped.
        erasing: noise over a random box; null: none.
    """

    randaugment: RandAugment | None = None
    crop: AnyCrop = MultiScaleCrop()
    flip: float = 0.0
    flip_labels: Literal["keep", "swap"] = "keep"
    erasing: RandomErasing | None = None

    def __post_init__(self) -> None:
        require_probability(flip=self.flip)

    @property
    def whole_frames(self) -> bool:
        """Whether whole frames are augmented before cropping, so that `draw_crop` is not enough."""
        return self.randaugment is not None and not self.randaugment.cropped

    def __call__(self, clip: Tensor, size: int, rng: np.random.Generator) -> Tensor:
        """Augment a clip without classes, uint8 (T, C, H, W) to uint8 (T, C, size, size)."""
        return self.labeled(clip, size, rng)[0]

    def labeled(
        self,
        clip: Tensor,
        size: int,
        rng: np.random.Generator,
        classes: Sequence[int] = (),
        mirrored: Sequence[int | None] = (),
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Augment a clip, and return it with its classes, which a flip may change; see `draw_crop`."""
        if self.randaugment and self.whole_frames:
            clip = self.randaugment(clip, rng)
        draw = self.draw_crop(clip.shape[-2], clip.shape[-1], size, rng, classes, mirrored)
        clip = crop_resize(clip, draw.box, (size, size))
        return self.finish(clip.flip(-1) if draw.flip else clip, rng), draw.classes

    def draw_crop(
        self,
        height: int,
        width: int,
        size: int,
        rng: np.random.Generator,
        classes: Sequence[int] = (),
        mirrored: Sequence[int | None] = (),
    ) -> CropDraw:
        """Draw the part of a frame of (height, width) to show, and whether it is mirrored.

        Args:
            height: of the frame in pixels.
            width: of the frame in pixels.
            size: side of the resulting clip in pixels.
            rng: random generator.
            classes: the clip's classes, if known.
            mirrored: the class of each class's mirror image, from `mirrored_classes`.
        """
        box = self.crop.box(height, width, size, rng)
        flip = rng.random() < self.flip
        if not flip or self.flip_labels == "keep":
            return CropDraw(box, flip, tuple(classes))
        images = tuple(image for number in classes if (image := mirrored[number]) is not None)
        return (
            CropDraw(box, True, images)
            if len(images) == len(classes)
            else CropDraw(box, False, tuple(classes))
        )

    def finish(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """Apply what follows cropping: uint8 (T, C, size, size) to the same."""
        if self.randaugment and self.randaugment.cropped:
            clip = self.randaugment(clip, rng)
        return self.erasing(clip, rng) if self.erasing else clip
