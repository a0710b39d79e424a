"""Frames in, one H.264 video out."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from av.filter import Graph

from tubelet.video.pixels import HIGH_DEFINITION, Orientation, full_range
from tubelet.video.reader import VideoError

OPTIONS = {
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
PICTURES_PER_SECOND = 30
_BT601 = 6  # what untagged small video is taken for, so that readers that know no tags are right as well
_UNKNOWN = 2
_LIMITED = 1


def _decode(container: Any, stream: av.VideoStream, bad: list[int]) -> Iterator[av.VideoFrame]:
    """All frames that can be had; `bad` counts the packets that cannot."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, IndexError):  # of a stream that turns up in the middle, too
            bad[0] += 1
            return
        try:
            yield from packet.decode()
        except av.FFmpegError:
            bad[0] += 1


def _write(
    part: Path,
    frames: Iterator[av.VideoFrame],
    short_side: int,
    rate: Fraction | int = PICTURES_PER_SECOND,
    time_base: Fraction | None = None,
    aspect: float = 1.0,
) -> int:
    """Encode frames; they keep their times where these have a base, and are evenly spaced otherwise.

    `aspect` is a pixel's width by its height.
    """
    rate = Fraction(rate).limit_denominator(1001)
    base = time_base or 1 / rate
    converter: _Converter | None = None
    written, first, last = 0, 0, -1
    with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream("libx264", rate=rate, options=OPTIONS)
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        for frame in frames:
            if converter is None or not converter.fits(frame):
                size = converter.size if converter else _fit(frame, short_side, aspect)
                converter = _Converter(frame, size)
                if not written:
                    context.width, context.height = size
                    context.pix_fmt, context.time_base = "yuv420p", base
                    context.colorspace, context.color_range = _BT601, _LIMITED
            if time_base and frame.pts is not None:
                first = frame.pts if not written else first
                time = max(frame.pts - first, last + 1)
            else:
                time = last + max(1, round(1 / (rate * base))) if written else 0
            small = converter(frame)
            small.pts, small.time_base, last = time, base, time
            output.mux(stream.encode(small))
            written += 1
        if not written:
            raise VideoError("no frames in this file")
        output.mux(stream.encode(None))
    return written


def _fit(frame: av.VideoFrame, short_side: int, aspect: float) -> tuple[int, int]:
    """Width and height to write: upright, square pixels, even sides."""
    width, height = frame.width * (aspect if aspect > 0 else 1.0), float(frame.height)
    if Orientation.of(frame).turns % 2:
        width, height = height, width
    scale = min(1.0, short_side / min(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


_TURNS = (), ("transpose=cclock",), ("hflip", "vflip"), ("transpose=clock",)


class _Converter:
    """Turns frames upright, scales them and brings their colors into one form."""

    def __init__(self, frame: av.VideoFrame, size: tuple[int, int]) -> None:
        self.size = size
        self._of = self._key(frame)
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
        for step in (*(["vflip"] if shown.mirrored else []), *_TURNS[shown.turns]):
            name, _, options = step.partition("=")
            chain.append(self._graph.add(name, options))
        chain.append(self._graph.add("scale", ":".join(f"{key}={value}" for key, value in scale.items())))
        chain.append(self._graph.add("format", "pix_fmts=yuv420p"))
        chain.append(self._graph.add("buffersink"))
        for before, after in pairwise(chain):
            before.link_to(after)
        self._graph.configure()

    @staticmethod
    def _key(frame: av.VideoFrame) -> tuple[Any, ...]:
        return (
            frame.width,
            frame.height,
            frame.format.name,
            Orientation.of(frame),
            int(frame.colorspace),
            int(frame.color_range),
        )

    def fits(self, frame: av.VideoFrame) -> bool:
        """Whether this is a converter for frames such as this one."""
        return self._key(frame) == self._of

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame as it is to be encoded."""
        self._graph.vpush(frame)
        out = self._graph.vpull()
        out.pict_type = 0  # the encoder chooses the kinds of frames
        return out
