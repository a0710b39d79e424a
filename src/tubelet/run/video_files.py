"""Which videos the words of a command line name: files, folders, patterns, URLs."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from tubelet.errors import UserError
from tubelet.video.folder_videos import videos_in
from tubelet.video.remote import remote_url


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


def find_videos(sources: Sequence[str]) -> list[str]:
    """Return the videos that are named: each file as it is, all videos of a folder, the matches of a pattern.

    A folder with images but without videos is one video, the images its frames. A file that does not exist is
    kept, so that the others are still read.

    Raises:
        UserError: a folder has no videos, or nothing matches a pattern.
    """
    return [video for source in sources for video in _videos_of(source)]


def _videos_of(source: str) -> list[str]:
    path = Path(source)
    if remote_url(source) or path.is_file():
        return [source]
    if path.is_dir():
        return [str(video) for video in videos_in(path)]
    if glob.has_magic(source):
        matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - a pattern may be absolute
        if not matches:
            raise UserError(f"{source}: no file matches this pattern")
        return find_videos(matches)
    return [source]
