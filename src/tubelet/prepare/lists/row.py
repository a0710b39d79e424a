"""One video in a list, in the terms that all kinds of lists share."""

import re
from dataclasses import dataclass

# The names of each column, the most specific first; other columns are ignored.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "path": (
        "path", "video_path", "filepath", "file_path", "file_name", "filename", "file", "video", "clip",
        "clip_path", "video_name", "name", "youtube_id", "video_id", "vid", "id",
    ),
    "label": (
        "label_idx", "label_id", "class_id", "class_idx", "class_index", "template", "label", "labels",
        "class", "classes", "class_name", "category", "action", "target",
    ),
    "split": ("split", "subset", "partition"),
    "offset": ("offset", "start_frame", "start_index"),
    "frames": ("frames", "num_frames", "total_frames", "n_frames"),
    "start": ("time_start", "start_time", "start"),
    "end": ("time_end", "end_time", "end"),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One video in a list.

    Attributes:
        name: its path or id, as written.
        where: the list and the line, for messages.
        split: "train", "val" or "test"; None if the list does not specify it.
        labels: its classes, as numbers or as names.
        offset: number of the first image, in a folder of images.
        frames: number of images from `offset` on.
        start: seconds into the original video at which the clip begins.
        end: seconds at which it ends.
    """

    name: str
    where: str
    split: str | None = None
    labels: tuple[int | str, ...] = ()
    offset: int | None = None
    frames: int | None = None
    start: float | None = None
    end: float | None = None


def split_of(name: str) -> str | None:
    """Return the one split that the name of a file or folder contains: "val" for `kinetics_val_list.txt`."""
    words = re.split(r"[^a-z]+", name.lower())
    found = [split for split in ("train", "val", "test") if any(word.startswith(split) for word in words)]
    return found[0] if len(found) == 1 else None


def labels_in(cell: object) -> tuple[int | str, ...]:
    """Return the classes in a cell: a number, a name, `3;17`, `run|jump` or a list; -1 is no class."""
    if cell is None:
        return ()
    parts = cell if isinstance(cell, list) else re.split(r"[;|]", str(cell))
    labels = (number_in(str(part).strip()) for part in parts)
    return tuple(label for label in labels if label != "" and (isinstance(label, str) or label >= 0))


def number_in(text: str) -> int | str:
    """Return the whole number that a text is, or the text."""
    match = re.fullmatch(r"(-?\d+)(\.0*)?", text)
    return int(match[1]) if match else text
