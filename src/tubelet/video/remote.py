"""Files elsewhere (http, https, s3, gs, oss, hf) through fsspec: named, listed and opened.

Each store has errors of its own. Here they become FileNotFoundError where there is no such file, and
RemoteError where it could not be had.
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
"""What a store says of a file, in fsspec's words: `name`, `size`, `type` and words of its own."""
# pathlib makes one slash of two, so that a name which went through it has lost one.
_REMOTE = re.compile(r"(s3|gs|gcs|oss|hf|https?|memory):/{1,2}(?=[^/])")
_PACKAGE = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "oss": "ossfs", "hf": "huggingface_hub"}
_ANSWER = 30.0  # seconds that a store has to say something of a file
_GONE = (404, 410)  # what a web server answers where there is no such file


class RemoteError(OSError):
    """A file elsewhere could not be had, and why; another time it may work."""


class SilentError(RemoteError):
    """There was no answer in time."""


def remote_url(path: Path | str) -> str | None:
    """The URL of a file that is not on this machine, None for one that is."""
    match = _REMOTE.match(str(path))
    return f"{match[1]}://{str(path)[match.end() :]}" if match else None


def lists_files(url: str) -> bool:
    """Whether its store tells which files there are; web servers do not."""
    return not _is_web(url)


def join_url(folder: str, name: str) -> str:
    """The URL of a file below a folder; a web address gets the name escaped and keeps its query."""
    if not _is_web(folder):
        return f"{folder.rstrip('/')}/{name}"
    parts = urlsplit(folder)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()


def url_path(url: str) -> str:
    """Host, folders and name of a file as one reads them: no escapes, and no query of a web address."""
    path = url.partition("://")[2]
    if _is_web(url):
        parts = urlsplit(url)
        path = f"{parts.netloc.rpartition('@')[2]}{unquote(parts.path)}"
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def _is_web(url: str) -> bool:
    return url.startswith(("http:", "https:"))


def require_package(url: str) -> None:
    """Raise a UserError where the package that fetches such files is not installed."""
    scheme = url.partition(":")[0]
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        package = _PACKAGE.get(scheme, "fsspec and aiohttp")
        raise UserError(f"{url}: {scheme} needs {package}: pip install 'tubelet[remote]'") from error


def list_below(folder: str) -> dict[str, Info]:
    """All files below a folder by their paths relative to it.

    Raises:
        FileNotFoundError: there is no such folder.
        RemoteError: it cannot be listed.
    """
    with plain_errors():
        system, base = _at(folder)
        system.invalidate_cache()
        found = system.find(base, detail=True)
    start = base.rstrip("/") + "/"
    return {
        name[len(start) :]: info
        for name, info in found.items()
        if name.startswith(start) and not name.endswith("/") and info["type"] == "file"
    }


def list_beside(urls: Sequence[str]) -> dict[str, Info]:
    """Those of the files, all of one folder, that its listing shows.

    Raises:
        FileNotFoundError: there is no such folder.
        RemoteError: it cannot be listed.
    """
    with plain_errors():
        system, folder = _at(urls[0].rpartition("/")[0])
        listed = {info["name"].lstrip("/"): info for info in system.ls(folder, detail=True)}
        found = {url: listed.get(_at(url)[1].lstrip("/")) for url in urls}
    return {url: info for url, info in found.items() if info and info["type"] == "file"}


def ask(url: str) -> Info:
    """What the store says of one file.

    Raises:
        FileNotFoundError: there is no such file.
        SilentError: it does not answer.
        RemoteError: it does not say.
    """
    with plain_errors():
        system, path = _at(url)
        if not system.async_impl:
            return system.info(path)
        from fsspec.asyn import sync

        return sync(system.loop, system._info, path, timeout=_ANSWER)  # the stores' own limits are minutes


def open_remote(url: str, block: int) -> Any:
    """Open a file for reading, `block` bytes ahead; 0: no more than is asked for.

    Raises:
        ImportError: the package that fetches it is not installed.
        FileNotFoundError: there is no such file.
        RemoteError: it cannot be had.
    """
    with plain_errors():
        system, path = _at(url)
        file = system.open(path, "rb", block_size=block or 1, cache_type="readahead" if block else "none")
        if getattr(file, "size", 0) is None:
            file.close()
            raise RemoteError("the web server does not send parts of files")
        return file


def _at(url: str) -> tuple[Any, str]:
    """The file system and the path in it."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    return system, path


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a store raises into a FileNotFoundError or a RemoteError."""
    try:
        yield
    except (ImportError, RemoteError):
        raise
    except Exception as error:  # each has classes of its own, and their packages may not be there
        raise _plain(error) from error


def _plain(error: BaseException) -> OSError:
    cause = error.__cause__
    if isinstance(error, FileNotFoundError):
        # fsspec says so of whatever a web server answers, or where there is none.
        web = isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp")
        if cause is None or not web or getattr(cause, "status", None) in _GONE:
            return FileNotFoundError(errno.ENOENT, "no such file")
        error = cause
    if isinstance(error, ValueError) and "range requests" in str(error):
        return RemoteError("the web server does not send parts of files")
    if isinstance(error, TimeoutError):
        return SilentError("no answer in time")
    if status := getattr(error, "status", None):
        return RemoteError(f"{status} {getattr(error, 'message', '')}".strip())
    return RemoteError(str(error).strip() or type(error).__name__)
