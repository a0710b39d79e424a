"""Where a video's bytes come from: a file here or, through fsspec, one elsewhere; with a time limit."""

import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from tubelet.errors import UserError

TIME_LIMIT = 60.0  # seconds for one item of one file

# pathlib makes one slash of two, so that a remote name which went through it has lost one.
_REMOTE = re.compile(r"(s3|gs|gcs|oss|hf|https?|memory):/{1,2}(?=[^/])")
_PACKAGE = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "oss": "ossfs", "hf": "huggingface_hub"}
_BLOCK = 2**18  # bytes to read ahead: a clip lies in one piece, the header in another


class VideoError(UserError):
    """A video that cannot be read: the message names the file and says what is wrong with it."""


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
        return VideoError(f"{self.path}: not read within {self.seconds:g} s")


def remote_url(path: Path | str) -> str | None:
    """The URL of a file that is not on this machine, None for one that is."""
    match = _REMOTE.match(str(path))
    return f"{match[1]}://{str(path)[match.end() :]}" if match else None


@contextmanager
def open_container(path: Path | str, deadline: Deadline) -> Iterator[av.container.InputContainer]:
    """Open a file for reading and close it again.

    Raises:
        VideoError: it is not there, no regular file, broken or slow, or the package that fetches it is
            missing. FFmpeg's and the system's errors while it is open become one too.
    """
    url = remote_url(path)
    options: dict[str, Any] = {"metadata_errors": "replace", "timeout": deadline.seconds}
    try:
        if url:
            with _fetch(url, path) as file, av.open(_Timed(file, deadline), **options) as container:
                yield container
        elif not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for its writer
            raise VideoError(f"{path}: neither a regular file nor a folder of images")
        else:
            with av.open(str(path), **options) as container:
                yield container
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, av.error.ExitError):  # PyAV's own clock
            raise deadline.missed() from error
        raise VideoError(f"{path}: {_reason(error)}") from error


def _fetch(url: str, path: Path | str) -> Any:
    scheme = url.partition(":")[0]
    try:
        import fsspec

        return fsspec.open(url, "rb", block_size=_BLOCK, cache_type="readahead").open()
    except ImportError as error:
        package = _PACKAGE.get(scheme, "fsspec and aiohttp")
        raise VideoError(f"{path}: {scheme} needs {package}: pip install 'tubelet[remote]'") from error
    except (ValueError, RuntimeError) as error:
        raise VideoError(f"{path}: cannot be fetched ({error})") from error


class _Timed:
    """A file-like object that stops giving once the time is over."""

    def __init__(self, file: Any, deadline: Deadline) -> None:
        self._file = file
        self._deadline = deadline
        self.seek = file.seek
        self.tell = file.tell
        self.name = "remote"

    def read(self, size: int) -> bytes:
        self._deadline.check()
        return self._file.read(size)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"cannot be read as a video ({getattr(error, 'strerror', None) or error})"
