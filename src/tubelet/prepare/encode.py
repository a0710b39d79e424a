"""Videos in the form that trains fastest: small H.264 with a key frame every sixteen frames, upright.

The short side is scaled down, rotation flags and pixels that are not square are applied, time stamps are
kept, and colors become eight bits of limited range with their tags; there is no sound. docs/data.md says why.
"""

import errno
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from pathlib import Path, PurePosixPath

import av
from PIL import Image

from tubelet.errors import UserError
from tubelet.files import replacing
from tubelet.prepare.places import Stamp
from tubelet.prepare.plan import Facts, Item
from tubelet.prepare.pool import JobFailed
from tubelet.video.encode import _decode, _write
from tubelet.video.image_folder import folder_pictures
from tubelet.video.index import times_are_guesses, video_stream
from tubelet.video.reader import VideoError, probe
from tubelet.video.sources import Deadline, FetchError, open_source
from tubelet.video.x264 import require_x264

"""x264's settings: little lies between a key frame and a clip's frames, three frames of four are B-frames
that no other needs, so that a decoder can drop those that nobody wants, and what is decoded costs little."""
_READ_AHEAD = 2**22  # bytes, of a file elsewhere: all of it is wanted


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


def encode_file(job: EncodeJob) -> Encoded | JobFailed:
    """Write a video, whole or not at all; what is wrong with the source is in the answer.

    JobFailed where the source is elsewhere and could not be had: the network may be to blame.

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
        return JobFailed(str(error).removeprefix(f"{job.source}: "))
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


def targets_of(items: Sequence[Item], videos: Path) -> dict[Item, Path]:
    """The file that each video is written to: its own relative path, ending in .mp4.

    The short name where no other video has the same, or else the long one, numbered where that is taken.
    """
    sources: dict[tuple[str, int | None, int | None], Item] = {}
    for item in items:
        sources.setdefault((item.path, *part_of(item)), item)
        if Path(item.path).is_relative_to(videos):
            raise UserError(
                f"{item.path} lies where --encode writes; choose another folder than the videos' with --out"
            )
    names = {source: _mp4(item, short=True) for source, item in sources.items()}
    often = Counter(name.casefold() for name in names.values())  # many disks tell no a from an A
    taken = {name for name, count in often.items() if count == 1}
    for source, item in sources.items():
        if often[names[source].casefold()] > 1:
            name = long = _mp4(item, short=False)
            numbers = itertools.count(2)
            while name.casefold() in taken:
                name = f"{long.removesuffix('.mp4')}-{next(numbers)}.mp4"
            taken.add(name.casefold())
            names[source] = name
    return {item: videos / names[item.path, *part_of(item)] for item in items}


def part_of(item: Item) -> tuple[int, int] | tuple[None, None]:
    """The first picture and how many, of a part of a folder of pictures."""
    if item.offset is None or item.frames is None or not Path(item.path).is_dir():
        return None, None
    return item.offset, item.frames


def _mp4(item: Item, *, short: bool) -> str:
    name = PurePosixPath(item.name)
    if item.offset is not None:
        count = "" if short or item.frames is None else f"_{item.frames}"
        name = name.with_name(f"{name.name}_{item.offset:06}{count}")
    keep = not short or Path(item.path).is_dir()
    return (name.with_name(f"{name.name}.mp4") if keep else name.with_suffix(".mp4")).as_posix()
