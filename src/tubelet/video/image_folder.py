"""Folders of numbered images, read as videos."""

import os
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from tubelet.video.crop import Box, crop_resize
from tubelet.video.index import VideoIndex
from tubelet.video.pixels import Crop
from tubelet.video.sources import Deadline, IndexChanged, VideoError, video_errors

_MAX_16_BITS = 2**16 - 1
# How to show a stored image by its EXIF orientation: mirror it left to right or not, then turn it by so many
# quarters counterclockwise.
_UPRIGHT = 1
_EXIF_TURNS = {
    2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1),
}  # fmt: skip
_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"))


def is_image(path: PurePath) -> bool:
    """Return whether a name is an image's; hidden files such as macOS's `._1.jpg` are not images."""
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def folder_images(folder: Path) -> list[Path]:
    """Return the images of a folder, with numbers in their names in numeric order.

    Raises:
        VideoError: there are no images, or one is not a regular file: reading a pipe waits for its writer.
    """
    with os.scandir(folder) as entries:
        found = [(Path(entry.path), entry.is_file()) for entry in entries]
    images = [path for path, _ in found if is_image(path)]
    if odd := [path for path, is_file in found if is_image(path) and not is_file]:
        raise VideoError(f"{min(odd)}: expected an image, found what is not a regular file; remove it")
    if not images:
        raise VideoError(
            f"{folder}: no images in this folder, so it is not a video. To read the videos in it, give their "
            f"files, such as {folder / '*.mp4'}"
        )
    return sorted(images, key=lambda path: _natural_order(path.stem))


def size_and_version(path: Path) -> tuple[int, int | str]:
    """Return a file's size in bytes and time of change in nanoseconds, by which changes are noticed.

    Of a folder: the size of its images together, and a text with its own time of change, the newest one of an
    image and the number of images. Images written again in place do not change the folder's own.

    Raises:
        OSError: it is missing or cannot be read.
    """
    found = path.stat()
    if not path.is_dir():
        return found.st_size, found.st_mtime_ns
    with os.scandir(path) as entries:
        images = [entry.stat() for entry in entries if is_image(PurePath(entry.name))]
    newest = max((image.st_mtime_ns for image in images), default=0)
    return sum(image.st_size for image in images), f"{found.st_mtime_ns} {newest} {len(images)}"


class ImageFolder:
    """A folder of images as a video whose every frame is a key frame and whose frame rate is unknown.

    It has the methods of `tubelet.video.reader.Video`.

    Raises:
        VideoError: there are no images, one is not a regular file, or the first is broken.
    """

    stated_duration_s = 0.0

    def __init__(self, folder: Path, deadline: Deadline) -> None:
        self._folder = folder
        self._deadline = deadline
        with video_errors(deadline):
            self._paths = folder_images(folder)
        height, width = read_image(self._paths[0]).shape[:2]
        every = range(len(self._paths))
        self.index = VideoIndex(every, every, 0.0, width, height, self._paths[0].suffix.lower().lstrip("."))

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Read whole frames: uint8 (len(numbers), C=3, H, W), RGB."""
        frames = self._frames(numbers)
        height, width = frames[numbers[0]].shape[-2:]
        self.index = replace(self.index, height=height, width=width)
        return torch.stack([frames[number] for number in numbers])

    def read_crops(self, crops: Sequence[Crop]) -> list[Tensor]:
        """Read crops: for each uint8 (T, C=3, H, W), RGB."""
        frames = self._frames([number for crop in crops for number in crop.frames])
        height, width = next(iter(frames.values())).shape[-2:]
        if (height, width) != (self.index.height, self.index.width):
            self.index = replace(self.index, height=height, width=width)
            raise IndexChanged(f"{self._folder}: its first image is of another size; choose crops again")
        for crop in crops:
            crop.require_within(height, width, self._folder)
        return [_crop(frames, crop) for crop in crops]

    def _frames(self, numbers: Sequence[int]) -> dict[int, Tensor]:
        frames = {}
        for number in sorted(self.index.require(numbers, self._folder)):
            self._deadline.check()
            frames[number] = torch.from_numpy(read_image(self._paths[number])).permute(2, 0, 1)
        if len({frame.shape for frame in frames.values()}) > 1:
            raise VideoError(f"{self._folder}: the frames' size changes within the folder")
        return frames


def _crop(frames: dict[int, Tensor], crop: Crop) -> Tensor:
    clip = torch.stack([frames[number] for number in crop.frames])
    box = crop.box or Box(0, 0, *clip.shape[-2:])
    clip = crop_resize(clip, box, crop.size, antialias=crop.scaling != "bilinear")
    return clip.flip(-1) if crop.flip else clip


def read_image(path: Path) -> np.ndarray:
    """Read an image as uint8 (H, W, 3), RGB: 16 bits scaled to 8, turned as its EXIF orientation specifies.

    Raises:
        VideoError: it is broken, or its pixels are neither of 8 nor of 16 bits.
    """
    try:
        with Image.open(path) as image:
            image.load()  # only then are all formats' orientations known, and TIFF's applied
            pixels = _rgb(image)
            orientation = _orientation(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: cannot be read as an image ({error})") from error
    if orientation in _EXIF_TURNS:
        mirrored, turns = _EXIF_TURNS[orientation]
        pixels = np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))
    return pixels


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise ValueError("expected 8 or 16 bits per channel, found floating-point numbers")
    if not image.mode.startswith("I"):
        return np.array(image.convert("RGB"))
    deep = np.array(image)  # gray of more than 8 bits, which `convert` would clip
    if deep.min() < 0 or deep.max() > _MAX_16_BITS:
        raise ValueError(
            f"expected at most 16 bits per channel, found values from {deep.min()} to {deep.max()}"
        )
    gray = np.rint(deep * (255 / _MAX_16_BITS)).astype(np.uint8)
    return gray[..., None].repeat(3, axis=-1)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):  # the pixels are readable
        return _UPRIGHT


def _natural_order(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
