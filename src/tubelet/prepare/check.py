"""Check whether a file can be trained on: count its frames, and decode the first, middle and last."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tubelet.prepare.plan import VideoProperties
from tubelet.prepare.pool import JobFailed
from tubelet.video.image_folder import folder_pictures
from tubelet.video.reader import (
    Crop,
    SizeChangesError,
    VideoError,
    VideoIndex,
    probe,
    read_crops,
    read_frames,
)
from tubelet.video.remote import RemoteError, open_remote, plain_errors, remote_url
from tubelet.video.sources import Deadline, FetchError, open_container, video_errors

_HASHED_BYTES = 1 << 16  # at the start, in the middle and at the end of a file
_READ_LIMIT_S = 120.0  # to read all packets of a file, and again to decode its frames


@dataclass(frozen=True)
class Checked(VideoProperties):
    """The result of checking a file.

    Attributes:
        path: the file, an image folder, or a URL.
        content: the same text for files of the same content.
        size_changes: the frames are not all of one size.
    """

    path: str
    content: str = ""
    size_changes: bool = False


def check_file(path: str) -> Checked | JobFailed:
    """Check a file or an image folder; what is wrong with it is in the result.

    Of a remote file only as much is read as its frames need. If it cannot be fetched, the job has failed: the
    network may be the reason.
    """
    checked = Checked(path)
    try:
        if os.path.isdir(path):  # noqa: PTH112
            images = [str(image) for image in folder_pictures(Path(path))]
            return _check_frames(replace(checked, content=_content_hash(images)))
        checked = _check_frames(replace(checked, content=_content_hash([path])))
        stated_s = _promised_seconds(path) if checked.fps and not checked.size_changes else 0.0
    except FetchError as error:
        return JobFailed(_without_path(path, error))
    except RemoteError as error:
        return JobFailed(f"cannot be fetched ({error})")
    except OSError as error:
        return replace(checked, error=error.strerror or str(error))
    except VideoError as error:
        return replace(checked, error=_without_path(path, error))
    duration_s = checked.frames / checked.fps if checked.fps else 0.0
    if stated_s - duration_s > max(0.05 * stated_s, 0.5):
        note = f"its frames end after {duration_s:.1f} of {stated_s:.1f} s; it may be cut off"
        return replace(checked, note=note)
    return checked


def _without_path(path: str, error: Exception) -> str:
    return str(error).removeprefix(f"{path}: ")


def _check_frames(checked: Checked) -> Checked:
    look = _index_of_some if remote_url(checked.path) else _index_of_all
    index, size_changes = look(checked.path)
    return replace(checked, size_changes=size_changes).with_index(index)


def _index_of_all(path: str) -> tuple[VideoIndex, bool]:
    """Every packet is read, then a few frames are decoded; the text says what is wrong with these."""
    index = probe(path, limit=_READ_LIMIT_S)
    try:
        height, width = read_frames(path, _few(index), index, limit=_READ_LIMIT_S).shape[-2:]
    except SizeChangesError:
        return index, True
    return replace(index, height=height, width=width), False


def _index_of_some(path: str) -> tuple[VideoIndex, bool]:
    """The header of an MP4 tells where its packets are, so that only a few frames have to be fetched."""
    known: list[VideoIndex] = []

    def plan(index: VideoIndex) -> list[Crop]:
        known.append(index)
        return [Crop(_few(index), None, (index.height, index.width))]

    try:
        read_crops(path, plan, limit=_READ_LIMIT_S)
    except SizeChangesError:
        return known[-1], True
    return known[-1], False


def _few(index: VideoIndex) -> list[int]:
    return sorted({0, len(index) // 2, len(index) - 1})


def _promised_seconds(path: str) -> float:
    """How long the video plays by its header; 0 where it does not tell."""
    deadline = Deadline(path, _READ_LIMIT_S)
    try:
        with open_container(path, deadline) as container, video_errors(deadline):
            stream = container.streams.best("video")
            of_stream = float(stream.duration * stream.time_base) if _has_duration(stream) else 0.0  # type: ignore
            of_file = container.duration / 1e6 if container.duration else 0.0
    except FetchError:
        raise
    except VideoError:
        return 0.0
    return min((seconds for seconds in (of_stream, of_file) if seconds > 0), default=0.0)


def _has_duration(stream: object) -> bool:
    return bool(getattr(stream, "duration", None) and getattr(stream, "time_base", None))


def _content_hash(paths: Sequence[str]) -> str:
    """Hash the number and sizes of files, and the bytes at the start, in the middle and at the end of each.

    Of an image folder only the first, middle and last image are hashed. The bytes are read separately from
    the decoder's: it reads other parts of a file, in blocks that depend on the format.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in (paths[0], paths[len(paths) // 2], paths[-1]) if len(paths) > 1 else paths:
        with _open(path) as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{len(paths)} {size}".encode())
            for start in sorted({0, max((size - _HASHED_BYTES) // 2, 0), max(size - _HASHED_BYTES, 0)}):
                file.seek(start)
                digest.update(file.read(_HASHED_BYTES))
        if not size:
            raise VideoError(f"{path}: the file is empty")
    return digest.hexdigest()


@contextmanager
def _open(path: str) -> Iterator[Any]:
    if url := remote_url(path):
        with plain_errors(), open_remote(url, 0) as file:
            yield file
    elif not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - opening a pipe would wait for its writer
        raise VideoError(f"{path}: neither a regular file nor a folder of images")
    else:
        with open(path, "rb") as file:  # noqa: PTH123
            yield file
