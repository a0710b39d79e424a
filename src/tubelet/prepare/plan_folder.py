"""The videos of a folder: which of its folders are classes and which are splits."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tubelet.data.manifest import SPLITS
from tubelet.errors import UserError, plural
from tubelet.prepare.copies import draw_splits
from tubelet.prepare.find_files import FoundFiles
from tubelet.prepare.lists.row import split_of
from tubelet.prepare.places import place
from tubelet.prepare.plan import Item, Plan

_SPLIT_FOLDER = re.compile(
    r"(videos?[_-])?(train|training|val|valid|validate|validation|test|testing)([_-]?(\d+|set|videos?|split))?",
    re.IGNORECASE,
)

Folders = tuple[str, ...]
"""The folders that a video lies in, from the outermost on."""


def plan_folder(files: FoundFiles, *, seed: int = 0, unlabelled: bool = False) -> Plan:
    """The videos of a folder: its folders are classes, or splits that hold classes; or it has no classes.

    A class folder is the outermost that holds videos itself; folders that all videos share count for nothing.
    It gives the class its name or, where class folders lie at several depths or share a name, its path.
    Without folders for the splits a tenth of each class is validated on and a tenth tested on, drawn by the
    names, so that a video that is added moves few others.

    Args:
        files: what lies in the folder.
        seed: of the draw.
        unlabelled: take folders for mere folders: all videos are to pre-train on.

    Raises:
        UserError: there are no videos.
    """
    if not files.videos:
        raise UserError(
            f"no videos in {files.root}: no file ends in .mp4, .webm, .avi, .mov, .mkv or the like"
        )
    layout = _layout(files.videos)
    classes = _classes(layout.folders)
    ignored = (*_pictures(files), *files.others)
    reason = _no_classes(layout, classes)
    if unlabelled or reason:
        split = {path: layout.splits.get(path, "train") for path in files.videos}
        kind = f"videos without classes ({'as asked' if unlabelled else reason}), to pre-train on"
        return Plan(kind, _items(files, split, {}), ignored=ignored)
    names = tuple(sorted(set(classes.names.values())))
    labels = {path: names.index(classes.names[folder]) for path, folder in classes.of.items()}
    splits = layout.splits or draw_splits(labels, seed)
    kind = f"a folder for each of {len(names)} classes"
    kind += f", below {'/'.join(layout.shared)}" if layout.shared else ""
    notes = list(classes.notes())
    if layout.splits:
        kind += f", in folders for {', '.join(split for split in SPLITS if split in splits.values())}"
    else:
        notes.append(
            f"a tenth of each class is validated on and a tenth tested on, drawn with --split-seed {seed}"
        )
    return Plan(
        kind,
        _items(files, {path: splits[path] for path in files.videos if path in labels}, labels),
        names,
        drawn=None if layout.splits else seed,
        left_out=tuple(path for path in files.videos if path not in labels),
        ignored=ignored,
        notes=tuple(notes),
    )


def _pictures(files: FoundFiles) -> Iterable[str]:
    """The folders that hold pictures, in words."""
    for path, count in files.pictures.items():
        folder = f"{Path(place(files.root)).name or files.root} itself" if path == "." else path
        yield f"{folder} ({plural(count, 'picture')})"


def _items(files: FoundFiles, splits: Mapping[str, str], labels: Mapping[str, int]) -> tuple[Item, ...]:
    return tuple(
        Item(
            files.place(path),
            path,
            split,
            (labels[path],) if path in labels else (),
            stamp=files.stamps.get(path),
        )
        for path, split in splits.items()
    )


def _no_classes(layout: "_Layout", classes: "_Classes") -> str:
    """Why the folders are no classes; the empty string where they are."""
    if len(classes.loose) >= len(classes.of) and any(layout.folders.values()):
        return f"{classes.loose[0]} lies in no class folder"
    return "" if len(classes.names) > 1 else "no class folders"


# ---------------------------------------------------------------------------------------------------- splits


@dataclass(frozen=True)
class _Layout:
    """The folders of each video without those that all share and those of the splits.

    Where folders give the splits, `folders` and `splits` know no other videos than those that lie in one.
    """

    folders: dict[str, Folders]
    shared: Folders
    splits: dict[str, str] = field(default_factory=dict)


def _layout(paths: Iterable[str]) -> _Layout:
    shared, folders = _unwrapped({path: tuple(path.split("/")[:-1]) for path in paths})
    above = {path: _split_folder(folder[0]) for path, folder in folders.items() if folder}
    within = {path: _split_folder(folder[-1]) for path, folder in folders.items() if len(folder) > 1}
    if all(above.values()) or len(set(above.values()) - {None}) > 1:
        splits = {path: split for path, split in above.items() if split}
        rest = {path: folders[path][1:] for path in splits}
    elif len(within) == len(folders) and all(within.values()) and len(set(within.values())) > 1:
        splits = {path: split for path, split in within.items() if split}
        rest = {path: folders[path][:-1] for path in splits}
    else:
        return _Layout(folders, shared)
    below, rest = _unwrapped(rest)
    return _Layout(rest, (*shared, *below), splits)


def _unwrapped(folders: dict[str, Folders]) -> tuple[Folders, dict[str, Folders]]:
    """The outer folders that all videos share, but for those of a split, and the rest."""
    shared: list[str] = []
    while True:
        first = {folder[: len(shared) + 1] for folder in folders.values()}
        (only,) = first if len(first) == 1 else ((),)
        if len(only) <= len(shared) or _split_folder(only[-1]):
            return tuple(shared), {path: folder[len(shared) :] for path, folder in folders.items()}
        shared.append(only[-1])


def _split_folder(name: str) -> str | None:
    return split_of(name) if _SPLIT_FOLDER.fullmatch(name) else None


# --------------------------------------------------------------------------------------------------- classes


@dataclass(frozen=True)
class _Classes:
    """The class folder of each video, the classes' names by their folders, and the videos in none."""

    of: dict[str, Folders]
    names: dict[Folders, str]
    loose: list[str]
    deeper: list[str]

    def notes(self) -> Iterable[str]:
        """What is not plain about the classes."""
        if paths := [name for folder, name in self.names.items() if name != folder[-1]]:
            name, count = Counter(folder[-1] for folder in self.names).most_common(1)[0]
            same_depth = len({len(folder) for folder in self.names}) == 1
            why = (
                f"{count} class folders are called {name}"
                if same_depth
                else "class folders lie at several depths"
            )
            yield f"classes are named by their paths, such as {paths[0]}: {why}"
        if count := len(self.deeper):
            videos = plural(count, "video lies", "videos lie")
            yield f"{videos} deeper in a class folder, counted to it, such as {self.deeper[0]}"


def _classes(folders: Mapping[str, Folders]) -> _Classes:
    holding = set(folders.values()) - {()}
    of = {
        path: next(folder[:depth] for depth in range(1, len(folder) + 1) if folder[:depth] in holding)
        for path, folder in folders.items()
        if folder
    }
    found = sorted(set(of.values()))
    plain = len({len(folder) for folder in found}) == 1 and len({folder[-1] for folder in found}) == len(
        found
    )
    return _Classes(
        of,
        {folder: folder[-1] if plain else "/".join(folder) for folder in found},
        [path for path, folder in folders.items() if not folder],
        [path for path, folder in of.items() if folder != folders[path]],
    )
