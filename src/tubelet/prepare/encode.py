"""Encode videos in the form that trains fastest: small upright H.264 with a key frame every sixteen frames.

The short side is scaled down, rotation flags are applied, the pixel aspect ratio and time stamps are kept,
and colors become eight bits of limited range with their tags; sound is left out. docs/data.md says why.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path, PurePosixPath

import av

from tubelet.data.manifest import seconds_text
from tubelet.errors import UserError
from tubelet.files import is_disk_full, replacing
from tubelet.prepare.plan import ListedVideo, VideoProperties
from tubelet.prepare.pool import JobFailed
from tubelet.video.demux import (
    DEFAULT_RATE,
    ReadableFrames,
    frame_packets,
    longest_step,
    stated_rate,
    times_are_guesses,
)
from tubelet.video.encode import SQUARE, require_x264
from tubelet.video.image_folder import folder_images, read_image
from tubelet.video.index import header_index, scan_index, video_stream
from tubelet.video.packets import Decoding, FewerFramesError, WrongIndexError
from tubelet.video.reader import VideoError, no_frames_between, open_video
from tubelet.video.sources import Deadline, FetchError, open_source
from tubelet.video.transcode import write_training_video

_READ_AHEAD = 2**22  # bytes of a remote file, all of which is needed


@dataclass(frozen=True)
class EncodeJob:
    """One video to write.

    Attributes:
        source: the file, an image folder, or a URL.
        target: the file to write.
        short_side: in pixels; a smaller video keeps its size.
        part: the first image and the number of images, for a part of an image folder.
        start: seconds at which the segment to write begins; None for the start of the video.
        end: seconds at which it ends; None for the end of the video.
    """

    source: str
    target: str
    short_side: int
    part: tuple[int, int] | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class EncodeResult(VideoProperties):
    """The properties of an encoded video, or in `error` why it could not be encoded.

    Attributes:
        size: of the file in bytes.
    """

    size: int = 0


def encode_file(job: EncodeJob) -> EncodeResult | JobFailed:
    """Write a video, or nothing if that fails; what is wrong with the source is in the result.

    If a remote source cannot be fetched, the job has failed: the network may be the reason.

    Raises:
        UserError: the disk is full, or PyAV cannot encode H.264.
    """
    require_x264()
    target = Path(job.target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(target) as part:
            if Path(job.source).is_dir():
                written, note = write_training_video(part, _images(job), job.short_side), ""
            else:
                written, note = _transcode(job, part)
            with open_video(part, exact=True) as video:
                index = video.index
            if len(index) != written:
                raise VideoError(f"{written} frames were written, the file has {len(index)}")
            return EncodeResult(size=part.stat().st_size, note=note).with_index(index)
    except FetchError as error:
        return JobFailed(str(error).removeprefix(f"{job.source}: "))
    except (av.FFmpegError, OSError, VideoError) as error:
        if is_disk_full(error):
            raise UserError(
                f"no space left for {target}; make room and run the same again to resume"
            ) from None
        reason = str(getattr(error, "strerror", None) or error).removeprefix(f"{job.source}: ")
        return EncodeResult(error=f"cannot be encoded ({reason})")


def _transcode(job: EncodeJob, part: Path) -> tuple[int, str]:
    """Return the number of frames written, and a note on what is lost."""
    try:
        return _write_frames(job, part, exact=False)
    except WrongIndexError:
        return _write_frames(job, part, exact=True)


def _write_frames(job: EncodeJob, part: Path, *, exact: bool) -> tuple[int, str]:
    """Write a file's frames; those of a segment are found by the header unless `exact`.

    Raises:
        WrongIndexError: the header describes other frames than the file has.
    """
    deadline = Deadline(job.source, inf)  # stores have their own time limits
    with (
        open_source(job.source, deadline, _READ_AHEAD) as opened,
        av.open(opened.file, metadata_errors="replace") as container,
    ):
        stream = video_stream(container, job.source)
        whole = ReadableFrames(frame_packets(container, stream), deadline)
        if job.start is None and job.end is None:
            frames: Iterable[av.VideoFrame] = whole
        else:
            frames = _segment(job, container, stream, deadline, exact=exact)
        written = write_training_video(
            part,
            frames,
            job.short_side,
            stated_rate(container, stream) or stream.guessed_rate or DEFAULT_RATE,
            None if times_are_guesses(container) else stream.time_base,
            longest_step(container, stream),
            stream.sample_aspect_ratio or SQUARE,
        )
    bad = whole.num_bad_packets
    return written, f"{bad} of its packets do not decode and are left out" if bad else ""


def _segment(
    job: EncodeJob,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    deadline: Deadline,
    *,
    exact: bool,
) -> Iterator[av.VideoFrame]:
    """Yield the frames of a segment, which are those that training would read from the original."""
    header = None if exact else header_index(container, stream)
    index = header or scan_index(container, stream, deadline)
    numbers = index.frames_between(job.start, job.end)
    if not numbers:
        raise VideoError(no_frames_between(index, job.start, job.end))
    decoding = Decoding(container, stream, index, set(numbers), deadline, from_header=header is not None)
    with suppress(FewerFramesError):  # the last frames do not decode
        for _, frame in decoding.frames():
            yield frame


def _images(job: EncodeJob) -> Iterator[av.VideoFrame]:
    """Yield the images of a folder, or of the job's part of it, in order."""
    paths = folder_images(Path(job.source))
    if job.part:
        first, count = job.part
        paths = [path for path in paths if first <= _image_number(path) < first + count]
    for path in paths:
        yield av.VideoFrame.from_ndarray(read_image(path), format="rgb24")


def _image_number(path: Path) -> int:
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else -1


def targets_of(videos: Sequence[ListedVideo], folder: Path) -> dict[ListedVideo, Path]:
    """Return the file in `folder` to which each video is written: its relative path with the suffix .mp4.

    Lines that mean the same video share a file. If two videos have the same short name, both get the long
    name, which is numbered if it exists too.

    Raises:
        UserError: a source is in the folder.
    """
    first: dict[object, ListedVideo] = {}
    for video in videos:
        first.setdefault(_source(video), video)
        if Path(video.path).is_relative_to(folder):
            raise UserError(f"{video.path} is where --encode writes; choose another folder with --out")
    names = {source: _target_name(video, short=True) for source, video in first.items()}
    counts = Counter(name.casefold() for name in names.values())  # many disks ignore case
    taken = {name for name, count in counts.items() if count == 1}
    for source, video in first.items():
        if counts[names[source].casefold()] > 1:
            name = long = _target_name(video, short=False)
            numbers = itertools.count(2)
            while name.casefold() in taken:
                name = f"{long.removesuffix('.mp4')}-{next(numbers)}.mp4"
            taken.add(name.casefold())
            names[source] = name
    return {video: folder / names[_source(video)] for video in videos}


def _source(video: ListedVideo) -> tuple[object, ...]:
    """Return the same for lines that mean the same frames of the same file."""
    return video.path, video.part, video.start, video.end


def _target_name(video: ListedVideo, *, short: bool) -> str:
    name = PurePosixPath(video.name)
    keep_suffix = not short or Path(video.path).is_dir()
    stem = name.name if keep_suffix else name.stem
    if video.offset is not None:
        count = "" if short or video.frames is None else f"_{video.frames}"
        stem += f"_{video.offset:06}{count}"
    if video.is_segment:
        stem += (
            f"_{seconds_text(video.start or 0.0)}-{'end' if video.end is None else seconds_text(video.end)}s"
        )
    return name.with_name(f"{stem}.mp4").as_posix()
