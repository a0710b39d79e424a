"""Which files lie in a folder, here or elsewhere, and which of them a list means."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from tubelet.errors import UserError
from tubelet.prepare.lists.class_names import plain
from tubelet.prepare.lists.row import Row, split_of
from tubelet.prepare.places import Stamp, join
from tubelet.video.image_folder import is_image
from tubelet.video.remote import list_below, lists_files, remote_url, require_package
from tubelet.video.sources import VIDEO_SUFFIXES

_CUT = re.compile(r"(.+)_(\d+)_(\d+)")  # a YouTube id, first and last second
_LISTS = (".csv", ".tsv", ".txt", ".json", ".jsonl")


@dataclass
class FoundFiles:
    """The videos below a folder by their relative paths, and what else lies there.

    Attributes:
        root: the folder, as it was given, or its URL.
        videos: relative paths with forward slashes, in order.
        pictures: how many pictures lie in each folder that holds some, likewise.
        others: all other files that are not hidden, likewise.
        stamps: of all files, where the folder is elsewhere.
    """

    root: str
    videos: list[str] = field(default_factory=list)
    pictures: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)
    stamps: dict[str, Stamp] = field(default_factory=dict)

    def add(self, path: str) -> None:
        """Sort a file in by its ending."""
        folder, _, name = path.rpartition("/")
        if name.startswith("."):
            return
        if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES:
            self.videos.append(path)
        elif is_image(PurePosixPath(name)):
            self.pictures[folder or "."] += 1
        else:
            self.others.append(path)

    def place(self, path: str) -> str:
        """Where a file is, by its relative path."""
        return join(self.root, path)

    @property
    def texts(self) -> list[Path]:
        """The files that may be lists or annotations.

        Raises:
            UserError: the folder is elsewhere.
        """
        if remote_url(self.root):
            raise UserError(
                f"{self.root}: lists and annotations are read on this machine; copy them here, "
                f"and say where the videos are with --root {self.root}"
            )
        return [Path(self.root, path) for path in self.others if Path(path).suffix.lower() in _LISTS]

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        """Videos and folders of pictures by name without ending, and Kinetics' clips by video id too."""
        found: dict[str, list[str]] = {}
        for path in self.videos:
            stem = _normal(Path(path).stem)
            found.setdefault(stem, []).append(path)
            if match := _CUT.fullmatch(stem):
                found.setdefault(match[1], []).append(path)
        for path in () if remote_url(self.root) else self.pictures:  # elsewhere they are not read
            found.setdefault(_normal(Path(path).name), []).append(path)
        return found

    def candidates(self, row: Row) -> list[str]:
        """The files whose name is the row's, wherever they lie."""
        name = Path(_normal(row.name)).name
        stem = Path(name).stem if Path(name).suffix.lower() in VIDEO_SUFFIXES else name
        found = self._by_stem.get(stem, [])
        if row.start is not None and row.end is not None:
            cut = [path for path in found if _seconds(path, stem) == (int(row.start), int(row.end))]
            return cut or [path for path in found if _normal(Path(path).stem) == stem]
        exact = [path for path in found if _normal(Path(path).name) == name]
        return exact or found


def find_files(source: Path | str, root: Path | str | None, out: Path) -> tuple[FoundFiles, FoundFiles]:
    """What lies in the source, lists among it, and where the videos are: in `root`, or in the source as well.

    Args:
        source: a folder, its URL, or a list.
        root: a folder or its URL.
        out: what is in it is not taken for a source, though it may lie within either.

    Raises:
        UserError: there is no such folder, or it cannot be listed.
    """
    if not remote_url(source) and Path(source).is_file():
        files = find_videos(Path(source).parent, out)
        files.others = [Path(source).name]
    else:
        files = find_videos(source, out)
    return files, find_videos(root, out) if root else files


def find_videos(folder: Path | str, out: Path) -> FoundFiles:
    """What lies in a folder or below its URL, but for what is written to `out`.

    Raises:
        UserError: there is no such folder, or it cannot be listed.
    """
    return look_through(folder, [out / "videos", *([out] if out.exists() and not _same(out, folder) else [])])


def look_through(root: Path | str, skip: Iterable[Path] = ()) -> FoundFiles:
    """Find all files below a folder, or below its URL.

    Args:
        root: the folder.
        skip: folders to leave out, such as the one that is written to.

    Raises:
        UserError: there is no such folder, or it cannot be listed.
    """
    url = remote_url(root)
    files = _list(url) if url else _walk(Path(root), skip)
    files.videos.sort()
    files.pictures = Counter(dict(sorted(files.pictures.items())))
    return files


def _walk(root: Path, skip: Iterable[Path]) -> FoundFiles:
    if not root.is_dir():
        raise UserError(f"no folder {root}; it should hold the videos")
    files = FoundFiles(str(root))
    seen = {os.path.realpath(path) for path in (root, *skip)}  # a link may lead back up
    for folder, below, names in os.walk(root, followlinks=True):
        entered = []
        for name in sorted(below):
            real = os.path.realpath(os.path.join(folder, name))  # noqa: PTH118
            if not name.startswith(".") and name != "__MACOSX" and real not in seen:
                seen.add(real)
                entered.append(name)
        below[:] = entered
        inside = Path(folder).relative_to(root).as_posix()
        for name in sorted(names):
            files.add(name if inside == "." else f"{inside}/{name}")
    return files


def _list(url: str) -> FoundFiles:
    if not lists_files(url):
        raise UserError(
            f"{url}: a web server does not tell which files it has; "
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
        raise UserError(f"no files below {url}; it should hold the videos")
    files = FoundFiles(url)
    for path, info in sorted(found.items()):
        files.stamps[path] = Stamp.of(info)
        if not any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")[:-1]):
            files.add(path)
    return files


def _same(one: Path, other: Path | str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def match_rows(
    rows: Sequence[Row], files: FoundFiles, classes: Sequence[str] = ()
) -> tuple[dict[int, str], list[Row]]:
    """Find each row's file.

    A file is taken where its folder is the row's too, or where no other file and no other row has its name.
    Of several files that is taken whose folders speak of the row's split and class, or of a replacement;
    of files that differ in their endings alone the first, so .mp4 before .webm.

    Returns:
        Relative paths by the row's place, and the rows without a file.

    Raises:
        UserError: several files fit a row equally well.
    """
    names = Counter(key for key, _ in {(_key(row), row.name) for row in rows})
    found: dict[int, str] = {}
    missing: list[Row] = []
    for place, row in enumerate(rows):
        chosen = _choose(row, files.candidates(row), classes, alone=names[_key(row)] == 1)
        if len(chosen) > 1:
            raise UserError(
                f"{row.where}: '{row.name}' may be {chosen[0]} or {chosen[1]} in {files.root}; "
                "say with --root which folder the list's paths count from"
            )
        if chosen:
            found[place] = chosen[0]
        else:
            missing.append(row)
    return found, missing


def _choose(row: Row, candidates: list[str], classes: Sequence[str], *, alone: bool) -> list[str]:
    """The candidates that fit best."""
    folders = [plain(part) for part in Path(_normal(row.name)).parent.parts if part not in ("/", ".", "..")]
    if folders and not (alone and len(candidates) == 1):
        candidates = [path for path in candidates if plain(_normal(Path(path).parent.name)) == folders[-1]]
    if len(candidates) < 2:
        return candidates
    mine = {plain(classes[label]) for label in row.labels if isinstance(label, int) and classes}
    fits = {}
    for path in candidates:
        parts = [plain(_normal(part)) for part in Path(path).parent.parts]
        same = 0
        while same < min(len(parts), len(folders)) and parts[-1 - same] == folders[-1 - same]:
            same += 1
        splits = {split_of(part) for part in parts} - {None}
        fits[path] = (
            any("replacement" in part for part in parts),
            same,
            row.split in splits if splits else False,
            bool(mine & set(parts)),
        )
    best = max(fits.values())
    chosen = [path for path in candidates if fits[path] == best]
    one = len({Path(path).with_suffix("") for path in chosen}) == 1  # a converted copy beside the original
    return chosen[:1] if one else chosen


def _key(row: Row) -> tuple[str, float | None]:
    return _normal(Path(row.name).stem), row.start


def _seconds(path: str, stem: str) -> tuple[int, int] | None:
    match = _CUT.fullmatch(_normal(Path(path).stem))
    return (int(match[2]), int(match[3])) if match and match[1] == stem else None


def _normal(text: str) -> str:
    """One spelling of accents, as file systems differ, and forward slashes."""
    text = text.replace("\\", "/") if "/" not in text else text
    return unicodedata.normalize("NFC", text)
