"""Videos in the form that trains fastest: small H.264 with a key frame every sixteen frames, upright.

The short side is scaled down, rotation flags and pixels that are not square are applied, time stamps are
kept, and colors become eight bits of limited range with their tags; there is no sound. docs/data.md says why.
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import av
from av.filter import Graph
from PIL import Image

from tubelet.data.folders import folder_pictures
from tubelet.data.index import times_are_guesses, video_stream
from tubelet.data.pixels import HIGH_DEFINITION, Orientation, full_range
from tubelet.data.sources import Deadline, FetchError, open_source
from tubelet.data.video import VideoError, probe
from tubelet.data.x264 import require_x264
from tubelet.errors import UserError
from tubelet.files import replacing
from tubelet.prepare.facts import Facts
from tubelet.prepare.places import Stamp
from tubelet.prepare.pool import Lost

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
"""x264's settings: little lies between a key frame and a clip's frames, three frames of four are B-frames
that no other needs, so that a decoder can drop those that nobody wants, and what is decoded costs little."""

PICTURES_PER_SECOND = 30
_READ_AHEAD = 2**22  # bytes, of a file elsewhere: all of it is wanted
_BT601 = 6  # what untagged small video is taken for, so that readers that know no tags are right as well
_UNKNOWN = 2
_LIMITED = 1


@dataclass(frozen=True)
class EncodeJob:
    """One video to write.

    Attributes:
        source: the file, a folder of pictures, or a URL.
        stamp: of the source.
        target: the file to write.
        short_side: in pixels; a smaller video keeps its size.
        offset: number of the first picture, where the source is a folder of pictures.
        frames: how many of them.
    """

    source: str
    stamp: tuple[int, int | str]
    target: str
    short_side: int
    offset: int | None = None
    frames: int | None = None

    @classmethod
    def of(
        cls,
        source: str,
        stamp: Stamp,
        target: Path,
        short_side: int,
        offset: int | None = None,
        frames: int | None = None,
    ) -> "EncodeJob":
        """The job for a source as it is now."""
        return cls(source, (stamp.size, stamp.time), str(target), short_side, offset, frames)


@dataclass(frozen=True)
class Encoded(Facts):
    """What was written, or in `error` why not; `note` says what of the source is lost.

    Attributes:
        size: of the file in bytes.
    """

    size: int = 0


def encode_file(job: EncodeJob) -> Encoded | Lost:
    """Write a video, whole or not at all; what is wrong with the source is in the answer.

    Lost where the source is elsewhere and could not be had: the network may be to blame.

    Raises:
        UserError: the disk is full, or PyAV cannot encode H.264.
    """
    require_x264()
    target = Path(job.target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(target) as part:
            if Path(job.source).is_dir():
                written, note = _write(part, _pictures(job), job.short_side), ""
            else:
                written, note = _transcode(job.source, part, job.short_side)
            index = probe(part)
            if len(index) != written:
                raise VideoError(f"{len(index)} of {written} frames arrived in the file")
            return Encoded(part.stat().st_size, note=note).with_index(index)
    except FetchError as error:
        return Lost(str(error).removeprefix(f"{job.source}: "))
    except (av.FFmpegError, OSError, VideoError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left for {target}; make room and run the same again: it goes on from there"
            ) from None
        reason = str(getattr(error, "strerror", None) or error).removeprefix(f"{job.source}: ")
        return Encoded(error=f"cannot be encoded ({reason})")


def _transcode(source: str, part: Path, short_side: int) -> tuple[int, str]:
    """Frames written, and what is lost."""
    with (
        open_source(
            source, Deadline(source, inf), _READ_AHEAD
        ) as opened,  # stores have time limits of their own
        av.open(opened, metadata_errors="replace") as container,
    ):
        stream = video_stream(container, source)
        bad = [0]
        frames = _decode(container, stream, bad)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        base = None if times_are_guesses(container) else stream.time_base
        written = _write(part, frames, short_side, rate, base, float(stream.sample_aspect_ratio or 1))
    return written, f"{bad[0]} of its packets do not decode and are left out" if bad[0] else ""


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


def _pictures(job: EncodeJob) -> Iterator[av.VideoFrame]:
    """A folder's pictures in order: all, or as many as the job says from its first on."""
    paths = folder_pictures(Path(job.source))
    if job.offset is not None and job.frames is not None:
        paths = [path for path in paths if job.offset <= _number(path) < job.offset + job.frames]
    for path in paths:
        try:
            with Image.open(path) as picture:
                yield av.VideoFrame.from_image(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise VideoError(f"{path.name} cannot be read as a picture ({error})") from error


def _number(path: Path) -> int:
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else -1


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
