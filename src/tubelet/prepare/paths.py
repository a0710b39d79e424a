"""Paths of videos as text: the absolute path of a file or folder on this machine, or a URL."""

import hashlib
import os
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from tubelet.video.remote import join_url, remote_url, url_path


def absolute_path(path: Path | str) -> str:
    """Return the absolute path of a file or folder, or its URL."""
    return remote_url(path) or os.path.abspath(path)  # noqa: PTH100


def path_below(folder: str, name: str) -> str:
    """Return the absolute path or URL of a file that is given relative to a folder."""
    return join_url(url, name) if (url := remote_url(folder)) else absolute_path(Path(folder, name))


def short_names(paths: Iterable[str], root: str | None = None) -> dict[str, str]:
    """Return a short and unique name for each path, with forward slashes.

    It is relative to `root`, or to the common folder of all paths on this machine or of all URLs. Paths that
    differ only in what is not part of the name, such as a query, get a few letters more.
    """
    paths = list(dict.fromkeys(paths))
    remote = [path for path in paths if remote_url(path)]
    bases = [_base(some, root) for some in ([path for path in paths if not remote_url(path)], remote)]
    first: dict[str, str] = {}
    names = {}
    for path in paths:
        full, base = _relative(path), bases[bool(remote_url(path))]
        name = PurePosixPath(full)
        name = name.relative_to(base) if name.is_relative_to(base) else name
        if first.setdefault(name.as_posix(), path) != path:
            mark = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
            name = name.with_name(f"{name.stem}-{mark}{name.suffix}")
        names[path] = name.as_posix()
    return names


def _base(paths: Sequence[str], root: str | None) -> str:
    if root is not None:
        return _relative(root)
    return posixpath.commonpath([posixpath.dirname(_relative(path)) for path in paths]) if paths else ""


def _relative(path: str) -> str:
    """Return a path without its root or scheme, with forward slashes."""
    return url_path(url) if (url := remote_url(path)) else Path(path).as_posix().lstrip("/")
