"""RandAugment in the published notation, on all frames of a clip alike."""

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
_ROWS = 16  # worked on at a time, so that they stay in the processor's cache


def move(clip: Tensor, matrix: tuple[float, float, float, float, float, float], fill: Fill) -> Tensor:
    """Every pixel (x, y) of the outcome from (a x + b y + c, d x + e y + f), bicubic; `fill` from outside.

    Places are of pixel centers, the first at (1/2, 1/2). Beside the edge the frame's last pixels go on, so
    that no fill bleeds in, as in Pillow.

    Args:
        clip: uint8 (T, C=3, H, W).
        matrix: a to f.
        fill: RGB in [0, 255].
    """
    height, width = clip.shape[-2:]
    a, b, c, d, e, f = matrix
    y, x = (torch.arange(size) + 0.5 for size in (height, width))
    across = a * x + b * y[:, None] + c
    down = d * x + e * y[:, None] + f
    outside = (across < 0) | (across >= width) | (down < 0) | (down >= height)
    grid = torch.stack([2 * across / width - 1, 2 * down / height - 1], -1)[None]
    # Frames as channels of one picture: the places are worked out once for all of them.
    picture = clip.flatten(0, 1)[None].float()
    moved = grid_sample(picture, grid, "bicubic", padding_mode="border", align_corners=False)
    pixels = moved.round_().clamp_(0, 255).to(torch.uint8).view_as(clip)
    return torch.where(outside, torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1), pixels)


def slide(clip: Tensor, shift: Tensor, fill: Fill) -> Tensor:
    """Every row of the outcome from its own row, `shift` pixels to the right of itself: `move` along rows.

    One kernel in place of two, which makes it three times as fast.

    Args:
        clip: uint8 (T, C=3, H, W).
        shift: float (H,), of each row in pixels.
        fill: RGB in [0, 255] of what comes from outside.
    """
    width = clip.shape[-1]
    whole = shift.floor()
    weights = _kernel(shift - whole)
    edged = torch.cat([clip[..., :1], clip[..., :1], clip, clip[..., -1:], clip[..., -1:]], -1)
    places = torch.arange(width) + 0.5 + shift[:, None]
    inside = (places >= 0) & (places < width)
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
        moved = total.round_().clamp_(0, 255).to(torch.uint8)
        target = out[..., rows, left:right]
        target.copy_(torch.where(inside[rows, left:right], moved, target))
    return out


def _runs(starts: list[int]) -> list[tuple[int, slice]]:
    """Rows that follow each other and start alike, a few at a time."""
    return [
        (start, slice(rows[k], rows[min(k + _ROWS, len(rows)) - 1] + 1))
        for start, group in groupby(range(len(starts)), key=starts.__getitem__)
        for rows in [list(group)]
        for k in range(0, len(rows), _ROWS)
    ]


def _kernel(part: Tensor) -> Tensor:
    """Weights (N, 4) of the pixels at -1, 0, 1 and 2 for places (N,) in [0, 1) between 0 and 1."""
    a = -0.75
    near = torch.stack([part, 1 - part], -1)
    far = torch.stack([1 + part, 2 - part], -1)
    near = ((a + 2) * near - (a + 3)) * near**2 + 1
    far = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return torch.stack([far[:, 0], near[:, 0], near[:, 1], far[:, 1]], -1)


_MOST = 10.0  # the greatest magnitude
_CHANCE = 0.5  # of each operation drawn to be applied
_FRAMES = 8  # changed at a time: bounds the memory that full-size frames take as floating point


class Policy(NamedTuple):
    """What a policy such as `rand-m7-n4-mstd0.5-inc1` says.

    Attributes:
        magnitude: mean strength, in [0, 10].
        operations: how many are drawn for a clip, with replacement.
        deviation: of the strength, whose distribution is normal.
    """

    magnitude: int
    operations: int
    deviation: float


def parse_policy(text: str) -> Policy:
    """Read the notation of timm and PySlowFast: `rand`, then m (needed), n (2) and mstd (0), and inc1.

    Raises:
        UserError: the text is not such a policy.
    """
    word, *parts = text.split("-")
    found = [re.fullmatch(r"(m|n|mstd|inc)(\d+(?:\.\d+)?)", part) for part in parts]
    values = {match[1]: float(match[2]) for match in found if match}
    whole = all(values.get(key, 1.0).is_integer() for key in ("m", "n", "inc"))
    if word != "rand" or not all(found) or len(values) < len(parts) or not whole or "m" not in values:
        raise UserError(
            f"'{text}' is not a RandAugment policy: write one like rand-m7-n4-mstd0.5-inc1, with the "
            "magnitude m, the number of operations n (2 if left out) and the magnitude's deviation mstd (0)"
        )
    if values.get("inc") != 1:
        raise UserError(f"'{text}' must end in -inc1: only the operations that grow with m are there")
    if values["m"] > _MOST or values.get("n") == 0:
        raise UserError(f"'{text}': m must lie in 0 to {_MOST:g} and n must be at least 1")
    return Policy(int(values["m"]), int(values.get("n", 2)), values.get("mstd", 0.0))


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Some random operations one after another (arXiv 1909.13719), as timm and PySlowFast have them.

    Each is one of 15 drawn with replacement, is applied with probability 1/2, and has a strength of its own
    from a normal distribution about m, cut to [0, 10]. All frames get the same operations, strengths and
    signs. Moved pixels are interpolated bicubically, here with torch's kernel (a = -0.75) and rounded, where
    Pillow, which the published code moves frames with, has a = -1 and rounds down.

    Attributes:
        policy: the strength and number: VideoMAE's is the default, MAE-ST has rand-m7-mstd0.5-inc1 and MAR
            rand-m9-mstd0.5-inc1.
        fill: RGB in [0, 255] of what moves into the frame; MAR's is [124, 116, 104].
        cropped: change the clip after it is cropped, as MAR does on Something-Something, not before.
    """

    policy: str = "rand-m7-n4-mstd0.5-inc1"
    fill: tuple[int, int, int] = (128, 128, 128)
    cropped: bool = False

    def __post_init__(self) -> None:
        parse_policy(self.policy)
        if not all(0 <= value <= 255 for value in self.fill):
            raise UserError(f"fill must lie in 0 to 255, found {self.fill}")

    def __call__(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """uint8 (T, 3, H, W) to the same; what happens follows from the generator alone."""
        drawn = self.draw(rng)
        changed = torch.empty_like(clip)
        for part, out in zip(clip.split(_FRAMES), changed.split(_FRAMES), strict=True):
            for name, strength, sign in drawn:
                part = OPERATIONS[name](part, strength, sign, self.fill)
            out.copy_(part)
        return changed

    def draw(self, rng: np.random.Generator) -> list[tuple[str, float, int]]:
        """The operations to apply: (name, strength in [0, 10], sign)."""
        policy = parse_policy(self.policy)
        drawn = []
        for number in rng.integers(len(OPERATIONS), size=policy.operations):
            strength = min(max(float(rng.normal(policy.magnitude, policy.deviation)), 0.0), _MOST)
            sign = 1 if rng.random() < 0.5 else -1
            if rng.random() < _CHANCE:
                drawn.append((list(OPERATIONS)[number], strength, sign))
        return drawn


Operation = Callable[[Tensor, float, int, Fill], Tensor]


def rotate(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Turn about the middle by 3 degrees times the strength, counter-clockwise where the sign is plus."""
    height, width = clip.shape[-2:]
    angle = math.radians(sign * 3 * strength)
    c, s = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return move(clip, (c, -s, x - c * x + s * y, s, c, y - s * x - c * y), fill)


def shear_x(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Move each row by 0.03 of its height times the strength, to the left where the sign is plus."""
    return slide(clip, sign * 0.03 * strength * (torch.arange(clip.shape[-2]) + 0.5), fill)


def shear_y(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Move each column by 0.03 of its place times the strength, upward where the sign is plus."""
    return shear_x(clip.mT, strength, sign, fill).mT.contiguous()


def translate_x(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Move by 0.045 of the width times the strength, to the left where the sign is plus."""
    height, width = clip.shape[-2:]
    return slide(clip, torch.full((height,), sign * 0.045 * strength * width), fill)


def translate_y(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Move by 0.045 of the height times the strength, upward where the sign is plus."""
    return translate_x(clip.mT, strength, sign, fill).mT.contiguous()


def posterize(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Keep the 4 - int(0.4 * strength) highest bits."""
    bits = 4 - int(0.4 * strength)
    return clip & (256 - (1 << (8 - bits)))


def solarize(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Invert from 256 - int(25.6 * strength) upward."""
    levels = torch.arange(256)
    return _mapped(clip, torch.where(levels < 256 - int(25.6 * strength), levels, 255 - levels))


def solarize_add(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Add int(11 * strength) below 128."""
    levels = torch.arange(256)
    return _mapped(clip, torch.where(levels < 128, levels + int(11 * strength), levels))


def color(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Saturation times 1 + 0.09 * sign * strength."""
    return _away_from(_luma(clip).float(), clip, strength, sign)


def contrast(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Contrast about each frame's mean brightness times 1 + 0.09 * sign * strength."""
    means = (_luma(clip).float().mean((1, 2, 3)) + 0.5).floor()
    tables = (_away_from(mean, torch.arange(256), strength, sign) for mean in means)
    return torch.stack([_mapped(frame, table) for frame, table in zip(clip, tables, strict=True)])


def brightness(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Brightness times 1 + 0.09 * sign * strength."""
    return _mapped(clip, _away_from(torch.zeros(()), torch.arange(256), strength, sign))


def sharpness(clip: Tensor, strength: float, sign: int, fill: Fill) -> Tensor:
    """Sharpness times 1 + 0.09 * sign * strength: the difference from a smoothed frame, inside its border."""
    if min(clip.shape[-2:]) < 3:
        return clip
    wide = clip.to(torch.int16)
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = clip.float()
    inner = (..., slice(1, -1), slice(1, -1))
    smooth[inner] = ((box + 4 * wide[inner]).float() / 13 + 0.5).floor()
    return _away_from(smooth, clip, strength, sign)


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
"""Those that grow with the strength (`inc1`), by name."""


def _mapped(clip: Tensor, table: Tensor) -> Tensor:
    """Every level replaced by the table's, by Pillow, which is several times as fast at it as torch."""
    picture = Image.fromarray(clip.contiguous().numpy().reshape(-1, clip.shape[-1]))
    return torch.from_numpy(np.array(picture.point(table.tolist()))).view(clip.shape)


def _each_plane(clip: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Each channel of each frame changed by itself, as Pillow does with the channels of RGB."""
    planes = clip.contiguous().numpy().reshape(-1, *clip.shape[-2:])
    return torch.from_numpy(np.stack([np.asarray(change(Image.fromarray(plane))) for plane in planes])).view(
        clip.shape
    )


def _luma(clip: Tensor) -> Tensor:
    """Pillow's brightness of RGB: (T, 3, H, W) uint8 to (T, 1, H, W) int32 in [0, 255]."""
    red, green, blue = clip.to(torch.int32).unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)[:, None]


def _away_from(plain: Tensor, clip: Tensor, strength: float, sign: int) -> Tensor:
    """The clip's difference from a plain version of itself, times 1 + 0.09 * sign * strength."""
    factor = 1 + 0.09 * sign * strength
    return ((clip - plain) * factor).add_(plain).clamp_(0, 255).to(torch.uint8)
