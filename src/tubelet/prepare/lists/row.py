"""What a list says of one video, in the terms that all kinds of lists share."""

import re
from dataclasses import dataclass

"""How the names of video files end."""
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
"""What each column may be called, the likeliest first; other columns are passed over."""


@dataclass(frozen=True)
class Row:
    """One video as a list tells of it.

    Attributes:
        name: its path or id, as written.
        where: the list and the line, for messages.
        split: "train", "val" or "test", where the list says so.
        labels: its classes, as numbers or as names; empty where it has none.
        offset: number of the first picture, for a folder of pictures.
        frames: how many pictures there are from `offset` on.
        start: seconds into the original video at which the clip was cut.
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
    """The split that a file's or a folder's name speaks of: `kinetics_val_list.txt` of "val"."""
    found = {
        split
        for word in re.split(r"[^a-z]+", name.lower())
        for split in ("train", "val", "test")
        if word.startswith(split)
    }
    return found.pop() if len(found) == 1 else None


def labels_in(cell: object) -> tuple[int | str, ...]:
    """The classes in a cell: a number, a name, `3;17`, `run|jump` or a JSON array; negative means none."""
    if cell is None:
        return ()
    parts = cell if isinstance(cell, list) else re.split(r"[;|]", str(cell))
    found = (number_in(str(part).strip()) for part in parts)
    return tuple(label for label in found if label != "" and (isinstance(label, str) or label >= 0))


def number_in(text: str) -> int | str:
    """The whole number that a text is, or the text."""
    match = re.fullmatch(r"(-?\d+)(\.0*)?", text)
    return int(match[1]) if match else text
