"""Folders of numbered pictures, read as if each were a video."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tubelet.video.crop import Box, crop_resize
from tubelet.video.index import VideoIndex
from tubelet.video.pixels import Crop
from tubelet.video.sources import Deadline, VideoError

_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"))


def is_picture(path: PurePath) -> bool:
    """Whether a name is that of a picture; hidden ones are none, such as `._1.jpg`, which macOS adds."""
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def folder_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, numbers in their names in numeric order.

    Raises:
        VideoError: there are none.
    """
    pictures = [path for path in folder.iterdir() if is_picture(path)]
    if not pictures:
        raise VideoError(
            f"{folder}: no images in this folder, so it is no video; of a folder of videos give the files, "
            f"such as {folder / '*.mp4'}"
        )
    return sorted(pictures, key=lambda path: _natural(path.stem))


def folder_index(folder: Path) -> VideoIndex:
    """A folder as a video whose every frame is a key frame; how fast it runs is not known.

    Raises:
        VideoError: there are no pictures, or the first is broken.
    """
    pictures = folder_pictures(folder)
    picture = _read(pictures[0])
    every = range(len(pictures))
    height, width = picture.shape[:2]
    return VideoIndex(every, every, 0.0, width, height, pictures[0].suffix.lower().lstrip("."))


def folder_frames(folder: Path, numbers: Sequence[int], deadline: Deadline) -> dict[int, Tensor]:
    """uint8 (C=3, H, W), RGB, by frame number.

    Raises:
        VideoError: a picture cannot be read, their sizes differ, or the time is over.
    """
    pictures = folder_pictures(folder)
    frames = {}
    for number in sorted(set(numbers)):
        deadline.check()
        frames[number] = torch.from_numpy(_read(pictures[number])).permute(2, 0, 1)
    if len({frame.shape for frame in frames.values()}) > 1:
        raise VideoError(f"{folder}: the frames' size changes within the folder")
    return frames


def crop_frames(frames: dict[int, Tensor], crop: Crop) -> Tensor:
    """One crop of frames that are RGB already: uint8 (T, C, H, W)."""
    clip = torch.stack([frames[number] for number in crop.frames])
    clip = crop_resize(clip, crop.box or Box(0, 0, *clip.shape[-2:]), crop.size)
    return clip.flip(-1) if crop.flip else clip


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: cannot be read as an image ({error})") from error


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
