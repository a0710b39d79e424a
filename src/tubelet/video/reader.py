"""Frames out of videos, exactly the ones asked for and no more work than that takes.

Two functions read: `read_frames` whole frames, `read_crops` all crops of a training or test item in one
opening of the file, each frame decoded once however many crops show it. A video is a file, a folder of
numbered pictures, or a file elsewhere (s3://, gs://, oss://, hf://, http://, https://).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import av
from torch import Tensor

from tubelet.errors import UserError
from tubelet.video.image_folder import crop_frames, folder_frames, folder_index
from tubelet.video.index import VideoIndex as VideoIndex
from tubelet.video.index import header_index, scan_index, video_stream
from tubelet.video.packets import Decoding, WrongIndexError
from tubelet.video.pixels import Crop as Crop
from tubelet.video.pixels import CropPainter, FramePainter, Orientation
from tubelet.video.sources import TIME_LIMIT, Deadline, open_container, remote_url, video_errors
from tubelet.video.sources import VideoError as VideoError
from tubelet.video.torchcodec import CodecVideo

Backend = Literal["pyav", "torchcodec"]
Plan = Callable[[VideoIndex], Sequence[Crop]]


def probe(path: Path | str, *, limit: float = TIME_LIMIT) -> VideoIndex:
    """Index a video: every packet is read and one frame decoded.

    Args:
        path: a file, a folder of pictures or the URL of a file.
        limit: seconds after which to give up.

    Raises:
        VideoError: the file cannot be opened in time, has no video or no frames.
    """
    if _is_folder(path):
        return folder_index(Path(path))
    deadline = Deadline(path, limit)
    with open_container(path, deadline) as container, video_errors(deadline):
        stream = video_stream(container, path)
        index = scan_index(container, stream, deadline)
        try:
            first = next(container.decode(stream), None)
        except (av.FFmpegError, ValueError):
            first = None  # others may decode
        height, width = Orientation.of(first).size(first) if first else (index.height, index.width)
        return replace(index, height=height, width=width)


def read_frames(
    path: Path | str,
    wanted: Sequence[int] | Callable[[int], Sequence[int]],
    index: VideoIndex | None = None,
    *,
    backend: Backend = "pyav",
    limit: float = TIME_LIMIT,
) -> Tensor:
    """Decode whole frames by their number, with one opening of the file.

    Args:
        path: a file, a folder of pictures or the URL of a file.
        wanted: frame numbers from 0, in any order, repeats allowed; or what gives them for a length.
        index: what `probe` said of this file, where it is known already.
        backend: the library that decodes.
        limit: seconds after which to give up.

    Returns:
        uint8 (len(wanted), C=3, H, W), RGB, as shown.

    Raises:
        VideoError: the file cannot be read in time, or one of the frames is not there or does not decode.
        FetchError: it is elsewhere and could not be had.
        UserError: there is no such backend, or it is not installed.
    """

    def numbers(known: VideoIndex) -> Sequence[int]:
        return wanted(len(known)) if callable(wanted) else wanted

    def whole(known: VideoIndex) -> list[Crop]:
        return [Crop(numbers(known), None, (known.height, known.width))]

    if backend != "pyav" or _is_folder(path):
        return _read_converted(path, whole, index, backend, Deadline(path, limit))[0]
    job = _read(path, lambda known: _FrameJob(numbers(known)), index, Deadline(path, limit))
    return job.painter.finish()


def read_crops(
    path: Path | str,
    plan: Plan,
    *,
    backend: Backend = "pyav",
    limit: float = TIME_LIMIT,
) -> list[Tensor]:
    """Decode, crop and scale all that an item needs of a video, with one opening of the file.

    Args:
        path: a file, a folder of pictures or the URL of a file.
        plan: gives the crops for what is known of the video. It is asked again, and only the last answer
            counts, where the file turns out to be other than its header says.
        backend: the library that decodes.
        limit: seconds after which to give up.

    Returns:
        For each crop uint8 (T, C=3, H, W), RGB.

    Raises:
        VideoError: the file cannot be read in time, or one of the frames is not there or does not decode.
        FetchError: it is elsewhere and could not be had.
        UserError: there is no such backend, or it is not installed.
        Exception: what `plan` raises comes as it is.
    """
    if backend != "pyav" or _is_folder(path):
        return _read_converted(path, plan, None, backend, Deadline(path, limit))
    job = _read(path, lambda known: _CropJob(list(plan(known)), known), None, Deadline(path, limit))
    return [painter.clip for painter in job.painters]


class _Job(Protocol):
    """What is asked of a file, and where its frames go."""

    numbers: list[int]

    def take(self, number: int, frame: av.VideoFrame) -> None: ...


class _FrameJob:
    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)
        self.painter = FramePainter(self.numbers)
        self._size: tuple[int, int] | None = None

    def take(self, number: int, frame: av.VideoFrame) -> None:
        shown = Orientation.of(frame)
        size = shown.size(frame)
        self._size = self._size or size
        if size != self._size:
            raise _OtherSizeError(size)
        self.painter.paint(number, frame, shown)


class _CropJob:
    def __init__(self, crops: Sequence[Crop], index: VideoIndex) -> None:
        self.numbers = [number for crop in crops for number in crop.frames]
        self.painters = [CropPainter(crop) for crop in crops]
        self._size = (index.height, index.width)

    def take(self, number: int, frame: av.VideoFrame) -> None:
        shown = Orientation.of(frame)
        size = shown.size(frame)
        if size != self._size:
            raise _OtherSizeError(size)
        for painter in self.painters:
            painter.paint(number, frame, shown)


class SizeChangesError(VideoError):
    """The frames of a video are not all of one size."""


class _OtherSizeError(Exception):
    """A frame is not of the size that was expected: (height, width) as shown."""


_AnyJob = TypeVar("_AnyJob", bound=_Job)


def _read(
    path: Path | str,
    start: Callable[[VideoIndex], _AnyJob],
    index: VideoIndex | None,
    deadline: Deadline,
) -> _AnyJob:
    """Open a file, learn about it, start the job and see it through. The caller's errors come as they are."""
    with open_container(path, deadline) as container:
        with video_errors(deadline):
            stream = video_stream(container, path)
            guess = None if index else header_index(container, stream)
            known = index or guess or scan_index(container, stream, deadline)
        guessed, sizes = guess is not None, {(known.height, known.width)}
        while True:
            job = start(known)
            wanted = _checked(job.numbers, known, path)
            with video_errors(deadline):
                try:
                    Decoding(container, stream, known, wanted, deadline, guessed).run(job.take)
                except WrongIndexError:
                    container.seek(0)
                    scanned = scan_index(container, stream, deadline)
                    known, guessed = replace(scanned, height=known.height, width=known.width), False
                except _OtherSizeError as error:  # rotated, as a rule; the header does not tell
                    height, width = error.args[0]
                    if (height, width) in sizes or len(sizes) > 1 or isinstance(job, _FrameJob):
                        raise SizeChangesError(f"{path}: the frames' size changes within the file") from error
                    container.seek(0)
                    sizes.add((height, width))
                    known = replace(known, height=height, width=width)
                else:
                    return job


def _read_converted(
    path: Path | str, plan: Plan, index: VideoIndex | None, backend: Backend, deadline: Deadline
) -> list[Tensor]:
    """Crops of frames that come as RGB, one step after the other."""
    frames: dict[int, Tensor]
    if _is_folder(path):
        crops = plan(known := index or folder_index(Path(path)))
        frames = folder_frames(Path(path), sorted(_wanted(crops, known, path)), deadline)
    elif backend == "torchcodec":
        video = CodecVideo(remote_url(path) or path, deadline)
        crops = plan(known := index or video.index())
        frames = video.frames(_wanted(crops, known, path))
    else:
        raise UserError(f"backend must be pyav or torchcodec, found {backend}")
    return [crop_frames(frames, crop) for crop in crops]


def _wanted(crops: Sequence[Crop], index: VideoIndex, path: Path | str) -> set[int]:
    return _checked([number for crop in crops for number in crop.frames], index, path)


def _checked(numbers: list[int], index: VideoIndex, path: Path | str) -> set[int]:
    wanted = set(numbers)
    if not wanted or min(wanted) < 0 or max(wanted) >= len(index):
        raise VideoError(f"{path}: frames {numbers} asked of a video of {len(index)} frames")
    return wanted


def _is_folder(path: Path | str) -> bool:
    return not remote_url(path) and Path(path).is_dir()
