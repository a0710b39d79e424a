"""Lists of videos as other projects write them: lines, tables with named columns, and JSON.

The format is detected from the content unless it is given.
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
from tubelet.prepare.lists.lines import LINE_FORMATS, read_lines
from tubelet.prepare.lists.row import COLUMN_NAMES, Row, labels_in, split_of
from tubelet.video.sources import VIDEO_SUFFIXES

FORMATS = (*LINE_FORMATS, "csv", "json")
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", " ": "blanks"}
_KNOWN_NAMES = {name for names in COLUMN_NAMES.values() for name in names}
_Record = tuple[str, Any]  # where it is, and a JSON value or the cells by column


@dataclass(frozen=True)
class VideoList:
    """The rows of a list, and its format in a few words."""

    rows: tuple[Row, ...]
    kind: str


def read_list(path: Path, columns: Sequence[str] = (), list_format: str = "") -> VideoList:
    """Read a list.

    Args:
        path: the list.
        columns: what the fields of a line are: names in COLUMN_NAMES, "label..." for any number of labels.
        list_format: one of FORMATS; detected if empty.

    Raises:
        UserError: a line is broken or ambiguous; the message names the file and the line.
    """
    if list_format and columns:
        raise UserError("--format and --columns both specify the lists' lines; give one of them")
    if list_format and list_format not in FORMATS:
        raise UserError(
            f"--format {list_format} is unknown{did_you_mean(list_format, FORMATS)}; "
            f"it can be {', '.join(FORMATS)}"
        )
    for column in (column.removesuffix("...") for column in columns):
        if column not in COLUMN_NAMES:
            hint = did_you_mean(column, COLUMN_NAMES)
            raise UserError(f"no column '{column}'{hint}; there are {', '.join(COLUMN_NAMES)}")
    text = read_text(path, "a list of videos")
    if not text.strip():
        raise UserError(f"{path} is empty; it should list videos")
    if list_format == "json" or (not list_format and _is_json(path, text)):
        return _from_records(path, "JSON", _json_records(path, text))
    delimiter = None if columns or list_format in LINE_FORMATS else _header_delimiter(text)
    if delimiter:
        kind = f"table with named columns, separated by {_DELIMITERS[delimiter]}"
        return _from_records(path, kind, _table_records(path, text, delimiter))
    if list_format == "csv":
        raise UserError(f"{path}: the first line must name the columns: path, label, ...")
    found, rows = read_lines(path, text, LINE_FORMATS.get(list_format, columns))
    return VideoList(tuple(rows), f"lines of `{' '.join(found)}`")


def _header_delimiter(text: str) -> str | None:
    """Return the delimiter of the first line if that names columns."""
    line = text.lstrip().splitlines()[0]
    for delimiter in _DELIMITERS:
        cells = {cell.strip().strip('"').lower() for cell in line.split(delimiter)}
        if any(Path(cell).suffix in VIDEO_SUFFIXES for cell in cells):
            return None
        if cells & set(COLUMN_NAMES["path"]) and (delimiter != " " or cells <= _KNOWN_NAMES):
            return delimiter
    return None


def _table_records(path: Path, text: str, delimiter: str) -> Iterable[_Record]:
    rows = csv_rows(path, text, delimiter)
    _, names = next(rows)
    for where, cells in rows:
        if len(cells) != len(names):
            raise UserError(
                f"{where}: more or fewer cells than columns; quote a path that contains a delimiter"
            )
        yield where, dict(zip(names, cells, strict=True))


def _is_json(path: Path, text: str) -> bool:
    """Return whether a list is JSON; `[Group] show.mp4 0` is a path and a label."""

    def parses(part: str) -> bool:
        try:
            json.loads(part)
        except ValueError:
            return False
        return True

    if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        return True
    text = text.lstrip()
    return text[0] in "[{" and (parses(text.split("\n", 1)[0]) or parses(text))


def _json_records(path: Path, text: str) -> Iterable[_Record]:
    """Return the objects of an array, the values of an object by video, or one object a line."""
    lines = [(f"{path}:{n}", line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    try:
        content = json.loads(text)
    except ValueError as error:
        if len(lines) < 2 or not text.lstrip().startswith("{"):
            raise UserError(f"{path} is not valid JSON: {error}") from None
        return [(where, _parse(where, line)) for where, line in lines]
    if not isinstance(content, dict):
        entries = content if isinstance(content, list) else [content]
        return [(f"{path}: entry {n}", entry) for n, entry in enumerate(entries, start=1)]
    if any(isinstance(content.get(name), str) for name in _KNOWN_NAMES):  # JSONL of a single line
        return [(f"{path}: entry 1", content)]
    return [(f"{path}: {name}", {**_fields(value), "path": name}) for name, value in content.items()]


def _parse(where: str, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON: {error}") from None


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a JSON object's value: an object, also with `annotations` inside, or a label."""
    if not isinstance(value, dict):
        return {"label": value}
    nested = value.get("annotations")
    return {**value, **(nested if isinstance(nested, dict) else {})}


def _from_records(path: Path, kind: str, records: Iterable[_Record]) -> VideoList:
    rows = tuple(_row(where, record) for where, record in records)
    if not rows:
        raise UserError(f"{path} lists no video")
    return VideoList(rows, kind)


def _row(where: str, record: Any) -> Row:
    if not isinstance(record, dict):
        raise UserError(f"{where} must be an object with named fields, found {str(record)[:60]}")
    record = {name.strip().lower(): cell for name, cell in record.items()}
    cells = {
        column: next((record[name] for name in names if record.get(name) not in (None, "")), None)
        for column, names in COLUMN_NAMES.items()
    }
    if cells["path"] is None:
        raise UserError(
            f"{where}: no video named; a column path (or id) is required, found {', '.join(record)}"
        )
    split = split_of(str(cells["split"]))
    if cells["split"] is not None and split is None:
        raise UserError(f"{where}: the split must be train, val or test, found '{cells['split']}'")
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
    """Return the number in a cell; None if it is not one: the column may have another meaning here."""
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
