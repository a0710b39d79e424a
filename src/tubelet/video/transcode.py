"""Any video to small, upright H.264 with a key frame every 16 frames: the form that trains fastest."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, pairwise
from math import inf
from pathlib import Path
from typing import Any

import av
from av.filter import Graph

from tubelet.video.encode import SQUARE, write_frames
from tubelet.video.pixels import Orientation, full_range
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
_IMAGES_RATE = Fraction(30)  # frames per second of a folder of images
_BT601 = 6  # as readers assume for untagged video, so that those that ignore tags are right as well
_UNKNOWN = 2
_LIMITED = 1


def write_training_video(
    path: Path,
    frames: Iterable[av.VideoFrame],
    short_side: int,
    rate: Fraction = _IMAGES_RATE,
    time_base: Fraction | None = None,
    longest_step: float = inf,
    pixel_aspect: Fraction = SQUARE,
) -> int:
    """Encode frames of any format and return their number.

    Args:
        path: the mp4 file to write.
        frames: the video.
        short_side: pixels; larger frames are scaled down.
        rate: frames per second.
        time_base: seconds per tick of the frames' own times, which are kept; None spaces frames evenly.
        longest_step: ticks that frames of one recording may be apart; where times are further apart or step
            back, recordings were joined, and the second continues the times of the first.
        pixel_aspect: width of a stored pixel divided by its height. Pixels are not stretched to be square:
            the file specifies the same ratio.

    Raises:
        VideoError: there are no frames.
    """
    rate = rate.limit_denominator(1001)
    clock = _Clock(rate, time_base, longest_step)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise VideoError("no frames in this file")
    if Orientation.of(first).turns % 2:
        pixel_aspect = 1 / pixel_aspect
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as output:
        converted = _converted(chain([first], frames), short_side, clock)
        return write_frames(output, converted, rate, options=_X264, pixel_aspect=pixel_aspect)


class _Clock:
    """Times to write, in strictly increasing ticks from 0.

    Attributes:
        base: seconds per tick.
    """

    def __init__(self, rate: Fraction, time_base: Fraction | None, longest_step: float) -> None:
        self.base = time_base or 1 / rate
        self._keeps_times = time_base is not None
        self._longest_step = longest_step
        self._step = max(1, round(1 / (rate * self.base)))
        self._time = -self._step  # of the last frame
        self._source_time: int | None = None  # of the last frame that has one
        self._start = 0  # of the recording, in the source's times

    def time(self, source_time: int | None) -> int:
        """Return the time to write for the next frame, which has a time in the source or None."""
        following = self._time + self._step
        if not self._keeps_times or source_time is None:
            self._time = following
            return following
        last = self._source_time
        if last is None or not 0 <= source_time - last <= self._longest_step:
            self._start = source_time - following
        self._source_time = source_time
        self._time = max(source_time - self._start, self._time + 1)
        return self._time


def _converted(frames: Iterable[av.VideoFrame], short_side: int, clock: _Clock) -> Iterator[av.VideoFrame]:
    """Yield frames in the size and colors to write, and with their times."""
    converter: _Converter | None = None
    for frame in frames:
        if converter is None or not converter.fits(frame):
            converter = _Converter(frame, converter.size if converter else _fit(frame, short_side))
        converted = converter(frame)
        converted.pts, converted.time_base = clock.time(frame.pts), clock.base
        yield converted


def _fit(frame: av.VideoFrame, short_side: int) -> tuple[int, int]:
    """Return the width and height to write: upright, with even sides."""
    height, width = Orientation.of(frame).size(frame)
    scale = min(1.0, short_side / min(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


_FILTERS_BY_TURNS = (), ("transpose=cclock",), ("hflip", "vflip"), ("transpose=clock",)


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
                scale["in_color_matrix"] = "smpte170m"  # as `pixels.py` assumes, too
        self._graph = Graph()
        filters = [
            self._graph.add(
                "buffer",
                f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000:"
                f"pixel_aspect=1/1:colorspace={matrix}:range={color_range}",
            )
        ]
        shown = Orientation.of(frame)
        for filter_and_options in (*(["vflip"] if shown.mirrored else []), *_FILTERS_BY_TURNS[shown.turns]):
            name, _, options = filter_and_options.partition("=")
            filters.append(self._graph.add(name, options))
        filters.append(self._graph.add("scale", ":".join(f"{key}={value}" for key, value in scale.items())))
        filters.append(self._graph.add("format", "pix_fmts=yuv420p"))
        filters.append(self._graph.add("buffersink"))
        for before, after in pairwise(filters):
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
