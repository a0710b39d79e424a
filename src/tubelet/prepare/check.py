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
from tubelet.video.image_folder import folder_images
from tubelet.video.reader import IndexChanged, Video, VideoError, open_video
from tubelet.video.remote import RemoteError, open_remote, plain_errors, remote_url
from tubelet.video.sources import FetchError, SizeChangesError

_HASHED_BYTES = 1 << 16  # at the start, in the middle and at the end of a file
READ_LIMIT_S = 240.0  # to read all packets of a file and to decode a few frames


@dataclass(frozen=True)
class CheckResult(VideoProperties):
    """The result of checking a file.

    Attributes:
        path: the file, an image folder, or a URL.
        content: the same text for files of the same content.
        size_changes: the frames are not all of one size.
    """

    path: str
    content: str = ""
    size_changes: bool = False


def check_file(path: str) -> CheckResult | JobFailed:
    """Check a file or an image folder; what is wrong with it is in the result.

    Of a remote file only as much is read as its frames need. If it cannot be fetched, the job has failed: the
    network may be the reason.
    """
    checked = CheckResult(path)
    try:
        is_folder = os.path.isdir(path)  # noqa: PTH112
        content = _content_hash([str(image) for image in folder_images(Path(path))] if is_folder else [path])
        with open_video(path, exact=not remote_url(path), limit=READ_LIMIT_S) as video:
            size_changes = _size_changes(video)
            checked = replace(checked, content=content, size_changes=size_changes).with_index(video.index)
            stated_s = video.stated_duration_s
    except FetchError as error:
        return JobFailed(str(error).removeprefix(f"{path}: "))
    except RemoteError as error:
        return JobFailed(f"cannot be fetched ({error})")
    except OSError as error:
        return replace(checked, error=error.strerror or str(error))
    except VideoError as error:
        return replace(checked, error=str(error).removeprefix(f"{path}: "))
    duration_s = checked.frames / checked.fps if checked.fps else 0.0
    if duration_s and not size_changes and stated_s - duration_s > max(0.05 * stated_s, 0.5):
        note = f"its frames end after {duration_s:.1f} of {stated_s:.1f} s; it may be cut off"
        return replace(checked, note=note)
    return checked


def _size_changes(video: Video) -> bool:
    """Decode the first, middle and last frame, and return whether their sizes differ."""
    try:
        try:
            video.read(_few(len(video.index)))
        except IndexChanged:  # a remote file's header was wrong
            video.read(_few(len(video.index)))
    except SizeChangesError:
        return True
    return False


def _few(num_frames: int) -> list[int]:
    return sorted({0, num_frames // 2, num_frames - 1})


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
