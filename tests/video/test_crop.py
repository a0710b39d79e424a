"""Sizes and positions of crops, against what the published test code computes, in exact arithmetic."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tubelet.clips import GeometryName
from tubelet.video.crop import GEOMETRIES, Box, crop_resize, spread_crops

SIZES = [(256, 340), (340, 256), (240, 320), (256, 256), (270, 480), (392, 854), (854, 392), (224, 299)]
SIZES += [(height, width) for height in range(200, 260, 7) for width in range(180, 500, 11)]


def exact(longer: int, shorter: int) -> Fraction:
    return Fraction(224 * longer, shorter)


def ratio_first(longer: int, shorter: int) -> Fraction:
    """The ratio in floating point, as MAE-ST and MAR compute it, before it is scaled."""
    return Fraction(float(np.float64(longer) / np.float64(shorter) * np.float64(224)))


# How the longer side is scaled and made whole, and where the middle of three crops and a single crop start.
PEERS: dict[GeometryName, tuple[Any, Any, Any, Any]] = {
    "default": (exact, math.floor, math.floor, math.floor),
    "videomae": (exact, math.floor, math.floor, round),
    "mae_st": (ratio_first, math.floor, math.ceil, math.ceil),
    "mar": (ratio_first, math.floor, math.floor, math.floor),
    "mmaction2": (exact, lambda length: math.floor(length + Fraction(1, 2)), math.floor, math.floor),
    "huggingface": (exact, math.floor, math.floor, math.floor),
}


def test_every_geometry_has_the_published_sizes_and_positions():
    assert PEERS.keys() == GEOMETRIES.keys()
    for name, (scale, whole, middle, single) in PEERS.items():
        for height, width in SIZES:
            longer = whole(scale(max(height, width), min(height, width)))
            half = Fraction(longer - 224, 2)
            last = 2 * middle(half) if name == "mmaction2" else longer - 224
            geometry = GEOMETRIES[name]
            scaled = geometry.scaled(height, width, 224)
            assert scaled == ((224, longer) if height <= width else (longer, 224)), (name, height, width)
            assert geometry.starts(longer - 224, 3) == [0, middle(half), last], (name, height, width)
            assert geometry.starts(longer - 224, 1) == [single(half)], (name, height, width)


@pytest.mark.parametrize(
    ("name", "width", "starts"),
    [
        ("default", 297, [0, 36, 73]),
        ("videomae", 297, [0, 36, 73]),
        ("mae_st", 297, [0, 37, 73]),
        ("mar", 297, [0, 36, 73]),
        ("mmaction2", 298, [0, 37, 74]),
    ],
)
def test_the_geometries_of_a_frame_of_256_by_340(name: GeometryName, width: int, starts: list[int]):
    geometry = GEOMETRIES[name]
    assert geometry.scaled(256, 340, 224) == (224, width)
    assert geometry.scaled(340, 256, 224) == (width, 224)
    assert geometry.starts(width - 224, 3) == starts


def test_a_single_crop_is_rounded_as_published():
    for free, positions in [(73, (36, 36, 37, 36)), (75, (37, 38, 38, 37))]:
        names: tuple[GeometryName, ...] = ("default", "videomae", "mae_st", "mmaction2")
        assert tuple(GEOMETRIES[name].starts(free, 1)[0] for name in names) == positions


def test_other_numbers_of_crops_begin_and_end_at_the_edges():
    for name, geometry in GEOMETRIES.items():
        for free in range(40):
            for crops in (2, 4, 5):
                starts = geometry.starts(free, crops)
                rest = free % (crops - 1) if name == "mmaction2" else 0
                assert starts == sorted(starts)
                assert (starts[0], starts[-1]) == (0, free - rest)


def test_crops_are_cut_where_the_geometry_says():
    clip = torch.arange(297, dtype=torch.int16).expand(2, 3, 224, 297)
    crops = spread_crops(clip, 3, GEOMETRIES["mae_st"])
    assert [int(crop[0, 0, 0, 0]) for crop in crops] == [0, 37, 73]
    tall = spread_crops(clip.transpose(-1, -2), 3, GEOMETRIES["mae_st"])
    assert [int(crop[0, 0, 0, 0]) for crop in tall] == [0, 37, 73]


def bilinear_by_hand(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Of the four pixels around each point; pixels are squares whose centers are at halves."""

    def around(count: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.clip((np.arange(count) + 0.5) * length / count - 0.5, 0, None)
        first = np.minimum(at.astype(int), length - 1)
        return first, np.minimum(first + 1, length - 1), at - first

    y, below, dy = around(height, image.shape[0])
    x, right, dx = around(width, image.shape[1])
    top = image[y][:, x] * (1 - dx) + image[y][:, right] * dx
    bottom = image[below][:, x] * (1 - dx) + image[below][:, right] * dx
    return top * (1 - dy)[:, None] + bottom * dy[:, None]


def test_without_antialiasing_a_pixel_is_made_of_the_four_around_it():
    image = torch.randint(0, 256, (3, 61, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for size in [(32, 41), (61, 100), (20, 20), (100, 131)]:
        scaled = crop_resize(image, Box(0, 0, 61, 80), size, antialias=False)
        assert scaled.dtype == torch.uint8
        for channel in range(3):
            expected = bilinear_by_hand(image[channel].numpy().astype(float), *size)
            assert np.abs(scaled[channel].numpy() - expected).max() < 0.501, size
