"""Lines of a path and fields behind it, as training scripts read them: `path label` and its relatives.

A line is split from the right, or behind the ending of a video's name, so that a path may hold blanks and
commas. What the fields are is found out from all lines together.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tubelet.data.rows import VIDEO_SUFFIXES, Row, labels_in, number_in, split_of
from tubelet.errors import UserError

_ENDS = "|".join(sorted(re.escape(suffix) for suffix in VIDEO_SUFFIXES))
_QUOTED = re.compile(r'"(?P<path>(?:[^"]|"")*)"(?:[ \t]*[,;\t ][ \t]*(?P<rest>.*))?')
_NAME = rf".*(?:{_ENDS})(?:\?[^\s,;]*)?"  # a web address may have a query
_FILE = re.compile(rf"(?P<path>{_NAME})(?:(?P<between>[ \t]*[,;\t ][ \t]*)(?P<rest>.*))?", re.IGNORECASE)
_VIDEO = re.compile(_NAME, re.IGNORECASE)
_NUMBERS_AT_END = re.compile(r"(?:[ \t]*[,;\t ][ \t]*-?\d+)*$")


@dataclass(frozen=True)
class _Line:
    """`path` and the fields behind it; `file` where its name ends like a video's."""

    where: str
    text: str
    path: str
    fields: tuple[str, ...]
    file: bool


def read_lines(path: Path, text: str, columns: Sequence[str]) -> tuple[str, list[Row]]:
    """The kind of lines that a list holds, in words, and its rows.

    Args:
        path: the list, for messages.
        text: what is in it.
        columns: what the fields of a line are; found out where nothing is given.

    Raises:
        UserError: a line is broken or may mean two things.
    """
    lines = [
        _line(f"{path}:{number}", line.strip())
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if columns:
        return f"lines of {' '.join(columns)}", list(_by_columns(lines, columns))
    kind, names = _kind(lines)
    return kind, list(_by_columns(lines, names))


def _line(where: str, text: str) -> _Line:
    if match := _QUOTED.fullmatch(text) or _FILE.fullmatch(text):
        rest = (match["rest"] or "").strip()
        fields = (
            re.split(r"[ \t]*[,;\t][ \t]*", rest) if re.search(r"[,;\t]", rest) else [rest] if rest else []
        )
        if len(fields) == 1 and re.fullmatch(r"-?\d+(?: +-?\d+)*", rest):
            fields = rest.split()
        name = match["path"].replace('""', '"') if text.startswith('"') else match["path"]
        return _Line(where, text, name, tuple(fields), _VIDEO.fullmatch(name) is not None)
    numbers = _NUMBERS_AT_END.search(text)
    end = numbers.start() if numbers else len(text)
    if end == len(text) and len(parts := re.split(r"[,;\t]", text)) == 2:  # name and class name
        return _Line(where, text, parts[0].strip(), (parts[1].strip(),), False)
    return _Line(where, text, text[:end], tuple(re.findall(r"-?\d+", text[end:])), False)


def _kind(lines: Sequence[_Line]) -> tuple[str, tuple[str, ...]]:
    """What the lines are, in words and as columns ("label..." for any number of labels)."""
    counts = Counter(len(line.fields) for line in lines)
    usual = counts.most_common(1)[0][0]
    files = sum(line.file for line in lines) * 2 >= len(lines)
    numbers = all(isinstance(number_in(field), int) for line in lines for field in line.fields)
    if usual == 2 and any(len(line.fields) == 2 and line.fields[1].startswith("-") for line in lines):
        return "VideoMAE V2 pre-training list, `path 0 -1` or `folder first frames`", ("path", "v2", "v2")
    if usual == 0:
        return "paths without labels", ("path",)
    repeated = any(len(set(line.fields)) < len(line.fields) for line in lines)
    longer = [line for line in lines if len(line.fields) > usual]
    if usual == 1 and files and numbers and len(longer) == 1 and len(lines) > 2:
        raise UserError(
            f"{longer[0].where}: expected `path label` as in the other lines, found '{longer[0].text}'; "
            "where videos may show several classes say so with --columns path,label..."
        )
    if files and numbers and not repeated and (usual > 2 or (len(counts) > 1 and 0 not in counts)):
        return "`path label label ...`, several classes a video", ("path", "label...")
    if usual == 1:
        what = "label" if numbers else "class name"
        return f"`path {what}`", ("path", "label")
    if not files and usual == 2:
        return "`name frames label`", ("path", "frames", "label")
    if not files and usual == 3:
        return "`folder offset frames label`", ("path", "offset", "frames", "label")
    example = next(line for line in lines if len(line.fields) == usual)
    raise UserError(
        f"{example.where}: '{example.text}' may mean two things; "
        "say which with --columns path,label... or --columns path,frames,label"
    )


def _by_columns(lines: Sequence[_Line], columns: Sequence[str]) -> Iterator[Row]:
    if columns[0] != "path":
        raise UserError(f"--columns must begin with path, found {','.join(columns)}")
    names = columns[1:]
    named: dict[bool, list[str]] = {True: [], False: []}  # where labels are numbers, where they are names
    for line in lines:
        path, fields = line.path, line.fields
        if len(fields) > len(names) and not line.file and "label..." not in names:
            extra = len(fields) - len(names)  # numbers that belong to a folder's name
            path = re.sub(rf"(?:[ \t]*[,;\t ][ \t]*-?\d+){{{len(names)}}}$", "", line.text)
            fields = fields[extra:]
        several = names == ("label...",)
        if (several and not fields) or (not several and len(fields) != len(names)):
            shown = " ".join(columns).replace("v2 v2", "0 -1")
            raise UserError(f"{line.where}: expected `{shown}` as in the other lines, found '{line.text}'")
        row = _fields_row(line.where, path, fields, names)
        for label in row.labels:
            named[isinstance(label, int)].append(line.where)
        yield row
    if named[True] and named[False]:
        odd = min(named.values(), key=len)[0]
        raise UserError(f"{odd}: labels are numbers in some lines and names in others; use one of them")


def _fields_row(where: str, path: str, fields: Sequence[str], names: Sequence[str]) -> Row:
    if tuple(names) == ("v2", "v2"):
        first, count = (_integer(where, field) for field in fields)
        return Row(path, where) if count < 0 else Row(path, where, offset=first, frames=count)
    if tuple(names) == ("label...",):
        names = ("label",) * len(fields)
    labels: list[int | str] = []
    split: str | None = None
    offset: int | None = None
    frames: int | None = None
    for name, field in zip(names, fields, strict=True):
        if name == "label":
            labels += labels_in(field)
        elif name == "split":
            split = split_of(field)
        elif name == "offset":
            offset = _integer(where, field) + 1  # MMAction2 adds it to numbers that begin with 1
        elif name == "frames":
            frames = _integer(where, field)
    return Row(path, where, split, tuple(labels), offset, frames)


def _integer(where: str, field: str) -> int:
    number = number_in(field)
    if isinstance(number, int):
        return number
    raise UserError(f"{where}: expected a whole number, found '{field}'")
