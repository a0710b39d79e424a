"""Stamps of files: what shows that a file has changed since it was checked."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from tubelet.video.image_folder import size_and_version
from tubelet.video.remote import Info, RemoteTimeoutError, file_info, list_beside, lists_files, remote_url

_NUM_THREADS = 32  # requests to stores and web servers at the same time
_MAX_TIMEOUTS = 8  # of one host; its other files are then given up, as thousands would take hours
# The metadata by which stores distinguish versions of a file, the most reliable first.
_VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "Content-MD5", "Digest", "blob_id", "generation",
    "LastModified", "Last-Modified", "updated", "mtime", "modified", "created",
)  # fmt: skip


@dataclass(frozen=True)
class Stamp:
    """The size and version of a file.

    Attributes:
        size: in bytes; of a folder, of its images; -1 if a web server does not report it.
        version: time of change in nanoseconds, or that of `size_and_version` for a folder; for a remote file
            its ETag or similar.
    """

    size: int
    version: int | str

    @classmethod
    def of(cls, info: Info) -> "Stamp":
        """Return the stamp of a remote file."""
        size = info.get("size")
        version = next((info[key] for key in _VERSION_KEYS if info.get(key)), "")
        if isinstance(version, datetime):  # some stores report seconds in a listing of the same file
            version = version.timestamp()
        return cls(-1 if size is None else int(size), str(version))


def stamps_of(
    paths: Sequence[str], show: Callable[[int, int], None] | None = None
) -> dict[str, Stamp | OSError]:
    """Return the stamps of files, or the errors: FileNotFoundError if there is no such file.

    A store that lists is queried once for each folder, and for each file that the listing does not contain;
    a web server for each file.

    Args:
        paths: absolute paths or URLs.
        show: called with the numbers of known and of all stamps.
    """
    found = {path: _stamp_of(path) for path in paths if not remote_url(path)}
    folders: dict[str, list[str]] = {}
    for url in paths:
        if url not in found and lists_files(url):
            folders.setdefault(url.rpartition("/")[0], []).append(url)
    timeouts: Counter[str] = Counter()

    def query(url: str) -> Stamp | OSError:
        host = urlsplit(url).netloc
        stamp = _stamp_of(url) if timeouts[host] < _MAX_TIMEOUTS else RemoteTimeoutError("no answer in time")
        timeouts[host] += isinstance(stamp, RemoteTimeoutError)
        return stamp

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for listed in pool.map(_listed, [urls for urls in folders.values() if len(urls) > 1]):
            found |= listed
        rest = [path for path in paths if path not in found]
        for path, stamp in zip(rest, pool.map(query, rest), strict=True):
            found[path] = stamp
            if show:
                show(len(found), len(paths))
    return found


def _listed(urls: Sequence[str]) -> dict[str, Stamp]:
    try:
        return {url: Stamp.of(info) for url, info in list_beside(urls).items()}
    except OSError:  # there may be permission to read and not to list
        return {}


def _stamp_of(path: str) -> Stamp | OSError:
    try:
        if url := remote_url(path):
            return Stamp.of(file_info(url))
        return Stamp(*size_and_version(Path(path)))
    except OSError as error:
        return error
