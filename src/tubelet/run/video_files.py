"""Which videos the words of a command line name: files, folders, patterns, lists, URLs, lines of a pipe."""

import glob
import os
import queue
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tubelet.data.manifest import Sample
from tubelet.errors import UserError
from tubelet.prepare.find_files import LIST_SUFFIXES
from tubelet.prepare.lists.row import Row
from tubelet.prepare.lists.tables import read_list
from tubelet.video.folder_videos import videos_in
from tubelet.video.remote import remote_url

_LIST_SUFFIXES = (*LIST_SUFFIXES, ".lst")


def separate_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words that name videos, and those that are settings as KEY=VALUE.

    Raises:
        UserError: no word names a video.
    """
    settings = [word for word in words if re.match(r"[a-z_]+(\.[a-z_]+)*=", word) and not Path(word).exists()]
    videos = [word for word in words if word not in settings]
    if not videos:
        raise UserError(f"{' '.join(settings)}: only settings are given; give videos, too")
    return videos, settings


def find_videos(sources: Iterable[str]) -> list[Sample]:
    """Return the named videos: files, all videos of a folder, the matches of a pattern, the rows of a list.

    A folder with images but without videos is one video, the images its frames. A list is a text file, a
    table or JSON with paths, which are relative to its folder or else to the current one; its rows may be
    segments. A file that does not exist is kept, so that the others are still read.

    Raises:
        UserError: a folder has no videos, nothing matches a pattern, or a list cannot be read.
    """
    return [video for source in sources for video in _videos_of(source)]


def _videos_of(source: str) -> list[Sample]:
    path = Path(source)
    if remote_url(source):
        return [Sample(source)]
    if path.is_file():
        return _listed(path) if path.suffix.lower() in _LIST_SUFFIXES else [Sample(source)]
    if path.is_dir():
        return [Sample(str(video)) for video in videos_in(path)]
    if glob.has_magic(source):
        matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - a pattern may be absolute
        if not matches:
            raise UserError(f"{source}: no file matches this pattern")
        return find_videos(matches)
    return [Sample(source)]


def _listed(path: Path) -> list[Sample]:
    """Return the videos, or segments of videos, in a list."""
    return [_listed_sample(path, row) for row in read_list(path).rows]


def _listed_sample(path: Path, row: Row) -> Sample:
    beside = path.parent / row.name
    found = row.name if remote_url(row.name) or (not beside.exists() and Path(row.name).exists()) else beside
    return Sample(str(found), start=row.start, end=row.end)


def arriving_lines(file: Iterable[bytes]) -> Iterator[list[str]]:
    """Yield the lines that have arrived in a pipe, at least one at a time, without waiting for its end.

    Empty lines are left out. A thread reads the pipe.
    """
    arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in file:
            arrived.put(os.fsdecode(line.strip(b"\r\n")))
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    at_end = False
    while not at_end:
        lines = [arrived.get()]
        while not arrived.empty():
            lines.append(arrived.get())
        at_end = lines[-1] is None
        if named := [line for line in lines if line]:
            yield named
