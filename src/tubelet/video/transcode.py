"""Any video to small, upright H.264 with a key frame every 16 frames: the form that trains fastest."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from av.filter import Graph

from tubelet.video.encode import write_frames
from tubelet.video.pixels import HIGH_DEFINITION, Orientation, full_range
from tubelet.video.sources import VideoError

# Few frames are between a key frame and those of a clip; three of four are B-frames that no other frame
# needs, so that a decoder can skip them; and what is decoded costs little.
_X264 = {
    "preset": "medium",
    "crf": "23",
    "tune": "fastdecode",
    "g": "16",
    "keyint_min": "16",
    "sc_threshold": "0",
    "bf": "3",
    "x264-params": "b-adapt=0:b-pyramid=none",
    "threads": "1",
}
_DEFAULT_RATE = Fraction(30)  # frames per second of a folder of images
_BT601 = 6  # readers assume it for small videos, so that those that ignore tags are right as well
_UNKNOWN = 2
_LIMITED = 1


def write_training_video(
    path: Path,
    frames: Iterable[av.VideoFrame],
    short_side: int,
    rate: Fraction = _DEFAULT_RATE,
    time_base: Fraction | None = None,
    aspect: float = 1.0,
) -> int:
    """Encode frames of any format and return their number.

    Args:
        path: the mp4 file to write.
        frames: the video.
        short_side: pixels; larger frames are scaled down.
        rate: frames per second.
        time_base: seconds per tick of the frames' own times, which are kept; None spaces frames evenly.
        aspect: width of a pixel divided by its height.

    Raises:
        VideoError: there are no frames.
    """
    rate = rate.limit_denominator(1001)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as output:
        converted = _converted(frames, short_side, rate, time_base, aspect)
        count = write_frames(output, converted, rate, options=_X264)
        if not count:
            raise VideoError("no frames in this file")
    return count


def _converted(
    frames: Iterable[av.VideoFrame],
    short_side: int,
    rate: Fraction,
    time_base: Fraction | None,
    aspect: float,
) -> Iterator[av.VideoFrame]:
    """Yield frames in the size and colors to write, timed from 0 in strictly increasing ticks."""
    base = time_base or 1 / rate
    step = max(1, round(1 / (rate * base)))
    converter: _Converter | None = None
    first, time = 0, -1
    for number, frame in enumerate(frames):
        if converter is None or not converter.fits(frame):
            converter = _Converter(frame, converter.size if converter else _fit(frame, short_side, aspect))
        if time_base and frame.pts is not None:
            first = first if number else frame.pts
            time = max(frame.pts - first, time + 1)
        else:
            time = time + step if number else 0
        converted = converter(frame)
        converted.pts, converted.time_base = time, base
        yield converted


def _fit(frame: av.VideoFrame, short_side: int, aspect: float) -> tuple[int, int]:
    """Return the width and height to write: upright, with square pixels and even sides."""
    width, height = frame.width * (aspect if aspect > 0 else 1.0), float(frame.height)
    if Orientation.of(frame).turns % 2:
        width, height = height, width
    scale = min(1.0, short_side / min(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


_TURNS = (), ("transpose=cclock",), ("hflip", "vflip"), ("transpose=clock",)


class _Converter:
    """A filter graph that turns frames upright, scales them and converts them to BT.601 of limited range."""

    def __init__(self, frame: av.VideoFrame, size: tuple[int, int]) -> None:
        self.size = size
        self._format = self._format_of(frame)
        matrix, color_range = int(frame.colorspace), int(frame.color_range)
        scale = {
            "w": size[0],
            "h": size[1],
            "flags": "bicubic+accurate_rnd",
            "out_color_matrix": "smpte170m",
            "out_range": "limited",
        }
        if not frame.format.is_rgb:
            scale["in_range"] = "full" if full_range(frame) else "limited"
            if matrix in (_UNKNOWN, 0):
                scale["in_color_matrix"] = "bt709" if frame.height >= HIGH_DEFINITION else "smpte170m"
        self._graph = Graph()
        chain = [
            self._graph.add(
                "buffer",
                f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000:"
                f"pixel_aspect=1/1:colorspace={matrix}:range={color_range}",
            )
        ]
        shown = Orientation.of(frame)
        for filter_and_options in (*(["vflip"] if shown.mirrored else []), *_TURNS[shown.turns]):
            name, _, options = filter_and_options.partition("=")
            chain.append(self._graph.add(name, options))
        chain.append(self._graph.add("scale", ":".join(f"{key}={value}" for key, value in scale.items())))
        chain.append(self._graph.add("format", "pix_fmts=yuv420p"))
        chain.append(self._graph.add("buffersink"))
        for before, after in pairwise(chain):
            before.link_to(after)
        self._graph.configure()

    @staticmethod
    def _format_of(frame: av.VideoFrame) -> tuple[Any, ...]:
        return (
            frame.width,
            frame.height,
            frame.format.name,
            Orientation.of(frame),
            int(frame.colorspace),
            int(frame.color_range),
        )

    def fits(self, frame: av.VideoFrame) -> bool:
        """Return whether this graph was made for frames of this size, format and orientation."""
        return self._format_of(frame) == self._format

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        self._graph.vpush(frame)
        converted = self._graph.vpull()
        converted.pict_type = 0  # the encoder chooses between I, P and B
        converted.colorspace, converted.color_range = _BT601, _LIMITED
        return converted
