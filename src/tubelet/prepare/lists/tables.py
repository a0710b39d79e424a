"""Lists of videos as other projects write them: lines, tables with named columns, and JSON.

The format is detected from the content unless it is given.
"""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tubelet.data.manifest import COLUMNS
from tubelet.errors import UserError, did_you_mean, excerpt, first_few, plural, short_repr
from tubelet.files import RepeatedKeyError, csv_rows, parse_json, read_text
from tubelet.prepare.lists.formats import LINE_FORMATS, Columns
from tubelet.prepare.lists.lines import read_lines
from tubelet.prepare.lists.row import (
    COLUMN_NAMES,
    KNOWN_NAMES,
    Row,
    is_plain,
    labels_in,
    seconds_in,
    split_of,
)
from tubelet.prepare.lists.segment_columns import is_ava, read_ava, segments_of
from tubelet.video.sources import VIDEO_SUFFIXES

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", " ": "blanks"}
_HEADER_LINES = 20  # that decide whether the first of them is a header
_Record = tuple[str, Any]  # where it is, and a JSON value or the cells by column


@dataclass(frozen=True)
class VideoList:
    """The rows of a list, its format in a few words, and what of it is not understood or not used."""

    rows: tuple[Row, ...]
    kind: str
    notes: tuple[str, ...] = ()


def read_list(
    path: Path,
    columns: Sequence[str] = (),
    list_format: str | None = None,
    *,
    label: str = "",
    group: str = "",
) -> VideoList:
    """Read a list.

    Args:
        path: the list.
        columns: what the fields of a line are: names in COLUMN_NAMES, "label..." for any number of labels.
        list_format: one of FORMATS; detected if None.
        label: the named column that contains the labels; detected if empty.
        group: the named column that contains the groups; empty for none.

    Raises:
        UserError: a line is broken or ambiguous; the message names the file and the line.
    """
    if list_format and columns:
        raise UserError("--format and --columns both specify the lists' lines; give one of them")
    for column in (column.removesuffix("...") for column in columns):
        if column not in COLUMN_NAMES:
            hint = did_you_mean(column, COLUMN_NAMES)
            raise UserError(f"no column '{column}'{hint}; there are {', '.join(COLUMN_NAMES)}")
    text = read_text(path, "a list of videos")
    if not text.strip():
        raise UserError(f"{path} is empty; it should list videos")
    if list_format == "json" or (not list_format and _is_json(path, text)):
        return _from_records(path, "JSON", _json_records(path, text), label, group)
    delimiter = None if columns or list_format in LINE_FORMATS else _header_delimiter(path, text)
    if delimiter:
        kind = f"table with named columns, separated by {_DELIMITERS[delimiter]}"
        return _from_records(path, kind, _table_records(path, text, delimiter), label, group)
    if list_format == "csv":
        raise UserError(f"{path}: the first line must name the columns: path, label, ...")
    if option := f"--label {label}" if label else f"--group {group}" if group else "":
        raise UserError(f"{path}: {option} names a column, but the list's first line does not name columns")
    if list_format == "ava" or (not columns and not list_format and is_ava(text)):
        note = "AVA's boxes are not used: each time is a segment of 3 s with the classes of all persons"
        return VideoList(tuple(read_ava(path, text)), "AVA's lines", (note,))
    columns, notes = LINE_FORMATS.get(list_format or "", columns), []
    if columns and (header := _header(text)) and len(header.cells) > 1:
        notes = [f"{path.name}: the first line names columns ({first_few(header.cells)}) and is left out"]
        text = _without_first_line(text)
    found, rows = read_lines(path, text, columns)
    if not rows:
        raise UserError(f"{path} lists no video")
    return VideoList(tuple(rows), _kind(tuple(found)), tuple(notes))


def _kind(columns: Columns) -> str:
    """Describe the format of lines by their columns and by its name."""
    names = [name for name, known in LINE_FORMATS.items() if known == columns]
    multi_label = ", multi-label" if columns[-1] == "label..." else ""
    return f"lines of `{' '.join(columns)}`{multi_label}" + (f" (--format {names[0]})" if names else "")


def _header_delimiter(path: Path, text: str) -> str | None:
    """Return the delimiter of the first line if that names columns.

    Raises:
        UserError: it names columns, and none that is known to contain the videos.
    """
    header = _header(text)
    if header and not header.names_videos:
        raise UserError(
            f"{path}:1: no column of this header is known to contain the videos: expected one of "
            f"{', '.join(COLUMN_NAMES['path'])}, found {excerpt(', '.join(header.cells))}. "
            "Rename the column, or specify the fields with --columns"
        )
    return header.delimiter if header else None


@dataclass(frozen=True)
class _Header:
    """The names of columns in a list's first line; whether one is known to contain the videos."""

    delimiter: str
    cells: tuple[str, ...]
    names_videos: bool


def _header(text: str) -> _Header | None:
    """Return the first line's names of columns; None if it has a video, as the others do."""
    first, *others = text.strip().split("\n", _HEADER_LINES)[:_HEADER_LINES]
    cells_by = {mark: tuple(cell.strip().strip('"') for cell in first.split(mark)) for mark in _DELIMITERS}
    for delimiter, cells in cells_by.items():
        names = {cell.lower() for cell in cells}
        if any(Path(name).suffix in VIDEO_SUFFIXES for name in names):
            return None
        if names & set(COLUMN_NAMES["path"]) and (delimiter != " " or names <= KNOWN_NAMES):
            return _Header(delimiter, cells, names_videos=True)
    for delimiter, cells in cells_by.items():
        if _is_header(cells, list(csv.reader(others, delimiter=delimiter)), delimiter):
            return _Header(delimiter, cells, names_videos=False)
    return None


def _without_first_line(text: str) -> str:
    """Return a list without its first line that is not empty; the others keep their numbers."""
    start = len(text) - len(text.lstrip())
    _, line_end, others = text[start:].partition("\n")
    return text[:start] + line_end + others


def _is_header(cells: Sequence[str], others: Sequence[Sequence[str]], delimiter: str) -> bool:
    """Return whether the first line's cells are names and those of the other lines are values."""
    if len(cells) < 2 or not others or any(len(line) != len(cells) for line in others):
        return False
    if not all(re.fullmatch(r"[^\W\d][\w ().#-]*", cell) for cell in cells):
        return False
    names = {cell.lower() for cell in cells}
    if names <= KNOWN_NAMES or (names & KNOWN_NAMES and delimiter != " "):
        return True
    return any(all(map(_is_value, column)) for column in zip(*others, strict=True))


def _is_value(cell: str) -> bool:
    """Return whether a cell is a number or a video, which no column is called."""
    return seconds_in(cell) is not None or Path(cell.strip().strip('"')).suffix.lower() in VIDEO_SUFFIXES


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
            parse_json(path, part)
        except RepeatedKeyError:
            return True
        except UserError:
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
        content = parse_json(path, text)
    except RepeatedKeyError:
        raise
    except UserError:
        if len(lines) < 2 or not text.lstrip().startswith("{"):
            raise
        return [(where, parse_json(where, line)) for where, line in lines]
    if isinstance(content, dict) and isinstance(content.get("database"), dict):  # ActivityNet, HACS, THUMOS
        content = content["database"]
    if not isinstance(content, dict):
        entries = content if isinstance(content, list) else [content]
        return [(f"{path}: entry {n}", entry) for n, entry in enumerate(entries, start=1)]
    if any(isinstance(content.get(name), str) for name in KNOWN_NAMES):  # JSONL of a single line
        return [(f"{path}: entry 1", content)]
    return [
        (f"{path}: {name}", {**(value if isinstance(value, dict) else {"label": value}), "path": name})
        for name, value in content.items()
    ]


def _from_records(path: Path, kind: str, records: Iterable[_Record], label: str, group: str) -> VideoList:
    rows: list[Row] = []
    found: dict[str, None] = {}  # all columns, in order
    without_segment, no_times = [], []
    for where, value in records:
        if not isinstance(value, dict):
            raise UserError(f"{where} must be an object with named fields, found {short_repr(value)}")
        record = {str(name).strip().lower(): cell for name, cell in value.items()}
        entries = segments_of(record)
        without_segment += [] if entries else [where]
        for entry in entries:
            found |= dict.fromkeys(entry)
            rows.append(_row_of_record(where, entry, label.lower(), group.lower()))
            no_times += [where] if _no_time(entry) else []
    if not rows:
        raise UserError(f"{path} lists no video")
    for option, name in (("--label", label), ("--group", group)):
        if name and name.lower() not in found:
            raise UserError(f"{path}: no column '{name}' for {option}; there are {first_few([*found])}")
    notes = []
    if unknown := [
        name for name in found if name not in {*KNOWN_NAMES, *COLUMNS, label.lower(), group.lower()}
    ]:
        notes.append(f"{path.name}: columns that are not used: {first_few(unknown)}")
        if not any(row.labels for row in rows):
            notes.append(f"{path.name}: no column is known to contain the labels; --label COLUMN names it")
    if not label and {"verb_class", "noun_class"} <= found.keys():
        notes.append(f"{path.name}: the labels are verb_class; --label noun_class uses the nouns")
    if without_segment:
        lines = plural(len(without_segment), "video")
        notes.append(f"{lines} without a segment, left out, such as {without_segment[0]}")
    if no_times:
        lines = plural(len(no_times), "line")
        notes.append(f"{lines} with a start or end that is not a time, ignored, such as {no_times[0]}")
    return VideoList(tuple(rows), kind, tuple(notes))


def _known_cells(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first filled cell of each known column; None if there is no such cell."""
    return {
        column: next((record[name] for name in names if record.get(name) not in (None, "")), None)
        for column, names in COLUMN_NAMES.items()
    }


def _no_time(record: Mapping[str, Any]) -> bool:
    cells = _known_cells(record)
    return any(cells[name] is not None and seconds_in(cells[name]) is None for name in ("start", "end"))


def _row_of_record(where: str, record: Mapping[str, Any], label: str, group: str) -> Row:
    cells = _known_cells(record)
    if cells["path"] is None:
        raise UserError(
            f"{where}: no video named; a column path (or id) is required, found {first_few([*record])}"
        )
    split = split_of(str(cells["split"]))
    if cells["split"] is not None and split is None:
        raise UserError(f"{where}: the split must be train, val or test, found {short_repr(cells['split'])}")
    if label:
        cells["label"] = record.get(label)
    elif cells["label"] is not None and cells["label"] == record.get("template"):
        cells["label"] = re.sub(r"[\[\]]", "", str(cells["label"]))  # Something-Something's placeholders
    labels = cells["label"] if isinstance(cells["label"], list) else [cells["label"]]
    for column, values in (("path", [cells["path"]]), ("label", labels)):
        if not all(map(is_plain, values)):
            raise UserError(
                f"{where}: expected text or a number as {column}, found {short_repr(cells[column])}"
            )
    offset, frames, last = (_number(cells[name]) for name in ("offset", "frames", "last"))
    if frames is None and last is not None:
        frames = last - (offset or 0) + 1
    start, end, duration = (seconds_in(cells[name]) for name in ("start", "end", "duration"))
    if end is None and start is not None and duration is not None:
        end = start + duration
    return Row(
        name=str(cells["path"]),
        where=where,
        split=split,
        labels=labels_in(cells["label"]),
        offset=None if offset is None else int(offset),
        frames=None if frames is None else int(frames),
        start=start,
        end=end,
        may_be_cut="youtube_id" in record,
        group="" if record.get(group) is None else str(record[group]).strip(),
    )


def _number(cell: Any) -> float | None:
    """Return the number in a cell; None if it is not one: the column may have another meaning here."""
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
