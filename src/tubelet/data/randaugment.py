"""RandAugment in the published notation, the same for all frames of a clip."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import grid_sample

from tubelet.errors import UserError

Fill = tuple[int, int, int]
_ROWS_AT_ONCE = 16  # they stay in the processor's cache
_FRAMES_AT_ONCE = 8  # bounds the memory of full-size frames in floating point
_MAX_MAGNITUDE = 10.0
_APPLY_PROBABILITY = 0.5


def affine(clip: Tensor, matrix: tuple[float, float, float, float, float, float], fill: Fill) -> Tensor:
    """Warp a clip with bicubic interpolation: pixel (x, y) comes from (a x + b y + c, d x + e y + f).

    Coordinates are of pixel centers, the first at (1/2, 1/2). Interpolation repeats the frame's last pixels
    beyond its edge, as Pillow does, so that no fill color bleeds in.

    Args:
        clip: uint8 (T, C=3, H, W).
        matrix: a to f.
        fill: RGB in [0, 255] of pixels from outside the frame.
    """
    height, width = clip.shape[-2:]
    a, b, c, d, e, f = matrix
    y, x = (torch.arange(size) + 0.5 for size in (height, width))
    across = a * x + b * y[:, None] + c
    down = d * x + e * y[:, None] + f
    outside = (across < 0) | (across >= width) | (down < 0) | (down >= height)
    grid = torch.stack([2 * across / width - 1, 2 * down / height - 1], -1)[None]
    # Frames become channels of one image, so the coordinates are computed once for all of them.
    image = clip.flatten(0, 1)[None].float()
    warped = grid_sample(image, grid, "bicubic", padding_mode="border", align_corners=False)
    pixels = warped.round_().clamp_(0, 255).to(torch.uint8).view_as(clip)
    return torch.where(outside, torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1), pixels)


def shift_rows(clip: Tensor, shift: Tensor, fill: Fill) -> Tensor:
    """Shift each row to the left with bicubic interpolation: `affine` for shears and translations.

    It interpolates in one direction only, which makes it three times as fast.

    Args:
        clip: uint8 (T, C=3, H, W).
        shift: float (H,), pixels by which each row moves to the left.
        fill: RGB in [0, 255] of pixels from outside the frame.
    """
    width = clip.shape[-1]
    whole = shift.floor()
    weights = _kernel(shift - whole)
    edged = torch.cat([clip[..., :1], clip[..., :1], clip, clip[..., -1:], clip[..., -1:]], -1)
    origins = torch.arange(width) + 0.5 + shift[:, None]
    inside = (origins >= 0) & (origins < width)
    out = torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1).expand_as(clip).contiguous()
    for start, rows in _runs(whole.int().tolist()):
        left, right = max(0, -start - 1), min(width, width - start)
        if left >= right:
            continue
        source = edged[..., rows, left + start + 1 : right + start + 4].float()
        weight = weights[rows]
        total = source[..., :-3] * weight[:, :1]
        for k in range(1, 4):
            total.addcmul_(source[..., k : k + right - left], weight[:, k : k + 1])
        shifted = total.round_().clamp_(0, 255).to(torch.uint8)
        target = out[..., rows, left:right]
        target.copy_(torch.where(inside[rows, left:right], shifted, target))
    return out


def _runs(starts: list[int]) -> list[tuple[int, slice]]:
    """Return slices of at most `_ROWS_AT_ONCE` successive rows of one start, each with that start."""
    return [
        (start, slice(rows[k], rows[min(k + _ROWS_AT_ONCE, len(rows)) - 1] + 1))
        for start, group in groupby(range(len(starts)), key=starts.__getitem__)
        for rows in [list(group)]
        for k in range(0, len(rows), _ROWS_AT_ONCE)
    ]


def _kernel(part: Tensor) -> Tensor:
    """Return weights (N, 4) of the pixels at -1, 0, 1 and 2 for positions (N,) in [0, 1)."""
    a = -0.75
    near = torch.stack([part, 1 - part], -1)
    far = torch.stack([1 + part, 2 - part], -1)
    near = ((a + 2) * near - (a + 3)) * near**2 + 1
    far = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return torch.stack([far[:, 0], near[:, 0], near[:, 1], far[:, 1]], -1)


class Policy(NamedTuple):
    """The numbers of a policy such as `rand-m7-n4-mstd0.5-inc1`.

    Attributes:
        magnitude: mean strength, in [0, 10].
        num_operations: how many are drawn for a clip, with replacement.
        magnitude_std: standard deviation of the strength, whose distribution is normal.
    """

    magnitude: int
    num_operations: int
    magnitude_std: float


def parse_policy(text: str) -> Policy:
    """Parse the notation of timm and PySlowFast: `rand`, then m (required), n (2), mstd (0), and inc1.

    Raises:
        UserError: the text is not such a policy.
    """
    word, *parts = text.split("-")
    found = [re.fullmatch(r"(m|n|mstd|inc)(\d+(?:\.\d+)?)", part) for part in parts]
    values = {match[1]: float(match[2]) for match in found if match}
    whole = all(values.get(key, 1.0).is_integer() for key in ("m", "n", "inc"))
    if word != "rand" or not all(found) or len(values) < len(parts) or not whole or "m" not in values:
        raise UserError(
            f"policy '{text}' is not RandAugment's: write one like rand-m7-n4-mstd0.5-inc1, with the "
            "magnitude m, the number of operations n (2 by default) and the standard deviation of the "
            "magnitude mstd (0)"
        )
    if values.get("inc") != 1:
        raise UserError(f"policy '{text}' must end in -inc1: other operations are not supported")
    if values["m"] > _MAX_MAGNITUDE or values.get("n") == 0:
        raise UserError(f"policy '{text}': m must be in [0, {_MAX_MAGNITUDE:g}] and n must be at least 1")
    return Policy(int(values["m"]), int(values.get("n", 2)), values.get("mstd", 0.0))


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Random operations one after another (arXiv 1909.13719), as in timm and PySlowFast.

    Operations are drawn from 15 with replacement. Each is applied with probability 1/2 and has its own
    strength from a normal distribution around m, clipped to [0, 10]. All frames get the same operations,
    strengths and signs. Warps are bicubic with torch's kernel (a = -0.75), rounded to the nearest value;
    Pillow, which the published code uses, has a = -1 and rounds down.

    Attributes:
        policy: strength and number of operations: VideoMAE's is the default, MAE-ST has rand-m7-mstd0.5-inc1
            and MAR rand-m9-mstd0.5-inc1.
        fill: RGB in [0, 255] of pixels from outside the frame; MAR's is [124, 116, 104].
        cropped: augment the clip after it is cropped, as MAR does on Something-Something, not before.
    """

    policy: str = "rand-m7-n4-mstd0.5-inc1"
    fill: tuple[int, int, int] = (128, 128, 128)
    cropped: bool = False

    def __post_init__(self) -> None:
        parse_policy(self.policy)
        if not all(0 <= value <= 255 for value in self.fill):
            raise UserError(f"fill must be in [0, 255], found {self.fill}")

    def __call__(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """Augment a clip, uint8 (T, 3, H, W) to the same."""
        operations = self.draw(rng)
        changed = torch.empty_like(clip)
        parts = zip(clip.split(_FRAMES_AT_ONCE), changed.split(_FRAMES_AT_ONCE), strict=True)
        for part, out in parts:
            for name, strength, sign in operations:
                part = OPERATIONS[name](part, strength, sign, self.fill)
            out.copy_(part)
        return changed

    def draw(self, rng: np.random.Generator) -> list[tuple[str, float, int]]:
        """Draw the operations to apply: (name, strength in [0, 10], sign)."""
        policy = parse_policy(self.policy)
        operations = []
        for number in rng.integers(len(OPERATIONS), size=policy.num_operations):
            strength = float(rng.normal(policy.magnitude, policy.magnitude_std))
            sign = 1 if rng.random() < 0.5 else -1
            if rng.random() < _APPLY_PROBABILITY:
                name = list(OPERATIONS)[number]
                operations.append((name, min(max(strength, 0.0), _MAX_MAGNITUDE), sign))
        return operations


Operation = Callable[[Tensor, float, int, Fill], Tensor]


def rotate(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Rotate about the center by 3 degrees times the strength, counterclockwise if the sign is plus."""
    height, width = clip.shape[-2:]
    angle = math.radians(sign * 3 * strength)
    c, s = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return affine(clip, (c, -s, x - c * x + s * y, s, c, y - s * x - c * y), fill)


def shear_x(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Shift each row by 0.03 of its y coordinate times the strength, to the left if the sign is plus."""
    return shift_rows(clip, sign * 0.03 * strength * (torch.arange(clip.shape[-2]) + 0.5), fill)


def shear_y(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Shift each column by 0.03 of its x coordinate times the strength, upward if the sign is plus."""
    return shear_x(clip.mT, strength, sign, fill).mT.contiguous()


def translate_x(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Shift by 0.045 of the width times the strength, to the left if the sign is plus."""
    height, width = clip.shape[-2:]
    return shift_rows(clip, torch.full((height,), sign * 0.045 * strength * width), fill)


def translate_y(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Shift by 0.045 of the height times the strength, upward if the sign is plus."""
    return translate_x(clip.mT, strength, sign, fill).mT.contiguous()


def posterize(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Keep the 4 - int(0.4 * strength) highest bits."""
    bits = 4 - int(0.4 * strength)
    return clip & (256 - (1 << (8 - bits)))


def solarize(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Invert from 256 - int(25.6 * strength) upward."""
    levels = torch.arange(256)
    return _map_levels(clip, torch.where(levels < 256 - int(25.6 * strength), levels, 255 - levels))


def solarize_add(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Add int(11 * strength) below 128."""
    levels = torch.arange(256)
    return _map_levels(clip, torch.where(levels < 128, levels + int(11 * strength), levels))


def color(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Multiply the saturation by 1 + 0.09 * sign * strength."""
    return _scale_difference(_luma(clip).float(), clip, strength, sign)


def contrast(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Multiply the contrast, around each frame's mean brightness, by 1 + 0.09 * sign * strength."""
    means = (_luma(clip).float().mean((1, 2, 3)) + 0.5).floor()
    tables = (_scale_difference(mean, torch.arange(256), strength, sign) for mean in means)
    return torch.stack([_map_levels(frame, table) for frame, table in zip(clip, tables, strict=True)])


def brightness(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Multiply the brightness by 1 + 0.09 * sign * strength."""
    return _map_levels(clip, _scale_difference(torch.zeros(()), torch.arange(256), strength, sign))


def sharpness(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Multiply the difference from a smoothed frame by 1 + 0.09 * sign * strength, except at the border."""
    if min(clip.shape[-2:]) < 3:
        return clip
    wide = clip.to(torch.int16)
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = clip.float()
    inner = (..., slice(1, -1), slice(1, -1))
    smooth[inner] = ((box + 4 * wide[inner]).float() / 13 + 0.5).floor()
    return _scale_difference(smooth, clip, strength, sign)


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": lambda clip, *_: _each_plane(clip, ImageOps.autocontrast),
    "equalize": lambda clip, *_: _each_plane(clip, ImageOps.equalize),
    "invert": lambda clip, *_: 255 - clip,
    "rotate": rotate,
    "posterize": posterize,
    "solarize": solarize,
    "solarize_add": solarize_add,
    "color": color,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
"""The operations whose effect grows with the strength (`inc1`), by name."""


def _map_levels(clip: Tensor, table: Tensor) -> Tensor:
    """Replace each level by the table's; Pillow is much faster at it than torch."""
    image = Image.fromarray(clip.contiguous().numpy().reshape(-1, clip.shape[-1]))
    return torch.from_numpy(np.array(image.point(table.tolist()))).view(clip.shape)


def _each_plane(clip: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Change each channel of each frame on its own, as Pillow does for RGB images."""
    planes = clip.contiguous().numpy().reshape(-1, *clip.shape[-2:])
    return torch.from_numpy(np.stack([np.asarray(change(Image.fromarray(plane))) for plane in planes])).view(
        clip.shape
    )


def _luma(clip: Tensor) -> Tensor:
    """Return Pillow's brightness of RGB: (T, 3, H, W) uint8 to (T, 1, H, W) int32 in [0, 255]."""
    red, green, blue = clip.to(torch.int32).unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)[:, None]


def _scale_difference(plain: Tensor, clip: Tensor, strength: float, sign: int) -> Tensor:
    """Multiply the clip's difference from a plain version of itself by 1 + 0.09 * sign * strength."""
    factor = 1 + 0.09 * sign * strength
    return ((clip - plain) * factor).add_(plain).clamp_(0, 255).to(torch.uint8)
