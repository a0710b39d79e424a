"""Frames in, one video file out. Nothing here imports torch, so that a worker process starts quickly."""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt

from tubelet.errors import UserError

SQUARE = Fraction(1)
"""The aspect ratio of square pixels."""


def require_x264() -> None:
    """Raise a UserError if PyAV cannot encode H.264: not every build of FFmpeg includes libx264."""
    if "libx264" not in av.codec.codecs_available:
        raise UserError("this build of PyAV has no libx264 encoder; `pip install av` installs one that has")


def write_h264(
    file: Path | BinaryIO,
    frames: Iterable[npt.NDArray[np.uint8]],
    fps: Fraction | float,
    options: Mapping[str, str] | None = None,
) -> None:
    """Write RGB frames to an mp4 file as H.264 (4:2:0).

    Args:
        file: where to write; an existing file is overwritten.
        frames: at least one, uint8 (H, W, 3), all of one size. An odd side gets its last row or column twice.
        fps: frames per second.
        options: options of libx264, such as {"crf": "18"}.

    Raises:
        UserError: PyAV cannot encode H.264.
    """
    require_x264()
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(file) if isinstance(file, Path) else file, "w", format="mp4") as container:
        write_frames(container, rgb_frames(map(_with_even_sides, frames), rate), rate, options=options)


def _with_even_sides(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width, _ = frame.shape
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def rgb_frames(frames: Iterable[npt.NDArray[np.uint8]], rate: Fraction) -> Iterator[av.VideoFrame]:
    """Yield RGB frames (H, W, 3) as evenly timed video frames."""
    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = number, 1 / rate
        yield frame


def write_frames(
    container: av.container.OutputContainer,
    frames: Iterable[av.VideoFrame],
    rate: Fraction,
    *,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    pixel_aspect: Fraction = SQUARE,
) -> int:
    """Encode frames as a new 4:2:0 video stream of an open file, and return their number.

    The first frame decides size, time base and color tags. `pixel_aspect` is the width of a pixel divided by
    its height; players use it, readers here do not.
    """
    stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
    assert isinstance(stream, av.VideoStream)
    context, count = stream.codec_context, 0
    for frame in frames:
        if not count:
            context.width, context.height, context.pix_fmt = frame.width, frame.height, "yuv420p"
            context.time_base = frame.time_base or 1 / rate
            context.sample_aspect_ratio = pixel_aspect
            context.colorspace, context.color_range = int(frame.colorspace), int(frame.color_range)
        container.mux(stream.encode(frame))
        count += 1
    if count:
        container.mux(stream.encode(None))
    return count
