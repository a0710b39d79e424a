"""Which files lie in a folder, and which of them a list means."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from tubelet.data.classes import plain
from tubelet.data.rows import VIDEO_SUFFIXES, Row, split_of
from tubelet.errors import UserError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp"))
_CUT = re.compile(r"(.+)_(\d+)_(\d+)")  # a YouTube id, first and last second
_LISTS = (".csv", ".tsv", ".txt", ".json", ".jsonl")


class FoundFiles:
    """The videos below a folder by their relative paths, and what else lies there.

    Args:
        root: the folder.
        skip: folders to leave out, such as the one that is written to.

    Attributes:
        videos: relative paths with forward slashes, in order.
        pictures: folders of pictures, likewise.
        others: all other files that are not hidden.
    """

    def __init__(self, root: Path, skip: Iterable[Path] = ()) -> None:
        if not root.is_dir():
            raise UserError(f"no folder {root}; it should hold the videos")
        self.root = root
        self.videos: list[str] = []
        self.pictures: list[str] = []
        self.others: list[Path] = []
        seen = {os.path.realpath(path) for path in (root, *skip)}  # a link may lead back up
        for folder, below, names in os.walk(root, followlinks=True):
            entered = []
            for name in sorted(below):
                real = os.path.realpath(os.path.join(folder, name))  # noqa: PTH118
                if not name.startswith(".") and name != "__MACOSX" and real not in seen:
                    seen.add(real)
                    entered.append(name)
            below[:] = entered
            relative = Path(folder).relative_to(root)
            pictures = False
            for name in sorted(names):
                suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
                if name.startswith("."):
                    continue
                if suffix in VIDEO_SUFFIXES:
                    self.videos.append((relative / name).as_posix())
                elif suffix in IMAGE_SUFFIXES:
                    pictures = True
                else:
                    self.others.append(Path(folder, name))
            if pictures:
                self.pictures.append(relative.as_posix())
        self.videos.sort()

    @property
    def texts(self) -> list[Path]:
        """The files that may be lists or annotations."""
        return [path for path in self.others if path.suffix.lower() in _LISTS]

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        """Videos and folders of pictures by name without ending, and Kinetics' clips by video id too."""
        found: dict[str, list[str]] = {}
        for path in self.videos:
            stem = _normal(Path(path).stem)
            found.setdefault(stem, []).append(path)
            if match := _CUT.fullmatch(stem):
                found.setdefault(match[1], []).append(path)
        for path in self.pictures:
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


def find_files(source: Path, root: Path | None, out: Path) -> tuple[FoundFiles, FoundFiles]:
    """What lies in the source, lists among it, and where the videos are: in `root`, or in the source as well.

    `source` may be a list itself, `out` may lie within either; what is in it is not taken for a source.
    """
    skip = [out / "videos", *([out] if out.exists() and not _same(out, source) else [])]
    if source.is_file():
        files = FoundFiles(source.parent, skip)
        files.others = [source]
    else:
        files = FoundFiles(source, skip)
    return files, FoundFiles(root, skip) if root else files


def _same(one: Path, other: Path) -> bool:
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
