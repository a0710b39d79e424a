"""From a source, as it was downloaded or filmed, to the videos that the manifest should list."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tubelet.data.annotations import Annotations
from tubelet.data.classes import number_labels
from tubelet.data.lists import read_list
from tubelet.data.manifest import SPLITS
from tubelet.data.rows import VIDEO_SUFFIXES, Row, split_of
from tubelet.errors import UserError
from tubelet.prepare.finding import FoundFiles, match_rows


@dataclass(frozen=True)
class Item:
    """A video that should be listed.

    Attributes:
        path: the file, or a folder of pictures.
        name: its path below the common folder, with forward slashes.
        split: "train", "val" or "test".
        labels: class numbers.
        offset: number of the first picture, in a folder of pictures.
        frames: how many pictures from `offset` on.
    """

    path: Path
    name: str
    split: str
    labels: tuple[int, ...] = ()
    offset: int | None = None
    frames: int | None = None


@dataclass(frozen=True)
class Plan:
    """All that should be listed.

    Attributes:
        kind: what the source was found to be, in words.
        items: the videos.
        classes: the class names.
        several: whether a video may have several classes.
        missing: what is listed and not there.
        ignored: files that are no videos.
        notes: what should be known of it.
    """

    kind: str
    items: tuple[Item, ...]
    classes: tuple[str, ...] = ()
    several: bool = False
    missing: tuple[Row, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


# ---------------------------------------------------------------------------------------------- annotations


def plan_annotations(annotations: Annotations, files: FoundFiles) -> Plan:
    """The videos of annotation files, found by their names wherever they lie below a folder."""
    found, missing = match_rows(annotations.rows, files, annotations.classes)
    if not found:
        raise UserError(
            f"none of the {len(missing)} videos in {annotations.kind} lie below {files.root}, such as "
            f"{missing[0].name}; say with --root where they are"
        )
    items = [
        _item(annotations.rows[place], files.root / path, path, annotations.rows[place].split or "train")
        for place, path in found.items()
    ]
    return Plan(
        annotations.kind,
        tuple(items),
        annotations.classes,
        missing=tuple(missing),
        notes=annotations.notes,
    )


def _item(row: Row, path: Path, name: str, split: str) -> Item:
    labels = tuple(label for label in row.labels if isinstance(label, int))
    return Item(path, name, split, labels, row.offset, row.frames)


# ----------------------------------------------------------------------------------------------------- lists


def plan_lists(
    sources: Sequence[Path],
    root: Path | None = None,
    classes: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Plan:
    """The videos of one list or several, whose names tell the splits where their lines do not.

    Args:
        sources: the lists, or one folder that holds them.
        root: what their paths count from; otherwise the list's folder or the current one.
        classes: names in the order of their numbers.
        columns: what the fields of a line are, where the lists do not tell.
    """
    paths = _lists(sources)
    rows: list[Row] = []
    kinds = []
    for path in paths:
        content = read_list(path, columns)
        split = split_of(path.stem) or "train"
        rows += [row if row.split else replace(row, split=split) for row in content.rows]
        kinds.append(f"{path.name}: {content.kind}, {len(content.rows)} videos")
    beside = paths[0].parent / "classes.txt"
    if not classes and beside.is_file():
        classes = tuple(beside.read_text(encoding="utf-8-sig").split("\n"))
        classes = tuple(name.strip() for name in classes if name.strip())
    rows, names, notes = number_labels(rows, classes)
    found: dict[int, Path] = {}
    for place, row in enumerate(rows):
        bases = [root] if root else [paths[0].parent, Path()]
        if there := _there(row.name, bases):
            found[place] = there
    rest = [place for place in range(len(rows)) if place not in found]
    if rest and root:
        matched, _ = match_rows([rows[place] for place in rest], files := FoundFiles(root), names)
        found |= {rest[k]: files.root / path for k, path in matched.items()}
    missing = [row for place, row in enumerate(rows) if place not in found]
    if not found:
        where = root or f"{paths[0].parent} or the current folder"
        raise UserError(
            f"{missing[0].where}: no '{missing[0].name}' in {where}, nor any of the other "
            f"{len(missing) - 1}; say with --root which folder the paths count from"
        )
    common = root or _common(found.values())
    items = [
        _item(rows[place], found[place], _below(found[place], common), rows[place].split or "train")
        for place in sorted(found)
    ]
    several = any(len(row.labels) > 1 for row in rows)
    return Plan("; ".join(kinds), tuple(items), names, several, tuple(missing), notes=tuple(notes))


def _lists(sources: Sequence[Path]) -> list[Path]:
    if len(sources) > 1 or not sources[0].is_dir():
        return list(sources)
    found = [
        path
        for path in sorted(sources[0].iterdir())
        if path.suffix.lower() in (".txt", ".csv", ".tsv", ".json", ".jsonl") and split_of(path.stem)
    ]
    splits = [split_of(path.stem) for path in found]
    if not found:
        raise UserError(f"{sources[0]} holds no list named after train, val or test; name the list's file")
    if twice := [path.name for path, split in zip(found, splits, strict=True) if splits.count(split) > 1]:
        raise UserError(
            f"{sources[0]} holds several lists of a split: {', '.join(twice)}; name those to read"
        )
    return found


def _there(name: str, bases: Sequence[Path]) -> Path | None:
    """The file or folder of a listed path; an ending that is left out is .mp4, as in VideoMAE."""
    for base in bases:
        path = base / name
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return path
        if (
            path.suffix.lower() not in VIDEO_SUFFIXES
            and (path := path.with_name(f"{path.name}.mp4")).is_file()
        ):
            return path
    return None


def _common(paths: Iterable[Path]) -> Path:
    return Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))  # noqa: PTH100


def _below(path: Path, root: Path) -> str:
    full, base = Path(os.path.abspath(path)), Path(os.path.abspath(root))  # noqa: PTH100
    return (full.relative_to(base) if full.is_relative_to(base) else full.relative_to(full.anchor)).as_posix()


# --------------------------------------------------------------------------------------------------- folders

_SPLIT_FOLDER = re.compile(
    r"(videos?[_-])?(train|training|val|valid|validate|validation|test|testing)([_-]?(\d+|set|videos?|split))?",
    re.IGNORECASE,
)
_SHARE = 0.1  # of each class to validate on, and as much to test on


def plan_folder(files: FoundFiles, *, seed: int = 0, unlabelled: bool = False) -> Plan:
    """The videos of a folder: its folders are classes, or splits that hold classes; or it has no classes.

    Without folders for the splits a tenth of each class is validated on and a tenth tested on, drawn by the
    names, so that a video that is added moves few others.

    Args:
        files: what lies in the folder.
        seed: of the draw.
        unlabelled: take folders for mere folders: all videos are to pre-train on.
    """
    if not files.videos:
        raise UserError(
            f"no videos in {files.root}: no file ends in .mp4, .webm, .avi, .mov, .mkv or the like"
        )
    parts = {path: Path(path).parts for path in files.videos}
    splits = {path: _split_folder(part[0]) if len(part) > 1 else None for path, part in parts.items()}
    by_split = all(splits.values())
    inner = {path: part[1:] if by_split else part for path, part in parts.items()}
    names = tuple(sorted({part[0] for part in inner.values() if len(part) > 1}))
    loose = [path for path, part in inner.items() if len(part) == 1]
    ignored = tuple(path.relative_to(files.root).as_posix() for path in files.others)
    classed = len(files.videos) - len(loose)
    if unlabelled or len(loose) >= classed or len(names) < 2:
        items = [
            Item(files.root / path, path, (by_split and splits[path]) or "train") for path in files.videos
        ]
        reason = (
            "as asked" if unlabelled else f"{loose[0]} lies in no class folder" if loose else "one folder"
        )
        return Plan(f"videos without classes ({reason}), to pre-train on", tuple(items), ignored=ignored)
    label = {path: names.index(part[0]) for path, part in inner.items() if len(part) > 1}
    if not by_split:
        splits = dict(_stratified(label, seed))
    chosen = [(path, splits[path] or "train") for path in files.videos if path in label]
    items = [Item(files.root / path, path, split, (label[path],)) for path, split in chosen]
    kind = f"a folder for each of {len(names)} classes"
    notes: tuple[str, ...] = ()
    if loose:
        notes = (f"{len(loose)} in no class folder, left out as unlabelled: {', '.join(loose)}",)
    if by_split:
        found = [split for split in SPLITS if split in set(splits.values())]
        kind += f", in folders for {', '.join(found)}"
        return Plan(kind, tuple(items), names, ignored=ignored, notes=notes)
    note = f"a tenth of each class is validated on and a tenth tested on, drawn with --split-seed {seed}"
    return Plan(kind, tuple(items), names, ignored=ignored, notes=(*notes, note))


def _split_folder(name: str) -> str | None:
    return split_of(name) if _SPLIT_FOLDER.fullmatch(name) else None


def _stratified(labels: dict[str, int], seed: int) -> dict[str, str]:
    by_class: dict[int, list[str]] = {}
    for path, label in labels.items():
        by_class.setdefault(label, []).append(path)
    splits = dict.fromkeys(labels, "train")
    for paths in by_class.values():
        paths.sort(key=lambda path: hashlib.blake2b(f"{seed} {path}".encode()).digest())
        held = max(round(len(paths) * _SHARE), 1) if len(paths) > 2 else 0
        splits |= dict.fromkeys(paths[:held], "val") | dict.fromkeys(paths[held : 2 * held], "test")
    return splits
