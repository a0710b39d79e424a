"""Plan the videos of a folder: detect which of its folders are classes and which are splits."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tubelet.data.manifest import SPLITS
from tubelet.errors import UserError, plural
from tubelet.prepare.find_files import FoundFiles
from tubelet.prepare.groups import groups_of, with_group_notes
from tubelet.prepare.lists.class_names import require_class_name
from tubelet.prepare.lists.row import split_of
from tubelet.prepare.paths import absolute_path
from tubelet.prepare.plan import ListedVideo, PreparePlan, SplitDraw

_SPLIT_FOLDER = re.compile(
    r"(videos?[_-])?(train|training|val|valid|validate|validation|test|testing)([_-]?(\d+|set|videos?|split))?",
    re.IGNORECASE,
)

Folders = tuple[str, ...]
"""The folders that contain a video, the outermost first."""


def plan_folder(
    files: FoundFiles, *, draw: SplitDraw | None = None, unlabeled: bool = False, group: str = ""
) -> PreparePlan:
    """Plan the videos of a folder by its layout, with the group that is in each relative path.

    Args:
        files: the files of the folder.
        draw: how splits are drawn if folders do not specify them; None is a tenth each.
        unlabeled: folders are not classes: all videos are for pre-training.
        group: a regular expression with one group in parentheses; empty for none.

    Raises:
        UserError: there are no videos, a draw is given beside folders for the splits, or the group is wrong.
    """
    plan = _plan_layout(files, draw=draw, unlabeled=unlabeled)
    if not group:
        return plan
    groups = groups_of([video.name for video in plan.videos], group)
    videos = tuple(replace(video, group=name) for video, name in zip(plan.videos, groups, strict=True))
    return with_group_notes(replace(plan, videos=videos), group)


def _plan_layout(files: FoundFiles, *, draw: SplitDraw | None, unlabeled: bool) -> PreparePlan:
    """Plan the videos of a folder: its folders are classes, or splits with classes in them, or neither.

    A class folder is the outermost that directly contains videos; common parent folders are ignored. The
    class has the folder's name or, if class folders are at different depths or share a name, its path.
    Without folders for the splits, they are drawn.
    """
    if not files.videos:
        raise UserError(
            f"no videos in {files.root}: no file name ends in .mp4, .webm, .avi, .mov, .mkv or similar"
        )
    layout = _layout(files.videos)
    classes = _classes(layout.folders)
    ignored = (*_image_folders(files), *files.others)
    reason = "as requested" if unlabeled else _reason_for_no_classes(layout, classes)
    if reason:
        kind = f"videos without classes ({reason}), for pre-training"
        splits = {path: layout.splits.get(path, "train") for path in files.videos}
        return PreparePlan(kind, _videos(files, splits, {}), ignored=ignored)
    for folder, name in classes.names.items():
        require_class_name(name, f"{files.root}: folder {'/'.join(folder)!r}")
    names = tuple(sorted(set(classes.names.values())))
    labels = {path: names.index(classes.names[folder]) for path, folder in classes.folder_of.items()}
    kind = f"a folder for each of {len(names)} classes"
    kind += f", below {'/'.join(layout.shared)}" if layout.shared else ""
    notes = list(classes.notes())
    if layout.splits:
        if draw:
            draw.require_default_shares(f"{files.root}: the folder {next(iter(layout.splits))}")
        kind += f", in folders for {', '.join(split for split in SPLITS if split in layout.splits.values())}"
    else:
        notes.append(str(draw or SplitDraw()))
    return PreparePlan(
        kind,
        _videos(files, {path: layout.splits.get(path) for path in files.videos if path in labels}, labels),
        names,
        draw=None if layout.splits else draw or SplitDraw(),
        left_out=tuple(path for path in files.videos if path not in labels),
        ignored=ignored,
        notes=tuple(notes),
    )


def _image_folders(files: FoundFiles) -> Iterable[str]:
    """Yield the folders that contain images, with the number of images."""
    for path, count in files.images.items():
        folder = f"{Path(absolute_path(files.root)).name or files.root} itself" if path == "." else path
        yield f"{folder} ({plural(count, 'image')})"


def _videos(
    files: FoundFiles, splits: Mapping[str, str | None], labels: Mapping[str, int]
) -> tuple[ListedVideo, ...]:
    found = []
    for path, split in splits.items():
        label = (labels[path],) if path in labels else ()
        found.append(ListedVideo(files.path_of(path), path, split, label, stamp=files.stamps.get(path)))
    return tuple(found)


def _reason_for_no_classes(layout: "_Layout", classes: "_Classes") -> str:
    """Return why the folders are not classes; empty if they are."""
    if len(classes.outside) >= len(classes.folder_of) and any(layout.folders.values()):
        return f"{classes.outside[0]} is in no class folder"
    return "" if len(classes.names) > 1 else "no class folders"


# ---------------------------------------------------------------------------------------------------- splits


@dataclass(frozen=True)
class _Layout:
    """The folders of each video without those that all share and those of the splits.

    If folders are the splits, `folders` and `splits` contain only the videos in such a folder.
    """

    folders: dict[str, Folders]
    shared: Folders
    splits: dict[str, str] = field(default_factory=dict)


def _layout(paths: Iterable[str]) -> _Layout:
    shared, folders = _without_shared({path: tuple(path.split("/")[:-1]) for path in paths})
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
    below, rest = _without_shared(rest)
    return _Layout(rest, (*shared, *below), splits)


def _without_shared(folders: dict[str, Folders]) -> tuple[Folders, dict[str, Folders]]:
    """Return the outer folders that all videos share, up to those of a split, and the other folders."""
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
    """The class folder of each video, the class name of each folder, and the videos outside and deeper."""

    folder_of: dict[str, Folders]
    names: dict[Folders, str]
    outside: list[str]
    deeper: list[str]

    def notes(self) -> Iterable[str]:
        """Yield remarks on how classes were named and videos counted."""
        if paths := [name for folder, name in self.names.items() if name != folder[-1]]:
            name, count = Counter(folder[-1] for folder in self.names).most_common(1)[0]
            same_depth = len({len(folder) for folder in self.names}) == 1
            reason = f"{count} class folders are called {name}" if same_depth else "their depths differ"
            yield f"classes are named by their paths, such as {paths[0]}: {reason}"
        if count := len(self.deeper):
            videos = plural(count, "video is", "videos are")
            yield f"{videos} deeper in a class folder, which is the class, such as {self.deeper[0]}"


def _classes(folders: Mapping[str, Folders]) -> _Classes:
    direct = set(folders.values()) - {()}
    folder_of = {
        path: next(folder[:depth] for depth in range(1, len(folder) + 1) if folder[:depth] in direct)
        for path, folder in folders.items()
        if folder
    }
    found = sorted(set(folder_of.values()))
    distinct = len({len(folder) for folder in found}) == 1 and len({f[-1] for f in found}) == len(found)
    return _Classes(
        folder_of,
        {folder: folder[-1] if distinct else "/".join(folder) for folder in found},
        [path for path, folder in folders.items() if not folder],
        [path for path, folder in folder_of.items() if folder != folders[path]],
    )
