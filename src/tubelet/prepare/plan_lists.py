"""Plan the videos of lists and of official annotations: find each by its path, or by its name in a folder.

The functions raise a UserError that names the list and the line.
"""

import posixpath
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tubelet.data.manifest import read_names
from tubelet.errors import UserError, excerpt, plural
from tubelet.prepare.find_files import LIST_SUFFIXES, FoundFiles, find_videos, match_rows
from tubelet.prepare.groups import groups_of, is_column, with_group_notes
from tubelet.prepare.lists.annotations import Annotations
from tubelet.prepare.lists.class_names import number_labels
from tubelet.prepare.lists.row import Row, split_of
from tubelet.prepare.lists.tables import read_list
from tubelet.prepare.paths import absolute_path, short_names
from tubelet.prepare.plan import ListedVideo, PreparePlan, SplitDraw
from tubelet.prepare.stamps import Stamp
from tubelet.video.image_folder import is_image
from tubelet.video.remote import join_url, lists_files, remote_url, require_package
from tubelet.video.sources import VIDEO_SUFFIXES

Location = tuple[str, Stamp | None]
"""The path of a video, and its stamp if it is known."""
_MOST_FOUND = 0.9
"""Part of a list's other videos that are found, for its first line to be a header."""


def plan_annotations(annotations: Annotations, files: FoundFiles) -> PreparePlan:
    """Plan the videos of annotation files, found by their names in any folder."""
    rows = annotations.rows
    found = list(zip(rows, match_rows(rows, files, annotations.classes), strict=True))
    videos = [
        ListedVideo.of(row, files.path_of(path), path, files.stamps.get(path)) for row, path in found if path
    ]
    missing = tuple(f"{row.name} ({row.where})" for row, path in found if not path)
    if not videos:
        raise UserError(
            f"none of the {len(rows)} videos in {annotations.kind} is in {files.root}, such as "
            f"{rows[0].name}; specify their folder with --root"
        )
    return PreparePlan(
        annotations.kind,
        tuple(videos),
        annotations.classes,
        val_is_test=annotations.val_is_test,
        missing=missing,
        notes=annotations.notes,
    )


def plan_lists(
    sources: Sequence[Path],
    root: Path | str | None = None,
    classes: Sequence[str] = (),
    columns: Sequence[str] = (),
    list_format: str | None = None,
    *,
    label: str = "",
    group: str = "",
    draw: SplitDraw | None = None,
) -> PreparePlan:
    """Plan the videos of lists; a list's name is its split unless its lines specify one.

    With groups or a draw, and without any split in the lines and the lists' names, the splits are drawn.

    Args:
        sources: the lists, or one folder that contains them.
        root: the folder, or its URL, that their paths are relative to; if None, the list's folder or the
            current one. A line may be a URL itself.
        classes: names in the order of their numbers.
        columns: what the fields of a line are; detected if empty.
        list_format: the format of the lists; detected if None.
        label: the column that contains the labels; detected if empty.
        group: the column that contains the groups, or a pattern of them in the paths; empty for none.
        draw: how splits are drawn; None is a tenth each, and only with groups.
    """
    paths = _list_files(sources)
    column = group if is_column(group) else ""
    lists = [read_list(path, columns, list_format, label=label, group=column) for path in paths]
    rows: Sequence[Row] = [
        row if row.split else replace(row, split=split_of(path.stem))
        for path, content in zip(paths, lists, strict=True)
        for row in content.rows
    ]
    rows, draw = _with_splits(rows, draw, group)
    if group and not column:
        found_groups = groups_of([row.name for row in rows], group)
        rows = [replace(row, group=name) for row, name in zip(rows, found_groups, strict=True)]
    class_file = paths[0].parent / "classes.txt"
    if not classes and class_file.is_file():
        classes = read_names(class_file)
    listed = rows
    rows, names, notes = number_labels(rows, classes)
    found, location_notes = _find_rows(rows, names, root, paths[0].parent)
    _require_no_header(listed, [location is not None for location in found])
    located = [(row, *location) for row, location in zip(rows, found, strict=True) if location]
    short = short_names((path for _, path, _ in located), absolute_path(root) if root else None)
    kinds = [
        f"{path.name}: {content.kind}, {plural(len(content.rows), 'video')}"
        for path, content in zip(paths, lists, strict=True)
    ]
    plan = PreparePlan(
        "; ".join(kinds),
        tuple(ListedVideo.of(row, path, short[path], stamp) for row, path, stamp in located),
        names,
        any(len(row.labels) > 1 for row in rows),
        draw,
        missing=tuple(
            f"{row.name} ({row.where})" for row, location in zip(rows, found, strict=True) if not location
        ),
        notes=(*(note for content in lists for note in content.notes), *notes, *location_notes),
    )
    return with_group_notes(plan, group) if group else plan


def _with_splits(
    rows: Sequence[Row], draw: SplitDraw | None, group: str
) -> tuple[Sequence[Row], SplitDraw | None]:
    """Return the rows with their splits; or without, and how to draw them, where no list has any."""
    given = next((row.where for row in rows if row.split), "")
    if given and draw:
        draw.require_default_shares(given)
    if given or not (draw or group):
        return [row if row.split else replace(row, split="train") for row in rows], None
    return rows, draw or SplitDraw()


def _find_rows(
    rows: Sequence[Row], classes: Sequence[str], root: Path | str | None, list_folder: Path
) -> tuple[list[Location | None], list[str]]:
    """Return where the video of each row is, and notes for the report.

    A path is looked for first; of a root on this machine, or one that can be listed, then any file that has
    the video's name.
    """
    for url in {url.partition(":")[0]: url for row in rows if (url := remote_url(row.name))}.values():
        require_package(url)
    url = remote_url(root) if root else None
    listing = find_videos(url) if url and lists_files(url) else None
    folders = [Path(root)] if root else [list_folder, Path()]
    found, notes = [_locate(row.name, folders, url, listing) for row in rows], list[str]()
    rest = [k for k, location in enumerate(found) if location is None]
    if rest and root and (listing or not url):
        files = listing or find_videos(root)
        for k, path in zip(rest, match_rows([rows[k] for k in rest], files, classes), strict=True):
            found[k] = (files.path_of(path), files.stamps.get(path)) if path else None
        if listing and listing.images:
            notes.append(f"image folders in {url} are left out; copy them to this machine")
    if not any(found):
        others = f", nor any of the other {len(rows) - 1}" if len(rows) > 1 else ""
        raise UserError(
            f"{rows[0].where}: no '{rows[0].name}' in {root or f'{list_folder} or the current folder'}"
            f"{others}; specify with --root the folder that paths are relative to"
        )
    return found, notes


def _require_no_header(rows: Sequence[Row], found: Sequence[bool]) -> None:
    """Raise if the first line of a list names columns: no video and no class of another line, unlike others.

    Args:
        rows: with the labels as they are written.
        found: whether each row's video is found.
    """
    firsts = [k for k, row in enumerate(rows) if row.where.endswith(":1")]
    classes = {label for k, row in enumerate(rows) if k not in firsts for label in row.labels}
    for k in firsts:
        row, source = rows[k], rows[k].where.rpartition(":")[0]
        others = [is_found for j, is_found in enumerate(found) if rows[j].where.rpartition(":")[0] == source]
        is_name = "/" not in row.name and PurePosixPath(row.name).suffix.lower() not in VIDEO_SUFFIXES
        is_class = not row.labels or any(isinstance(x, int) or x in classes for x in row.labels)
        if is_name and not is_class and not found[k] and sum(others) >= _MOST_FOUND * (len(others) - 1) > 0:
            raise UserError(
                f"{row.where}: there is no video '{excerpt(row.name)}' and no other video of its class, so "
                "this line seems to be a header that is not known: remove it, or name its columns path,label"
            )


def _list_files(sources: Sequence[Path]) -> list[Path]:
    if remote := next(filter(None, map(remote_url, sources)), None):
        raise UserError(
            f"{remote}: lists must be on this machine; copy it here. The list itself may contain URLs"
        )
    if len(sources) > 1 or not sources[0].is_dir():
        return list(sources)
    inside = sorted(sources[0].iterdir())
    files = [path for path in inside if path.suffix.lower() in LIST_SUFFIXES and path.is_file()]
    found = {path: split for path in files if (split := split_of(path.stem))}
    if not found:
        raise UserError(f"{sources[0]} has no list named after train, val or test; give the list's file")
    splits = list(found.values())
    if repeated := [path.name for path, split in found.items() if splits.count(split) > 1]:
        raise UserError(f"{sources[0]} has more than one list of a split: {', '.join(repeated)}; give one")
    return list(found)


def _locate(
    name: str, folders: Sequence[Path], root_url: str | None, listing: FoundFiles | None
) -> Location | None:
    """Return where a listed video is; None if it is not found.

    Args:
        name: as the list has it; a missing suffix stands for .mp4, as in VideoMAE.
        folders: on this machine, if the root is not remote.
        root_url: the remote root.
        listing: its files, if its store lists them.
    """
    if url := remote_url(name):
        return url, None
    if listing:
        plain = posixpath.normpath(name)
        paths = (path for path in (name, plain, _with_suffix(plain)) if path in listing.stamps)
        return next(((listing.path_of(path), listing.stamps[path]) for path in paths), None)
    if root_url:
        return join_url(root_url, _with_suffix(name)), None
    for path in (folder / full for folder in folders for full in (name, _with_suffix(name))):
        with suppress(OSError):  # a name too long for a file, or a folder without permission to read
            if path.is_file() or (path.is_dir() and any(map(is_image, path.iterdir()))):
                return absolute_path(path), None
    return None


def _with_suffix(name: str) -> str:
    return name if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES else f"{name}.mp4"
