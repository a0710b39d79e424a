"""Segments of videos as data sets of untrimmed videos list them: ActivityNet, Charades, Kinetics and AVA."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tubelet.errors import UserError, excerpt
from tubelet.files import csv_rows
from tubelet.prepare.lists.row import Row, number_in, seconds_in

_CONTAINERS = ("annotations", "actions")  # fields that contain segments
_AVA_SECONDS = 1.5  # on each side of the annotated time (arXiv 1705.08421, section 3)
_AVA_LINE = re.compile(r"[^,]+,\d+(?:\.\d+)?(?:,[01]?(?:\.\d+)?){4},\d*(?:,\d*)?")
_TIMED = re.compile(r"[^\s;]+ +\d+(?:\.\d+)? +\d+(?:\.\d+)?")  # a class and two times


def segments_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a record for each segment of a video, with `start` and `end`.

    A record has `annotations` (a list as in ActivityNet, or one object as in Kinetics), Charades' `actions`,
    `c092 11.90 21.20;c147 0.00 12.60`, or is one segment or a whole video.
    """
    annotations, actions = record.get("annotations"), record.get("actions")
    rest = {name: cell for name, cell in record.items() if name not in _CONTAINERS}
    if isinstance(annotations, dict):
        return [_with_times({**rest, **_lower(annotations), "youtube_id": record.get("path")})]
    if isinstance(annotations, list):
        return [_with_times({**rest, **_lower(entry)}) for entry in annotations if isinstance(entry, dict)]
    if isinstance(actions, str):
        parts = [part.strip() for part in actions.split(";") if part.strip()]
        if all(map(_TIMED.fullmatch, parts)):
            words = [part.split() for part in parts]
            return [{**rest, "label": label, "start": start, "end": end} for label, start, end in words]
    return [_with_times(dict(record))]


def _lower(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).strip().lower(): cell for name, cell in entry.items()}


def _with_times(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with its `segment: [start, end]` as two fields."""
    segment = record.get("segment")
    if not isinstance(segment, list) or len(segment) != 2:
        return record
    rest = {name: cell for name, cell in record.items() if name != "segment"}
    return {**rest, "start": segment[0], "end": segment[1]}


def is_ava(text: str) -> bool:
    """Return whether the first line is AVA's: video_id,time,x1,y1,x2,y2,action_id,person_id."""
    return _AVA_LINE.fullmatch(text.lstrip().split("\n", 1)[0].strip()) is not None


def read_ava(path: Path, text: str) -> Iterator[Row]:
    """Yield AVA's segments: each annotated time of a video once, with the classes of all persons.

    Raises:
        UserError: a line has another form.
    """
    found: dict[tuple[str, float], tuple[str, set[int]]] = {}
    for where, cells in csv_rows(path, text, ","):
        name, time, *_, action = (*cells[:2], *cells[6:7]) if len(cells) > 6 else ("", "", "")
        seconds, label = seconds_in(time), number_in(action)
        if seconds is None or (isinstance(label, str) and label):
            raise UserError(
                f"{where}: expected AVA's video_id,time,x1,y1,x2,y2,action_id,person_id, found "
                f"'{excerpt(','.join(cells))}'"
            )
        _, labels = found.setdefault((name, seconds), (where, set()))
        labels |= {label} if isinstance(label, int) else set()
    for (name, seconds), (where, labels) in found.items():
        start = max(seconds - _AVA_SECONDS, 0.0)
        yield Row(name, where, labels=tuple(sorted(labels)), start=start, end=seconds + _AVA_SECONDS)
