"""The videos of lists: where each lies, by its path, or by its name below a folder."""

import posixpath
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tubelet.data.manifest import read_names
from tubelet.errors import UserError, plural
from tubelet.prepare.find_files import FoundFiles, look_through, match_rows
from tubelet.prepare.lists.class_names import number_labels
from tubelet.prepare.lists.row import Row, split_of
from tubelet.prepare.lists.tables import read_list
from tubelet.prepare.places import Stamp, names_of, place
from tubelet.prepare.plan import Item, Plan, named
from tubelet.video.image_folder import is_image
from tubelet.video.remote import join_url, lists_files, remote_url, require_package
from tubelet.video.sources import VIDEO_SUFFIXES


def plan_lists(
    sources: Sequence[Path],
    root: Path | str | None = None,
    classes: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Plan:
    """The videos of one list or several, whose names tell the splits where their lines do not.

    Args:
        sources: the lists, or one folder that holds them.
        root: the folder, or its URL, that their paths count from; otherwise the list's folder or the current
            one. A line may hold a URL itself.
        classes: names in the order of their numbers.
        columns: what the fields of a line are, where the lists do not tell.

    Raises:
        UserError: a list or its classes cannot be read, a label is not among them, a folder elsewhere cannot
            be listed, several files fit a line equally well, or none of the videos is there.
    """
    paths = _lists(sources)
    rows: list[Row] = []
    kinds = []
    for source in paths:
        content = read_list(source, columns)
        split = split_of(source.stem) or "train"
        rows += [row if row.split else replace(row, split=split) for row in content.rows]
        kinds.append(f"{source.name}: {content.kind}, {plural(len(content.rows), 'video')}")
    beside = paths[0].parent / "classes.txt"
    if not classes and beside.is_file():
        classes = read_names(beside)
    rows, names, notes = number_labels(rows, classes)
    base = remote_url(root) if root else None
    for url in {url.partition(":")[0]: url for row in rows if (url := remote_url(row.name))}.values():
        require_package(url)
    below = look_through(base) if base and lists_files(base) else None
    found: dict[int, tuple[str, Stamp | None]] = {}
    for number, row in enumerate(rows):
        if url := remote_url(row.name):
            found[number] = url, None
        elif below:
            if (path := _shown(row.name, below)) is not None:
                found[number] = below.place(path), below.stamps[path]
        elif base:
            found[number] = join_url(base, _with_ending(row.name)), None
        elif there := _there(row.name, [Path(root)] if root else [paths[0].parent, Path()]):
            found[number] = place(there), None
    rest = [number for number in range(len(rows)) if number not in found]
    if rest and root and (below or not base):
        files = below or look_through(root)
        matched, _ = match_rows([rows[number] for number in rest], files, names)
        found |= {rest[k]: (files.place(path), files.stamps.get(path)) for k, path in matched.items()}
        if below and below.pictures:
            notes = [*notes, f"folders of pictures below {base} are left out: copy them to this machine"]
    missing = tuple(named(row) for number, row in enumerate(rows) if number not in found)
    if not found:
        where = root or f"{paths[0].parent} or the current folder"
        raise UserError(
            f"{rows[0].where}: no '{rows[0].name}' in {where}, nor any of the other "
            f"{len(missing) - 1}; say with --root which folder the paths count from"
        )
    short = names_of((path for path, _ in found.values()), place(root) if root else None)
    items = [
        Item.of(rows[number], path, short[path], rows[number].split or "train", stamp)
        for number, (path, stamp) in sorted(found.items())
    ]
    multi_label = any(len(row.labels) > 1 for row in rows)
    return Plan("; ".join(kinds), tuple(items), names, multi_label, missing=missing, notes=tuple(notes))


def _lists(sources: Sequence[Path]) -> list[Path]:
    if far := [url for url in map(remote_url, sources) if url]:
        raise UserError(f"{far[0]}: lists are read on this machine; copy it here. Their lines may hold URLs")
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
    """The file or folder of pictures of a listed path."""
    for path in (base / full for base in bases for full in (name, _with_ending(name))):
        with suppress(OSError):  # a name too long for a file, or a folder that may not be read
            if path.is_file() or (path.is_dir() and any(map(is_image, path.iterdir()))):
                return path
    return None


def _shown(name: str, files: FoundFiles) -> str | None:
    """The file of a listed path in the listing of a folder elsewhere."""
    for path in (name, posixpath.normpath(name), _with_ending(posixpath.normpath(name))):
        if path in files.stamps:
            return path
    return None


def _with_ending(name: str) -> str:
    """An ending that is left out is .mp4, as in VideoMAE."""
    return name if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES else f"{name}.mp4"
