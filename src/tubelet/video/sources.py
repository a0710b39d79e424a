"""Where a video's bytes come from: a file here or, through fsspec, one elsewhere; with a time limit."""

import errno
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import av

from tubelet.errors import UserError
from tubelet.video.remote import RemoteError, open_remote, plain_errors, require_package
from tubelet.video.remote import remote_url as remote_url

TIME_LIMIT = 60.0  # seconds for one item of one file
_BLOCK = 2**18  # bytes to read ahead: a clip lies in one piece, the header in another
_TELLING_HEADERS = (".mp4", ".m4v", ".mov", ".webm")
_UNTOLD = "mpeg4,h263,h261,mpeg2video,mpeg1video"  # size or reordering is told by the decoder alone
_HEADER_ONLY = {"codec_whitelist": _UNTOLD, "skip_frame": "all", "analyzeduration": "1"}  # while it opens


class VideoError(UserError):
    """A video that cannot be read: the message names the file and says what is wrong with it."""


class FetchError(VideoError):
    """A video elsewhere that could not be had, or not in time; another time it may work."""


class Deadline:
    """The moment by which a file must have been read.

    Args:
        path: the file, for the message.
        seconds: from now on.
    """

    def __init__(self, path: Path | str, seconds: float) -> None:
        self.path = path
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise a VideoError once it is past."""
        if time.monotonic() > self._end:
            raise self.missed()

    def missed(self) -> VideoError:
        """The error to raise once it is past."""
        kind = FetchError if remote_url(self.path) else VideoError
        return kind(f"{self.path}: not read within {self.seconds:g} s")


@contextmanager
def open_container(path: Path | str, deadline: Deadline) -> Iterator[av.container.InputContainer]:
    """Open a file for reading and close it again.

    The header of an MP4 or WebM tells what there is, for all but a few old codecs; nothing is decoded, nor a
    decoder opened, to learn more, which FFmpeg would do otherwise and which is most of what opening costs.
    What goes wrong while it is open comes as it is; `video_errors` is for what reads from it.

    Raises:
        VideoError: it is not there, no regular file, broken or slow, or the package that fetches it is
            missing.
        FetchError: it is elsewhere and could not be had.
    """
    options: dict[str, Any] = {"metadata_errors": "replace", "timeout": deadline.seconds}
    if str(path).lower().endswith(_TELLING_HEADERS):
        options["options"] = _HEADER_ONLY
    with ExitStack() as opened:
        with video_errors(deadline):
            source = opened.enter_context(open_source(path, deadline))
            container = opened.enter_context(av.open(source, **options))
        yield container


@contextmanager
def video_errors(deadline: Deadline) -> Iterator[None]:
    """Turn FFmpeg's and the system's errors, while its file is read, into VideoErrors that name it."""
    path = deadline.path
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, av.error.ExitError):  # PyAV's own clock
            raise deadline.missed() from error
        raise VideoError(f"{path}: {_reason(error)}") from error
    except IndexError as error:  # PyAV's own, where a stream turns up in the middle of a broken file
        raise VideoError(f"{path}: cannot be read as a video (a stream turns up in its middle)") from error


@contextmanager
def open_source(path: Path | str, deadline: Deadline, block: int = _BLOCK) -> Iterator[Any]:
    """What `av.open` reads a file from: its name or, of one elsewhere, an open file.

    Args:
        path: the file or its URL.
        deadline: when to stop giving, to a file elsewhere.
        block: bytes to read ahead, of a file elsewhere.

    Raises:
        VideoError: it is no regular file, or the package that fetches it is missing.
        FetchError: it is elsewhere and could not be had; reading from it raises this, too.
        OSError: it is not there.
    """
    if not (url := remote_url(path)):
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for its writer
            raise VideoError(f"{path}: neither a regular file nor a folder of images")
        yield str(path)
        return
    try:
        require_package(url)
        with _told(path):
            file = open_remote(url, block)
    except FetchError:
        raise
    except UserError as error:
        raise VideoError(str(error)) from error
    with file:
        yield _Timed(file, deadline)


@contextmanager
def _told(path: Path | str) -> Iterator[None]:
    """Name the file that could not be had."""
    try:
        with plain_errors():
            yield
    except RemoteError as error:
        raise FetchError(f"{path}: cannot be fetched ({error})") from error


class _Timed:
    """A file-like object that stops giving once the time is over."""

    def __init__(self, file: Any, deadline: Deadline) -> None:
        self._file = file
        self._deadline = deadline
        self.tell = file.tell
        self.name = "remote"

    def read(self, size: int) -> bytes:
        self._deadline.check()
        with _told(self._deadline.path):
            return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        with _told(self._deadline.path):
            return self._file.seek(place, whence)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if getattr(error, "errno", None) == errno.EPERM:  # FFmpeg's, of a seek: as a rule nobody forbids anything
        return "cannot be read as a video (there is no way back to its start, or it may not be opened)"
    return f"cannot be read as a video ({getattr(error, 'strerror', None) or error})"


VIDEO_SUFFIXES = frozenset(
    (
        ".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4",
        ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
    )
)  # fmt: skip
