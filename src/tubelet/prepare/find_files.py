"""Find the files of a folder, local or remote, and the file that each row of a list means.

The functions raise a UserError for a folder that does not exist or cannot be listed.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from tubelet.errors import UserError
from tubelet.prepare.lists.class_names import normalized
from tubelet.prepare.lists.row import Row, seconds_in_name, split_of
from tubelet.prepare.paths import path_below
from tubelet.prepare.stamps import Stamp
from tubelet.video.image_folder import is_image
from tubelet.video.remote import list_below, lists_files, remote_url, require_package
from tubelet.video.sources import VIDEO_SUFFIXES

LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl")


@dataclass
class FoundFiles:
    """The files below a folder, by their relative paths with forward slashes; hidden files are left out.

    Attributes:
        root: the folder, as it was given, or its URL.
        videos: the videos, in order.
        images: the number of images in each folder that contains images, in order.
        others: all other files, in order.
        stamps: the stamps of all files, if the folder is remote.
    """

    root: str
    videos: list[str] = field(default_factory=list)
    images: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)
    stamps: dict[str, Stamp] = field(default_factory=dict)

    def add(self, path: str) -> None:
        """Add a file to the videos, images or others by its suffix."""
        folder, _, name = path.rpartition("/")
        if name.startswith("."):
            return
        if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES:
            self.videos.append(path)
        elif is_image(PurePosixPath(name)):
            self.images[folder or "."] += 1
        else:
            self.others.append(path)

    def path_of(self, path: str) -> str:
        """Return the absolute path or URL of a file."""
        return path_below(self.root, path)

    @property
    def texts(self) -> list[Path]:
        """The files that may be lists or annotations, which must be on this machine."""
        if remote_url(self.root):
            raise UserError(
                f"{self.root}: lists and annotations must be on this machine; copy them here, "
                f"and specify the folder of the videos with --root {self.root}"
            )
        found = [Path(self.root, path) for path in self.others]
        return [path for path in found if path.suffix.lower() in LIST_SUFFIXES and path.is_file()]

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        """Videos and image folders by name without suffix, and Kinetics' clips also by video id."""
        found: dict[str, list[str]] = {}
        for path in self.videos:
            stem = _normal(Path(path).stem)
            found.setdefault(stem, []).append(path)
            if cut := seconds_in_name(stem):
                found.setdefault(cut[0], []).append(path)
            if stem.startswith("v_"):  # as ActivityNet's files are named
                found.setdefault(stem.removeprefix("v_"), []).append(path)
        for path in () if remote_url(self.root) else self.images:  # remote image folders are not read
            found.setdefault(_normal(Path(path).name), []).append(path)
        return found

    def candidates(self, row: Row) -> list[str]:
        """Return the files with the row's name, in any folder."""
        name = Path(_normal(row.name)).name
        stem = Path(name).stem if Path(name).suffix.lower() in VIDEO_SUFFIXES else name
        found = self._by_stem.get(stem, [])
        if row.start is not None and row.end is not None:
            times = (stem, int(row.start), int(row.end))
            cut = [path for path in found if seconds_in_name(_normal(path)) == times]
            return cut or [path for path in found if (seconds_in_name(_normal(path)) or ("",))[0] != stem]
        return [path for path in found if _normal(Path(path).name) == name] or found


def find_files(source: Path | str, root: Path | str | None, out: Path) -> tuple[FoundFiles, FoundFiles]:
    """Find the lists in a source, and the videos in `root`, or if that is None in the source too.

    Args:
        source: a folder, its URL, or a list.
        root: a folder or its URL.
        out: a folder that is excluded from the search.
    """
    if not remote_url(source) and Path(source).is_file():
        files = find_videos(Path(source).parent, out)
        files.others = [Path(source).name]
    else:
        files = find_videos(source, out)
    return files, find_videos(root, out) if root else files


def find_videos(folder: Path | str, out: Path | None = None) -> FoundFiles:
    """Find all files below a folder or URL, excluding what is written to `out`."""
    files = _list_remote(url) if (url := remote_url(folder)) else _walk(Path(folder), out)
    files.videos.sort()
    files.images = Counter(dict(sorted(files.images.items())))
    return files


def _walk(root: Path, out: Path | None) -> FoundFiles:
    if not root.is_dir():
        raise UserError(f"no folder {root}; it should contain the videos")
    files = FoundFiles(str(root))
    seen = {os.path.realpath(path) for path in (root, *((out, out / "videos") if out else ()))}
    for folder, below, names in os.walk(root, followlinks=True):
        entered = []
        for name in sorted(below):
            real = os.path.realpath(os.path.join(folder, name))  # noqa: PTH118 - links may form a circle
            if not name.startswith(".") and name != "__MACOSX" and real not in seen:
                seen.add(real)
                entered.append(name)
        below[:] = entered
        inside = Path(folder).relative_to(root).as_posix()
        for name in sorted(names):
            files.add(name if inside == "." else f"{inside}/{name}")
    return files


def _list_remote(url: str) -> FoundFiles:
    if not lists_files(url):
        raise UserError(
            f"{url}: a web server does not list its files; "
            "give `tubelet prepare list` a list with the paths or URLs of the videos"
        )
    require_package(url)
    try:
        found = list_below(url)
    except FileNotFoundError:
        found = {}
    except OSError as error:
        raise UserError(f"{url} cannot be listed ({error.strerror or error})") from error
    if not found:
        raise UserError(f"no files below {url}; it should contain the videos")
    files = FoundFiles(url)
    for path, info in sorted(found.items()):
        files.stamps[path] = Stamp.of(info)
        if not any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")[:-1]):
            files.add(path)
    return files


def match_rows(rows: Sequence[Row], files: FoundFiles, classes: Sequence[str] = ()) -> list[str | None]:
    """Return the relative path of each row's file, None if there is no such file.

    A file matches if its folder is the row's too, or if no other file and no other row has its name. Of many,
    the best match is in folders named after the row's split and class, or is a replacement; of files that
    differ only in their suffixes it is the first, so .mp4 before .webm.

    Raises:
        UserError: two files match a row equally well.
    """
    names = Counter(key for key, _ in {(_key(row), row.name) for row in rows})
    found: list[str | None] = []
    for row in rows:
        best = _best_matches(row, files.candidates(row), classes, unique=names[_key(row)] == 1)
        if len(best) > 1:
            raise UserError(
                f"{row.where}: '{row.name}' may be {best[0]} or {best[1]} in {files.root}; "
                "specify with --root the folder that the list's paths are relative to"
            )
        found.append(best[0] if best else None)
    return found


def _best_matches(row: Row, candidates: list[str], classes: Sequence[str], *, unique: bool) -> list[str]:
    parents = Path(_normal(row.name)).parent.parts
    folders = [normalized(part) for part in parents if part not in ("/", ".", "..")]
    if folders and not (unique and len(candidates) == 1):
        candidates = [
            path for path in candidates if normalized(_normal(Path(path).parent.name)) == folders[-1]
        ]
    if len(candidates) < 2:
        return candidates
    row_classes = {normalized(classes[label]) for label in row.labels if isinstance(label, int) and classes}
    rank = {}
    for path in candidates:
        parts = [normalized(_normal(part)) for part in Path(path).parent.parts]
        same = 0
        while same < min(len(parts), len(folders)) and parts[-1 - same] == folders[-1 - same]:
            same += 1
        rank[path] = (
            any("replacement" in part for part in parts),
            same,
            row.split in {split_of(part) for part in parts} - {None},
            bool(row_classes & set(parts)),
        )
    highest = max(rank.values())
    best = [path for path in candidates if rank[path] == highest]
    same_stem = (
        len({Path(path).with_suffix("") for path in best}) == 1
    )  # a converted copy beside the original
    return best[:1] if same_stem else best


def _key(row: Row) -> tuple[str, float | None]:
    return _normal(Path(row.name).stem), row.start


def _normal(text: str) -> str:
    """Return a path with one spelling of accents, as file systems differ, and with forward slashes."""
    text = text.replace("\\", "/") if "/" not in text else text
    return unicodedata.normalize("NFC", text)
