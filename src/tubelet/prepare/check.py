"""Whether a file can be trained on: its frames are counted, and the first, middle and last are decoded."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tubelet.prepare.plan import Facts
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

_PART = 1 << 16  # bytes of the head, the middle and the tail that tell files apart
_SECONDS = 120.0  # to read all packets of a file, and again to decode its frames


@dataclass(frozen=True)
class Checked(Facts):
    """What was found in a file.

    Attributes:
        path: the file, a folder of pictures, or a URL.
        content: the same for files of the same content.
    """

    path: str
    content: str = ""

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.frames / self.fps if self.fps else 0.0


EMPTY = "the file is empty"
SIZE_CHANGES = "its frames' size changes; --encode makes a video of one size of it"


def check_file(path: str) -> Checked | JobFailed:
    """Look into a file or a folder of pictures; what is wrong with it is in the answer.

    Of a file elsewhere no more is read than its frames need. JobFailed where that could not be had: the network
    may be to blame.
    """
    checked = Checked(path)
    try:
        if os.path.isdir(path):  # noqa: PTH112
            pictures = [str(picture) for picture in folder_pictures(Path(path))]
            return _check_frames(replace(checked, content=_content(pictures)))
        checked = _check_frames(replace(checked, content=_content([path])))
        promised = _promised_seconds(path) if checked.fps and not checked.error else 0.0
    except FetchError as error:
        return JobFailed(_without(path, error))
    except RemoteError as error:
        return JobFailed(f"cannot be fetched ({error})")
    except OSError as error:
        return replace(checked, error=error.strerror or str(error))
    except VideoError as error:
        return replace(checked, error=_without(path, error))
    if promised - checked.seconds > max(0.05 * promised, 0.5):
        note = f"its frames end after {checked.seconds:.1f} of {promised:.1f} s; it may be cut off"
        return replace(checked, note=note)
    return checked


def _without(path: str, error: Exception) -> str:
    return str(error).removeprefix(f"{path}: ")


def _check_frames(checked: Checked) -> Checked:
    look = _index_of_some if remote_url(checked.path) else _index_of_all
    index, error = look(checked.path)
    return replace(checked, error=error).with_index(index)


def _index_of_all(path: str) -> tuple[VideoIndex, str]:
    """Every packet is read, then a few frames are decoded; the text says what is wrong with these."""
    index = probe(path, limit=_SECONDS)
    try:
        height, width = read_frames(path, _few(index), index, limit=_SECONDS).shape[-2:]
    except SizeChangesError:
        return index, SIZE_CHANGES
    return replace(index, height=height, width=width), ""


def _index_of_some(path: str) -> tuple[VideoIndex, str]:
    """The header of an MP4 tells where its packets are, so that only a few frames have to be fetched."""
    known: list[VideoIndex] = []

    def plan(index: VideoIndex) -> list[Crop]:
        known.append(index)
        return [Crop(_few(index), None, (index.height, index.width))]

    try:
        read_crops(path, plan, limit=_SECONDS)
    except SizeChangesError:
        return known[-1], SIZE_CHANGES
    return known[-1], ""


def _few(index: VideoIndex) -> list[int]:
    return sorted({0, len(index) // 2, len(index) - 1})


def _promised_seconds(path: str) -> float:
    """How long the video plays by its header; 0 where it does not tell."""
    deadline = Deadline(path, _SECONDS)
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


def _content(paths: Sequence[str]) -> str:
    """The same for files that hold the same: of the sizes, and of the head, the middle and the tail."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (paths[0], paths[len(paths) // 2], paths[-1]) if len(paths) > 1 else paths:
        with _opened(path) as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{len(paths)} {size}".encode())
            for place in sorted({0, max(size // 2 - _PART // 2, 0), max(size - _PART, 0)}) if size else ():
                file.seek(place)
                digest.update(file.read(_PART))
        if not size:
            raise VideoError(f"{path}: {EMPTY}")
    return digest.hexdigest()


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    if url := remote_url(path):
        with plain_errors(), open_remote(url, 0) as file:
            yield file
    elif not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - opening a pipe would wait for its writer
        raise VideoError(f"{path}: neither a regular file nor a folder of images")
    else:
        with open(path, "rb") as file:  # noqa: PTH123
            yield file
