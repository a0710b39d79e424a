"""Name, list and open remote files (http, https, s3, gs, oss, hf) through fsspec.

Each store has its own errors. Here they become FileNotFoundError where a file does not exist, and RemoteError
where it could not be fetched.
"""

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tubelet.errors import UserError

Info = Mapping[str, Any]
"""A file's metadata under fsspec's keys `name`, `size` and `type`, and the store's own keys."""
# pathlib replaces two slashes by one.
_REMOTE = re.compile(r"(s3|gs|gcs|oss|hf|https?|memory):/{1,2}(?=[^/])")
_PACKAGE = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "oss": "ossfs", "hf": "huggingface_hub"}
_INFO_TIMEOUT_S = 30.0
_HTTP_NOT_FOUND = (404, 410)


class RemoteError(OSError):
    """A remote file could not be fetched; retrying may help."""


class RemoteTimeoutError(RemoteError):
    """A store did not answer in time."""


def remote_url(path: Path | str) -> str | None:
    """Return the URL of a remote file; None for a local file, and for text that is not a valid URL."""
    match = _REMOTE.match(str(path))
    url = f"{match[1]}://{str(path)[match.end() :]}" if match else None
    return url if url and _is_valid(url) else None


def _is_valid(url: str) -> bool:
    """Return whether the host of a web address can be read, unlike in https://[::1/a.mp4."""
    try:
        return not _is_web(url) or bool(urlsplit(url).netloc)
    except ValueError:
        return False


def lists_files(url: str) -> bool:
    """Return whether a URL's store can list files; web servers cannot."""
    return not _is_web(url)


def join_url(folder: str, name: str) -> str:
    """Return the URL of a file below a folder; a web address gets the name escaped and keeps its query."""
    if not _is_web(folder):
        return f"{folder.rstrip('/')}/{name}"
    parts = urlsplit(folder)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()


def url_path(url: str) -> str:
    """Return host, folders and name of a file, without escapes and a web address's user and query."""
    path = url.partition("://")[2]
    if _is_web(url):
        parts = urlsplit(url)
        path = f"{parts.netloc.rpartition('@')[2]}{unquote(parts.path)}"
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def _is_web(url: str) -> bool:
    return url.startswith(("http:", "https:"))


def require_package(url: str) -> None:
    """Raise a UserError if the package that fetches such files is not installed."""
    scheme = url.partition(":")[0]
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        package = _PACKAGE.get(scheme, "fsspec and aiohttp")
        raise UserError(f"{url}: {scheme} needs {package}: pip install 'tubelet[remote]'") from error


def list_below(folder: str) -> dict[str, Info]:
    """Return all files below a folder by their paths relative to it.

    Raises:
        FileNotFoundError: the folder does not exist.
        RemoteError: it cannot be listed.
    """
    with plain_errors():
        system, base = _system_and_path(folder)
        system.invalidate_cache()
        found = system.find(base, detail=True)
    start = base.rstrip("/") + "/"
    return {
        name[len(start) :]: info
        for name, info in found.items()
        if name.startswith(start) and not name.endswith("/") and info["type"] == "file"
    }


def list_beside(urls: Sequence[str]) -> dict[str, Info]:
    """Return those of the files, all of one folder, that the folder's listing contains.

    Raises:
        FileNotFoundError: the folder does not exist.
        RemoteError: it cannot be listed.
    """
    with plain_errors():
        system, folder = _system_and_path(urls[0].rpartition("/")[0])
        listed = {info["name"].lstrip("/"): info for info in system.ls(folder, detail=True)}
        found = {url: listed.get(_system_and_path(url)[1].lstrip("/")) for url in urls}
    return {url: info for url, info in found.items() if info and info["type"] == "file"}


def file_info(url: str) -> Info:
    """Return one file's metadata.

    Raises:
        FileNotFoundError: the file does not exist.
        RemoteTimeoutError: the store does not answer.
        RemoteError: its answer is an error.
    """
    with plain_errors():
        system, path = _system_and_path(url)
        if not system.async_impl:
            return system.info(path)
        from fsspec.asyn import sync

        return sync(
            system.loop, system._info, path, timeout=_INFO_TIMEOUT_S
        )  # stores' own limits are minutes


def open_remote(url: str, read_ahead: int) -> Any:
    """Open a file for reading.

    Args:
        url: the file.
        read_ahead: bytes to read ahead.

    Raises:
        ImportError: the package that fetches it is not installed.
        FileNotFoundError: the file does not exist.
        RemoteError: it cannot be fetched.
    """
    with plain_errors():
        system, path = _system_and_path(url)
        file = system.open(
            path, "rb", block_size=read_ahead or 1, cache_type="readahead" if read_ahead else "none"
        )
        if getattr(file, "size", 0) is None:
            file.close()
            raise RemoteError("the web server does not send parts of files")
        return file


def _system_and_path(url: str) -> tuple[Any, str]:
    """Return the file system and the path in it."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    return system, path


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn a store's errors into a FileNotFoundError or a RemoteError."""
    try:
        yield
    except (ImportError, RemoteError):
        raise
    except Exception as error:  # stores have their own classes, whose packages may be missing
        raise _plain(error) from error


def _plain(error: BaseException) -> OSError:
    cause = error.__cause__
    if isinstance(error, FileNotFoundError):
        # fsspec raises it for any answer of a web server, and if the server is not found.
        web = isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp")
        if cause is None or not web or getattr(cause, "status", None) in _HTTP_NOT_FOUND:
            return FileNotFoundError(errno.ENOENT, "no such file")
        error = cause
    if isinstance(error, ValueError) and "range requests" in str(error):
        return RemoteError("the web server does not send parts of files")
    if isinstance(error, TimeoutError):
        return RemoteTimeoutError("no answer in time")
    if status := getattr(error, "status", None):
        return RemoteError(f"{status} {getattr(error, 'message', '')}".strip())
    return RemoteError(str(error).strip() or type(error).__name__)
