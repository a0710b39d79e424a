"""Where videos lie, as text: the absolute path of a file or folder on this machine, or a URL."""

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tubelet.video.remote import (
    Info,
    RemoteTimeoutError,
    file_info,
    join_url,
    list_beside,
    lists_files,
    remote_url,
    url_path,
)

_AT_ONCE = 32  # questions that stores are asked side by side
_PATIENCE = 8  # questions that a host may leave without an answer
# What tells versions of a file apart, by the words of the stores, the surest first.
_VERSION = (
    "ETag", "etag", "md5Hash", "Content-MD5", "Digest", "blob_id", "generation",
    "LastModified", "Last-Modified", "updated", "mtime", "modified", "created",
)  # fmt: skip


@dataclass(frozen=True)
class Stamp:
    """What changes when a file does.

    Attributes:
        size: in bytes; of a folder, of its list of entries; -1 where a web server does not tell.
        time: of change in nanoseconds; of a file elsewhere its ETag, or what else its store tells it by.
    """

    size: int
    time: int | str

    @classmethod
    def of(cls, info: Info) -> "Stamp":
        """Of a file elsewhere."""
        size = info.get("size")
        version = next((info[key] for key in _VERSION if info.get(key)), "")
        if isinstance(version, datetime):  # some stores say so of one file and in seconds in a listing
            version = version.timestamp()
        return cls(-1 if size is None else int(size), str(version))


def place(path: Path | str) -> str:
    """Where a file or folder is."""
    return remote_url(path) or os.path.abspath(path)  # noqa: PTH100


def join(folder: str, name: str) -> str:
    """The place of a file by its path relative to a folder."""
    return join_url(url, name) if (url := remote_url(folder)) else place(Path(folder, name))


def stamp_of(place: str) -> Stamp:
    """The stamp of one file or folder of pictures.

    Raises:
        OSError: it is not there, or cannot be asked for.
    """
    if url := remote_url(place):
        return Stamp.of(file_info(url))
    found = os.stat(place)  # noqa: PTH116
    return Stamp(found.st_size, found.st_mtime_ns)


def stamps_of(places: Sequence[str], show: Callable[[int, int], None]) -> dict[str, Stamp | OSError]:
    """The stamps of many files, or why there is none: FileNotFoundError where there is no such file.

    A store that lists is asked once for each folder, and for each file where the folder does not show it;
    a web server for each file. Many questions are asked side by side.

    Args:
        places: the files.
        show: is told how many of how many are known.
    """
    found = {place: _stamp_or_error(place) for place in places if not remote_url(place)}
    folders: dict[str, list[str]] = {}
    for url in places:
        if url not in found and lists_files(url):
            folders.setdefault(url.rpartition("/")[0], []).append(url)
    silent: Counter[str] = Counter()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for listed in pool.map(_listed, [urls for urls in folders.values() if len(urls) > 1]):
            found |= listed
            show(len(found), len(places))
        rest = [place for place in places if place not in found]
        for path, stamp in zip(rest, pool.map(lambda url: _ask_host(url, silent), rest), strict=True):
            found[path] = stamp
            show(len(found), len(places))
    return found


def _ask_host(url: str, silent: Counter[str]) -> Stamp | OSError:
    """Ask, unless too many questions to its host have been in vain: thousands would take hours."""
    host = urlsplit(url).netloc
    stamp = _stamp_or_error(url) if silent[host] < _PATIENCE else RemoteTimeoutError("no answer in time")
    silent[host] += isinstance(stamp, RemoteTimeoutError)
    return stamp


def _listed(urls: Sequence[str]) -> dict[str, Stamp]:
    try:
        return {url: Stamp.of(info) for url, info in list_beside(urls).items()}
    except OSError:  # some may be read and not listed
        return {}


def _stamp_or_error(place: str) -> Stamp | OSError:
    try:
        return stamp_of(place)
    except OSError as error:
        return error


# ------------------------------------------------------------------------------------------------------ names


def names_of(places: Iterable[str], root: str | None = None) -> dict[str, str]:
    """A short path for each place, with forward slashes, that no other has.

    It counts from `root`, or from the folder that all places on this machine, or all elsewhere, lie below.
    """
    places = list(dict.fromkeys(places))
    bases = [
        _base([place for place in places if bool(remote_url(place)) == far], root) for far in (False, True)
    ]
    names = {place: _below(_parts(place), bases[bool(remote_url(place))]) for place in places}
    return _told_apart(names)


def _base(places: Sequence[str], root: str | None) -> str:
    if root is not None:
        return _parts(root)
    return posixpath.commonpath([posixpath.dirname(_parts(place)) for place in places]) if places else ""


def _parts(place: str) -> str:
    """A place as a relative path with forward slashes."""
    return url_path(url) if (url := remote_url(place)) else Path(place).as_posix().lstrip("/")


def _below(path: str, base: str) -> str:
    inside = PurePosixPath(path).is_relative_to(base)
    return PurePosixPath(path).relative_to(base).as_posix() if inside else path


def _told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Places that differ in what is no part of the name, such as a query, get a few letters more."""
    first: dict[str, str] = {}
    apart = {}
    for place, name in names.items():
        path = PurePosixPath(name)
        if first.setdefault(name, place) != place:
            mark = hashlib.blake2b(place.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
            path = path.with_name(f"{path.stem}-{mark}{path.suffix}")
        apart[place] = path.as_posix()
    return apart
