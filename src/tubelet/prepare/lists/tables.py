"""Lists of videos as other projects write them, told apart by what is in them.

Read are lines of `path label`, `path` alone, `path 0 -1` (VideoMAE V2), `folder frames label` and
`id frames label`, `folder offset frames label`, all also with several labels, with blanks, tabs, commas or
semicolons between; tables with a line of column names; and JSON and JSONL of objects. Lines are
split from the right, so that a path may hold blanks and commas.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tubelet.errors import UserError, did_you_mean
from tubelet.files import csv_rows, read_text
from tubelet.prepare.lists.lines import read_lines
from tubelet.prepare.lists.row import COLUMN_NAMES, Row, labels_in, split_of
from tubelet.video.sources import VIDEO_SUFFIXES


@dataclass(frozen=True)
class VideoList:
    """The rows of one list, and in a few words what kind of list it was found to be."""

    rows: tuple[Row, ...]
    kind: str


def read_list(path: Path, columns: Sequence[str] = ()) -> VideoList:
    """Read a list of any of the known kinds.

    Args:
        path: the list.
        columns: what the fields of a line are, where the list does not tell: names among COLUMN_NAMES.

    Raises:
        UserError: a line is broken or may mean two things; the message names the file and the line.
    """
    for column in (column.removesuffix("...") for column in columns):
        if column not in COLUMN_NAMES:
            known = ", ".join(COLUMN_NAMES)
            raise UserError(f"no column '{column}'{did_you_mean(column, COLUMN_NAMES)}; there are {known}")
    text = read_text(path, "a list of videos")
    if not text.strip():
        raise UserError(f"{path} is empty; it should list videos")
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson") or _begins_as_json(text.lstrip()):
        kind, records = "JSON", _json_records(path, text)
    elif delimiter := None if columns else _header(text):
        kind, records = f"table with named columns, {_DELIMITERS[delimiter]}", _table(path, text, delimiter)
    else:
        kind, rows = read_lines(path, text, columns)
        return VideoList(tuple(rows), kind)
    return _read_records(path, records, kind)


_DELIMITERS = {",": "commas between", "\t": "tabs between", ";": "semicolons between", " ": "blanks between"}
_ANY_NAME = {name for names in COLUMN_NAMES.values() for name in names}
Records = Iterable[tuple[str, dict[str, Any]]]


def _header(text: str) -> str | None:
    """The delimiter of the table's first line where that names columns."""
    line = text.lstrip().splitlines()[0]
    for delimiter in _DELIMITERS:
        cells = {cell.strip().strip('"').lower() for cell in line.split(delimiter)}
        if any(Path(cell).suffix in VIDEO_SUFFIXES for cell in cells):
            return None
        if cells & set(COLUMN_NAMES["path"]) and (delimiter != " " or cells <= _ANY_NAME):
            return delimiter
    return None


def _table(path: Path, text: str, delimiter: str) -> Records:
    rows = csv_rows(path, text, delimiter)
    _, names = next(rows)
    for where, cells in rows:
        if len(cells) != len(names):
            raise UserError(f"{where}: more or fewer cells than columns; quote a path that holds a delimiter")
        yield where, dict(zip(names, cells, strict=True))


def _begins_as_json(text: str) -> bool:
    """Whether the text or its first line is JSON: `[Group] show.mp4 0` is a path and a label."""
    return text[0] in "[{" and (_parses(text.split("\n", 1)[0]) or _parses(text))


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _json_records(path: Path, text: str) -> Records:
    """Objects of a JSON array, the values of a JSON object by video, or one object a line."""
    try:
        content: Any = json.loads(text)
        if isinstance(content, dict) and any(isinstance(content.get(key), str) for key in _ANY_NAME):
            content = [content]  # JSONL of a single line
    except ValueError as error:
        lines = text.splitlines()
        if not text.lstrip().startswith("{") or len(lines) < 2:
            raise UserError(f"{path} is not valid JSON: {error}") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"{path}:{number}", _object(f"{path}:{number}", line)
        return
    if isinstance(content, list):
        for number, record in enumerate(content, start=1):
            if not isinstance(record, dict):
                raise UserError(
                    f"{path}: entry {number} must be an object with named fields, found {record!r}"
                )
            yield f"{path}: entry {number}", record
        return
    for key, value in content.items():
        nested = value.get("annotations") if isinstance(value, dict) else None
        fields = {**value, **(nested if isinstance(nested, dict) else {})} if isinstance(value, dict) else {}
        yield f"{path}: {key}", {**(fields or {"label": value}), "path": key}


def _object(where: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"{where} must be an object with named fields, found {line[:60]}")
    return record


def _read_records(path: Path, records: Records, kind: str) -> VideoList:
    rows = [_row({key.strip().lower(): cell for key, cell in r.items()}, where) for where, r in records]
    if not rows:
        raise UserError(f"{path} lists no video")
    return VideoList(tuple(rows), kind)


def _row(record: dict[str, Any], where: str) -> Row:
    cells = {
        column: next((record[name] for name in names if record.get(name) not in (None, "")), None)
        for column, names in COLUMN_NAMES.items()
    }
    if cells["path"] is None:
        raise UserError(
            f"{where}: no video named; a column path (or id) is needed, found {', '.join(record)}"
        )
    said = cells["split"]
    split = split_of(str(said)) if said is not None else None
    if said is not None and split is None:
        raise UserError(f"{where}: the split must be train, val or test, found '{said}'")
    if cells["label"] is not None and cells["label"] == record.get("template"):
        cells["label"] = re.sub(r"[\[\]]", "", str(cells["label"]))  # Something-Something's placeholders
    offset, frames = _number(cells["offset"]), _number(cells["frames"])
    return Row(
        name=str(cells["path"]),
        where=where,
        split=split,
        labels=labels_in(cells["label"]),
        offset=None if offset is None else int(offset),
        frames=None if frames is None else int(frames),
        start=_number(cells["start"]),
        end=_number(cells["end"]),
    )


def _number(cell: Any) -> float | None:
    """The number in a cell, or None: such a column may mean something else here, and is not needed."""
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
