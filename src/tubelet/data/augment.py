"""What is done to the pixels of a clip: uint8 (T, C, H, W) in and out, every frame alike."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tubelet.data.randaugment import RandAugment
from tubelet.errors import UserError
from tubelet.video.crop import Box, crop_resize

_SWAPPED = {"left": "right", "right": "left", "anticlockwise": "clockwise", "counterclockwise": "clockwise"}
_OTHER_WAY = ("anticlockwise", "counterclockwise")  # what clockwise becomes, said in either way


def mirrored_classes(names: Sequence[str]) -> tuple[int | None, ...]:
    """The class of each class's mirror image, by number.

    A name that says nothing of left and right is its own; of another, `left` and `right` (and `clockwise` and
    `anticlockwise` or `counterclockwise`) are swapped, as whole words in any case. None where no class has
    that name, so that its videos must not be mirrored. On Something-Something v2 this swaps the three pairs
    that MAR swaps: pulling, pushing and turning the camera (arXiv 2207.11660).
    """
    numbers = {name: number for number, name in enumerate(names)}
    return tuple(_mirror_of(name, numbers) for name in names)


def _mirror_of(name: str, numbers: dict[str, int]) -> int | None:
    mirrored = (_swap(name, _SWAPPED | {"clockwise": other}) for other in _OTHER_WAY)
    return next((numbers[image] for image in mirrored if image in numbers), None)


def _swap(name: str, words: dict[str, str]) -> str:
    def change(found: re.Match[str]) -> str:
        word = words[found[0].lower()]
        return word.upper() if found[0].isupper() else word.title() if found[0].istitle() else word

    return re.sub(rf"\b({'|'.join(words)})\b", change, name, flags=re.IGNORECASE)


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
        """Whether anything happens to frames before they are cropped: `draw_crop` alone does not do then."""
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
        """As the call, with the clip's classes, which a flip may change; arguments as in `draw_crop`."""
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
    ) -> "CropDraw":
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
            return CropDraw(box, flip, tuple(classes))
        images = [mirrored[number] for number in classes]
        known = tuple(image for image in images if image is not None)
        return (
            CropDraw(box, True, known) if len(known) == len(images) else CropDraw(box, False, tuple(classes))
        )

    def finish(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """What happens after cropping: uint8 (T, C, size, size) to the same."""
        if self.randaugment and self.randaugment.cropped:
            clip = self.randaugment(clip, rng)
        return self.erasing(clip, rng) if self.erasing else clip


class CropDraw(NamedTuple):
    """A crop that was drawn.

    Attributes:
        box: the part of the frame.
        flip: whether left and right are swapped.
        classes: of what is then seen, as far as they are known.
    """

    box: Box
    flip: bool
    classes: tuple[int, ...]
