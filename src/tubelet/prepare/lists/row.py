"""One video in a list, in the terms that all kinds of lists share."""

import math
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

# The names of each column, the most specific first; other columns are reported as not used.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "path": (
        "path", "video_path", "filepath", "file_path", "file_name", "filename", "file", "video", "clip",
        "clip_path", "video_name", "vid_name", "name", "youtube_id", "video_id", "vid", "id",
    ),
    "label": (
        "label_idx", "label_id", "class_id", "class_idx", "class_index", "template", "label", "labels",
        "class", "classes", "class_name", "category", "action", "target", "verb_class", "noun_class",
    ),
    "split": ("split", "subset", "partition"),
    "offset": ("offset", "start_frame", "start_index"),
    "frames": ("frames", "num_frames", "total_frames", "n_frames"),
    "last": ("stop_frame", "end_frame", "end_index"),
    "start": (
        "time_start", "start_time", "start", "start_timestamp", "start_sec", "start_seconds", "start_s",
        "t_start", "clip_start",
    ),
    "end": (
        "time_end", "end_time", "end", "stop_timestamp", "end_timestamp", "stop_time", "stop", "end_sec",
        "end_seconds", "end_s", "stop_sec", "t_end", "clip_end",
    ),
    "duration": ("duration", "duration_s", "duration_sec", "clip_duration", "segment_duration"),
}  # fmt: skip
KNOWN_NAMES = frozenset(name for names in COLUMN_NAMES.values() for name in names)


@dataclass(frozen=True)
class Row:
    """One video in a list, or one segment of it.

    Attributes:
        name: its path or id, as written.
        where: the list and the line, for messages.
        split: "train", "val" or "test"; None if the list does not specify it.
        labels: its classes, as numbers or as names.
        offset: number of the first image, in a folder of images.
        frames: number of images from `offset` on.
        start: seconds into the original video at which the segment begins.
        end: seconds at which it ends.
        may_be_cut: the file may be that segment already, as most downloads from YouTube are.
        group: what must not be in two splits, such as the subject; empty if the list does not specify it.
    """

    name: str
    where: str
    split: str | None = None
    labels: tuple[int | str, ...] = ()
    offset: int | None = None
    frames: int | None = None
    start: float | None = None
    end: float | None = None
    may_be_cut: bool = False
    group: str = ""


def split_of(name: str) -> str | None:
    """Return the one split that the name of a file or folder contains: "val" for `kinetics_val_list.txt`."""
    words = re.split(r"[^a-z]+", name.lower())
    found = [split for split in ("train", "val", "test") if any(word.startswith(split) for word in words)]
    return found[0] if len(found) == 1 else None


def labels_in(cell: object) -> tuple[int | str, ...]:
    """Return the classes in a cell: a number, a name, `3;17`, `run|jump` or a list; -1: without a class."""
    if cell is None:
        return ()
    parts = cell if isinstance(cell, list) else re.split(r"[;|]", str(cell))
    labels = (number_in(str(part).strip()) for part in parts)
    return tuple(label for label in labels if label != "" and (isinstance(label, str) or label >= 0))


def is_plain(cell: object) -> bool:
    """Return whether a JSON value is text, a number or nothing, which a cell of a table can contain."""
    return not isinstance(cell, list | dict)


def number_in(text: str) -> int | str:
    """Return the whole number that a text is, or the text."""
    match = re.fullmatch(r"(-?\d{1,4000})(\.0*)?", text)  # Python reads no number of more than 4300 digits
    return int(match[1]) if match else text


def seconds_in(cell: Any) -> float | None:
    """Return the time in a cell, seconds or `[hours:]minutes:seconds`; None if it is not one."""
    parts = str(cell).strip().split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return None
    if len(parts) > 3 or not all(map(math.isfinite, numbers)):
        return None
    seconds = numbers[0]
    for number in numbers[1:]:
        seconds = seconds * 60 + number
    return round(seconds, 6)


def seconds_in_name(path: str) -> tuple[str, int, int] | None:
    """Return the id and the seconds in the name of a cut file: `ID_000010_000020.mp4`."""
    parts = PurePosixPath(path).stem.rsplit("_", 2)
    if len(parts) < 3 or not parts[0] or not all(part.isdecimal() for part in parts[1:]):
        return None
    return parts[0], int(parts[1]), int(parts[2])


def is_cut_to(path: str, row: Row) -> bool:
    """Return whether a file's name says that it is the row's segment already."""
    if row.start is None or row.end is None:
        return False
    found = seconds_in_name(path)
    return found is not None and found[1:] == (int(row.start), int(row.end))
