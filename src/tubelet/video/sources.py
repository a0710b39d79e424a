"""Open a local or remote (fsspec) video with a time limit, and name the file in every error."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import av

from tubelet.errors import UserError
from tubelet.video.file_header import FileHeader, most_samples, read_header
from tubelet.video.remote import RemoteError, open_remote, plain_errors, remote_url, require_package

TIME_LIMIT_S = 60.0
"""Seconds in which an item of a video must have been read."""
_READ_AHEAD_BYTES = 2**18  # a clip is in one piece of the file, the header in another
_PEEK_BYTES = 2**15  # what FFmpeg reads at once
_HEADER_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm")
# Codecs whose frame size or reordering only the decoder finds.
_DECODER_ONLY_CODECS = "mpeg4,h263,h261,mpeg2video,mpeg1video"
_READ_ONLY_HEADER = {"codec_whitelist": _DECODER_ONLY_CODECS, "skip_frame": "all", "analyzeduration": "1"}


class VideoError(UserError):
    """A video that cannot be read; the message begins with the file's name."""


class FetchError(VideoError):
    """A remote video that could not be fetched, or not in time; retrying may help."""


class SizeChangesError(VideoError):
    """A video whose frames are not all of one size."""


class IndexChanged(VideoError):  # noqa: N818 - reading again succeeds
    """Reading found that a file's header was wrong, and mended `video.index`.

    Frame numbers and crops that were computed from the old index may be wrong: compute them again, then read
    again. With `open_video(path, exact=True)` it is raised only by frames of another size than the first, and
    in AVI and elementary streams by frames that do not decode.
    """


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

    def restart(self) -> None:
        """Move it to `seconds` from now."""
        self._end = time.monotonic() + self.seconds

    def check(self) -> None:
        """Raise a VideoError once it is past."""
        if time.monotonic() > self._end:
            raise self.error()

    def error(self) -> VideoError:
        """Return the error to raise once it is past."""
        kind = FetchError if remote_url(self.path) else VideoError
        return kind(f"{self.path}: not read within {self.seconds:g} s")


class OpenSource(NamedTuple):
    """What `av.open` takes, the name of a local file or an open remote file, and the file's header."""

    file: Any
    header: FileHeader


class OpenFile(NamedTuple):
    """A file that FFmpeg reads, and whether its frames may be shown turned by 90 or 270 degrees."""

    container: av.container.InputContainer
    may_be_turned: bool


@contextmanager
def open_container(path: Path | str, deadline: Deadline) -> Iterator[OpenFile]:
    """Open a file for reading and close it again.

    The header of an MP4 or WebM is enough, except for a few old codecs. FFmpeg would decode frames to learn
    more, which takes most of the time of opening, so that is turned off. Errors raised inside the `with`
    block are not translated: `video_errors` does that.

    Raises:
        VideoError: the file is missing, not a regular file, broken or slow, or the package that fetches it is
            missing.
        FetchError: it is remote and could not be fetched.
    """
    options: dict[str, Any] = {"metadata_errors": "replace", "timeout": deadline.seconds}
    if str(path).lower().endswith(_HEADER_SUFFIXES):
        options["options"] = _READ_ONLY_HEADER
    with ExitStack() as opened:
        with video_errors(deadline):
            source = opened.enter_context(open_source(path, deadline))
            container = opened.enter_context(av.open(source.file, **options))
        yield OpenFile(container, source.header.may_be_turned)


def _plausible_header(source: Any, deadline: Deadline) -> FileHeader:
    """Return a file's header; raise a VideoError if FFmpeg's tables would be far larger than the file."""
    if isinstance(source, _TimedFile):
        size = source.seek(0, os.SEEK_END)
        header = read_header(source.peek, size)
    else:
        with open(source, "rb") as file:  # noqa: PTH123 - faster

            def peek(start: int, count: int) -> bytes:
                file.seek(start)
                return file.read(count)

            size = file.seek(0, os.SEEK_END)
            header = read_header(peek, size)
    if header.num_samples > most_samples(size):
        raise VideoError(
            f"{deadline.path}: cannot be read as a video (its header claims {header.num_samples:,} samples,"
            f" too many for {size:,} bytes)"
        )
    return header


@contextmanager
def video_errors(deadline: Deadline) -> Iterator[None]:
    """Turn FFmpeg's and the system's errors, raised while a file is read, into VideoErrors that name it."""
    path = deadline.path
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, av.error.ExitError):  # PyAV's own time limit
            raise deadline.error() from error
        raise VideoError(f"{path}: {_reason(error)}") from error
    except IndexError as error:  # PyAV's, where a stream appears in the middle of a broken file
        raise VideoError(f"{path}: cannot be read as a video (a stream begins in its middle)") from error


@contextmanager
def open_source(
    path: Path | str, deadline: Deadline, read_ahead: int = _READ_AHEAD_BYTES
) -> Iterator[OpenSource]:
    """Open a file for `av.open`, and close it again.

    Args:
        path: the file or its URL.
        deadline: when reading a remote file fails.
        read_ahead: bytes to read ahead, of a remote file.

    Raises:
        VideoError: it is not a regular file, its header claims more samples than it can have, or the package
            that fetches it is missing.
        FetchError: it is remote and could not be fetched; reading from it raises this, too.
        OSError: it is missing.
    """
    if not (url := remote_url(path)):
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for its writer
            raise VideoError(f"{path}: neither a regular file nor a folder of images")
        yield OpenSource(str(path), _plausible_header(str(path), deadline))
        return
    try:
        require_package(url)
        with _fetch_errors(path):
            file = open_remote(url, read_ahead)
    except FetchError:
        raise
    except UserError as error:
        raise VideoError(str(error)) from error
    with file:
        source = _TimedFile(file, deadline)
        yield OpenSource(source, _plausible_header(source, deadline))


@contextmanager
def _fetch_errors(path: Path | str) -> Iterator[None]:
    try:
        with plain_errors():
            yield
    except RemoteError as error:
        raise FetchError(f"{path}: cannot be fetched ({error})") from error


class _TimedFile:
    """A file-like object that fails to read after a deadline."""

    def __init__(self, file: Any, deadline: Deadline) -> None:
        self._file = file
        self._deadline = deadline
        self._peeked: list[tuple[int, bytes]] = []  # positions and what is there
        self.tell = file.tell
        self.name = "remote"

    def read(self, size: int) -> bytes:
        self._deadline.check()
        position = self.tell()
        for start, content in self._peeked:
            if start <= position < start + len(content):
                part = content[position - start :][:size]
                self.seek(len(part), os.SEEK_CUR)
                return part
        with _fetch_errors(self._deadline.path):
            return self._file.read(size)

    def peek(self, start: int, count: int) -> bytes:
        """Return bytes without moving; they are kept, so that reading them does not fetch them again."""
        self.seek(start)
        content = b""
        while len(content) < max(count, _PEEK_BYTES) and (part := self.read(max(count, _PEEK_BYTES))):
            content += part
        self._peeked.append((start, content))
        self.seek(0)
        return content[:count]

    def seek(self, offset: int, whence: int = 0) -> int:
        with _fetch_errors(self._deadline.path):
            return self._file.seek(offset, whence)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if getattr(error, "errno", None) == errno.EPERM:  # FFmpeg's, of a seek; rarely about permissions
        return "cannot be read as a video (seeking to its start fails, or it may not be opened)"
    return f"cannot be read as a video ({getattr(error, 'strerror', None) or error})"


VIDEO_SUFFIXES = frozenset(
    (
        ".264", ".265", ".3g2", ".3gp", ".asf", ".avc", ".avi", ".divx", ".f4v", ".flv", ".gif", ".h264",
        ".h265", ".hevc", ".m1v", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg",
        ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
    )
)  # fmt: skip
