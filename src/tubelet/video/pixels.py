"""Convert decoded frames to RGB: a box of each frame is cut out, scaled and converted in one step.

The box is copied out of the frame's planes as stored, which moves half the bytes of RGB. FFmpeg then scales
and converts it at once: bilinear with antialiasing, accurately rounded, into planes, which are the channels
of the clip.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from torch import Tensor

from tubelet.errors import require_between
from tubelet.video.crop import Box, Scaling, crop_resize
from tubelet.video.sources import VideoError

_ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
_LIMITED, _FULL = ColorRange.MPEG, ColorRange.JPEG
_MAX_PIXELS = 2**15  # along a side, also in FFmpeg's scaler
_SCALED_TOGETHER_BYTES = 2**20
_RGB_PLANES = (2, 0, 1)  # positions of R, G and B among the planes of FFmpeg's gbrp
# From FFmpeg's AVColorSpace to its scaler's name of the same matrix. Video without a tagged matrix is taken
# to be BT.601 at any size, as FFmpeg's scaler does, and with it PyAV, decord and TorchCodec.
_MATRICES = {
    1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M, 9: Colorspace.BT2020, 10: Colorspace.BT2020,
}  # fmt: skip
# Formats whose planes can be cut: log2 of the chroma subsampling across and down, bytes of a sample.
_PLANAR = {
    f"yuv{j}{name}p{deep}": (across, down, 2 if deep else 1)
    for name, across, down in (("420", 1, 1), ("422", 1, 0), ("444", 0, 0))
    for j, deep in (("", ""), ("j", ""), ("", "10le"))
} | {"gbrp": (0, 0, 1)}


@dataclass(frozen=True)
class Crop:
    """A part of some frames of a video, to be read as one clip.

    Attributes:
        frames: frame numbers from 0, in any order, repeats allowed.
        box: (top, left, height, width) of the part in pixels, of the frames as shown; None for whole frames.
        size: (height, width) in pixels to scale the part to.
        flip: mirror left to right.
        scaling: `one_step` scales bilinearly with antialiasing while it converts to RGB; `antialias` does so
            after whole frames are converted as by `Video.read`, which is slower; `bilinear` does this without
            antialiasing.
    """

    frames: Sequence[int]
    box: Box | None
    size: tuple[int, int]
    flip: bool = False
    scaling: Scaling = "one_step"

    def __post_init__(self) -> None:
        height, width = self.size
        require_between(1, _MAX_PIXELS, height=height, width=width)

    def require_within(self, height: int, width: int, path: Path | str) -> None:
        """Raise a VideoError if the box is empty, or not all of it is in a frame of (height, width)."""
        top, left, rows, columns = self.box or (0, 0, height, width)
        if not (top >= 0 < rows <= height - top and left >= 0 < columns <= width - left):
            raise VideoError(
                f"{path}: expected a box (top, left, height, width) within frames of {width}x{height}, found "
                f"{(top, left, rows, columns)}"
            )


class Converter(Protocol):
    """Makes the clip of one crop, frame by frame."""

    @property
    def clip(self) -> Tensor:
        """uint8 (T, C=3, H, W), RGB; complete once every frame has been converted."""
        ...

    def convert(self, number: int, frame: av.VideoFrame, orientation: "Orientation") -> None:
        """Write a frame to its positions in the clip, if it has any."""
        ...


def converter_of(crop: Crop) -> Converter:
    """Return what makes the clip of a crop."""
    return OneStepConverter(crop) if crop.scaling == "one_step" else TwoStepConverter(crop)


class OneStepConverter:
    """Cuts the box out of each frame, and scales and converts it at once; see `Converter`."""

    def __init__(self, crop: Crop) -> None:
        self.clip = torch.empty(len(crop.frames), 3, *crop.size, dtype=torch.uint8)
        self._crop = crop
        self._pixels = self.clip.numpy()
        self._positions = _positions(crop.frames)
        self._scaler = VideoReformatter()  # keeps its tables while sizes and formats stay the same
        self._unpacker = VideoReformatter()
        self._cut: av.VideoFrame | None = None
        self._cut_planes: list[np.ndarray] = []

    def convert(self, number: int, frame: av.VideoFrame, orientation: "Orientation") -> None:
        """See `Converter.convert`."""
        positions = self._positions.get(number)
        if not positions:
            return
        self._write(positions[0], frame, orientation)
        for position in positions[1:]:
            self._pixels[position] = self._pixels[positions[0]]

    def _write(self, position: int, frame: av.VideoFrame, orientation: "Orientation") -> None:
        height, width = self._crop.size
        if orientation.turns % 2:
            height, width = width, height
        box = self._crop.box and orientation.stored(self._crop.box, frame.height, frame.width)
        part = self._part(frame, box) if box and box != (0, 0, frame.height, frame.width) else frame
        planes = _reformat(self._scaler, part, frame, height=height, width=width).planes
        for channel, plane in enumerate(_RGB_PLANES):
            pixels = orientation.upright(_samples(planes[plane], 1))
            if self._crop.flip:  # torch flips far faster than numpy, and by channel faster than all at once
                pixels = torch.from_numpy(pixels).flip(-1).numpy()
            self._pixels[position, channel] = pixels

    def _part(self, frame: av.VideoFrame, box: Box) -> av.VideoFrame:
        """Return a frame of only the box, which the next call overwrites."""
        if frame.format.name not in _PLANAR:
            frame = _reformat(self._unpacker, frame, frame)
        name = frame.format.name
        across, down, bytes_each = _PLANAR[name]
        if self._cut is None or self._cut.format.name != name:
            self._cut = av.VideoFrame(box.width, box.height, name)
            self._cut_planes = [_samples(plane, bytes_each) for plane in self._cut.planes]
        for k, (plane, target) in enumerate(zip(frame.planes, self._cut_planes, strict=True)):
            x, y = (across, down) if k else (0, 0)
            target[:] = _window(_samples(plane, bytes_each), box.top, box.left, target.shape, y, x)
        return self._cut


class TwoStepConverter:
    """Converts whole frames as `Video.read`, and then scales the box of several at once; see `Converter`.

    Torch scales frames that have no padding between their rows, and several together, twice as fast.
    """

    def __init__(self, crop: Crop) -> None:
        self._clip = torch.empty(len(crop.frames), 3, *crop.size, dtype=torch.uint8)
        self._crop = crop
        self._positions = _positions(crop.frames)
        self._scaler = VideoReformatter()
        self._waiting: list[tuple[list[int], np.ndarray]] = []  # positions and image

    @property
    def clip(self) -> Tensor:
        """See `Converter.clip`."""
        self._scale()
        return self._clip

    def convert(self, number: int, frame: av.VideoFrame, orientation: "Orientation") -> None:
        """See `Converter.convert`."""
        if positions := self._positions.get(number):
            image = _whole_rgb(self._scaler, frame, orientation)
            self._waiting.append((positions, image))
            if len(self._waiting) * image.nbytes > _SCALED_TOGETHER_BYTES:
                self._scale()

    def _scale(self) -> None:
        if not self._waiting:
            return
        images = torch.from_numpy(np.stack([image for _, image in self._waiting])).permute(0, 3, 1, 2)
        box = self._crop.box or Box(0, 0, *images.shape[-2:])
        scaled = crop_resize(images, box, self._crop.size, antialias=self._crop.scaling == "antialias")
        if self._crop.flip:
            scaled = scaled.flip(-1)
        for (positions, _), image in zip(self._waiting, scaled, strict=True):
            for position in positions:
                self._clip[position] = image
        self._waiting = []


def _positions(frames: Sequence[int]) -> dict[int, list[int]]:
    """Return the positions of each frame in a clip, by frame number."""
    found: dict[int, list[int]] = {}
    for position, number in enumerate(frames):
        found.setdefault(number, []).append(position)
    return found


class FrameConverter:
    """Makes whole frames as FFmpeg converts them without scaling: fast, and equal to PyAV's `to_ndarray`.

    Args:
        numbers: frame numbers, repeats allowed.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self._images: dict[int, np.ndarray] = {}
        self._scaler = VideoReformatter()  # one for all frames, one thread: setting up either costs more

    def convert(self, number: int, frame: av.VideoFrame, orientation: "Orientation") -> None:
        """Convert and keep a frame."""
        self._images[number] = _whole_rgb(self._scaler, frame, orientation)

    @property
    def clip(self) -> Tensor:
        """uint8 (T, C=3, H, W), RGB, once every frame has been converted."""
        frames = np.stack([self._images[number] for number in self._numbers])
        return torch.from_numpy(frames).permute(0, 3, 1, 2)


class Orientation(NamedTuple):
    """How to show a stored frame: mirror it top to bottom if at all, then turn it.

    Attributes:
        turns: quarter turns counterclockwise.
        mirrored: whether to mirror it before.
    """

    turns: int
    mirrored: bool

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "Orientation":
        """Return the orientation that the file specifies for a frame."""
        try:
            matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # PyAV does not know a kind of side data: assume that it is not mirrored
            matrix = None
        a, b, _, c, d = struct.unpack_from("=5i", matrix) if matrix else (1, 0, 0, 0, 1)
        return cls(round(frame.rotation / 90) % 4, a * d < b * c)

    def size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Return (height, width) of the frame as shown."""
        return (frame.width, frame.height) if self.turns % 2 else (frame.height, frame.width)

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """Return stored pixels (H, W, ...) as shown."""
        if self == (0, False):
            return pixels
        return np.ascontiguousarray(np.rot90(pixels[::-1] if self.mirrored else pixels, self.turns))

    def stored(self, box: Box, height: int, width: int) -> Box:
        """Convert a box of the shown frame to one of the stored frame, which is (height, width)."""
        top, left, box_height, box_width = box
        if self.turns == 1:
            box = Box(left, width - top - box_height, box_width, box_height)
        elif self.turns == 2:
            box = Box(height - top - box_height, width - left - box_width, box_height, box_width)
        elif self.turns == 3:
            box = Box(height - left - box_width, top, box_width, box_height)
        return box._replace(top=height - box.top - box.height) if self.mirrored else box


def full_range(frame: av.VideoFrame) -> bool:
    """Return whether black and white are 0 and 255, not 16 and 235."""
    return frame.format.name.startswith("yuvj") or frame.color_range == _FULL


def _whole_rgb(scaler: VideoReformatter, frame: av.VideoFrame, orientation: Orientation) -> np.ndarray:
    """Return a frame as RGB (H, W, C=3), upright."""
    return orientation.upright(scaler.reformat(frame, format="rgb24", threads=1).to_ndarray())


def _reformat(
    scaler: VideoReformatter,
    part: av.VideoFrame,
    frame: av.VideoFrame,
    *,
    height: int | None = None,
    width: int | None = None,
) -> av.VideoFrame:
    """Convert a part of a frame to planar RGB, by the frame's matrix and range."""
    if not part.format.name.startswith(("yuv", "nv", "p0")):
        return scaler.reformat(part, width, height, "gbrp", interpolation=_ACCURATE, threads=1)
    matrix = _MATRICES.get(int(frame.colorspace), Colorspace.ITU601)
    return scaler.reformat(
        part, width, height, "gbrp",
        src_colorspace=matrix, dst_colorspace=matrix, interpolation=_ACCURATE,
        src_color_range=_FULL if full_range(frame) else _LIMITED, dst_color_range=_FULL, threads=1,
    )  # fmt: skip


def _samples(plane: av.video.plane.VideoPlane, bytes_each: int) -> np.ndarray:
    """Return a view (rows, samples) of a plane."""
    kind = np.uint8 if bytes_each == 1 else np.uint16
    shape, strides = (plane.height, plane.width), (plane.line_size, bytes_each)
    return np.ndarray(shape, kind, memoryview(plane), strides=strides)


def _window(
    plane: np.ndarray, top: int, left: int, shape: tuple[int, ...], down: int, across: int
) -> np.ndarray:
    """Return the samples of a plane, of log2 subsampling (down, across), under a box of the frame.

    Where the box begins between two samples they are interpolated.
    """
    rows = _interpolated(plane, top, shape[0], down, 0)
    return _interpolated(rows, left, shape[1], across, 1)


def _interpolated(plane: np.ndarray, start: int, count: int, shift: int, axis: int) -> np.ndarray:
    """Return `count` samples along an axis from position `start / 2**shift` on."""
    first = start >> shift
    at_start = plane[first : first + count] if axis == 0 else plane[:, first : first + count]
    if not shift or not start % 2:
        return at_start
    end = min(first + 1 + count, plane.shape[axis])
    after = plane[first + 1 : end] if axis == 0 else plane[:, first + 1 : end]
    if after.shape[axis] < count:  # the last sample has no neighbor
        edge = plane[-1:] if axis == 0 else plane[:, -1:]
        after = np.concatenate([after, edge], axis)
    half = (at_start ^ after) >> 1  # no bits for a carry; the mean is rounded down in rows, up in columns
    return (at_start | after) - half if axis else (at_start & after) + half
