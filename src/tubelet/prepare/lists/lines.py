"""Lines of a path and fields behind it, as training scripts read them: `path label` and its relatives.

A line is split from the right, or behind the ending of a video's name, so that a path may hold blanks and
commas. What the fields are is found out from all lines together.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tubelet.errors import UserError
from tubelet.prepare.lists.row import Row, labels_in, number_in, split_of
from tubelet.video.sources import VIDEO_SUFFIXES

_ENDS = "|".join(sorted(re.escape(suffix) for suffix in VIDEO_SUFFIXES))
_QUOTED = re.compile(r'"(?P<path>(?:[^"]|"")*)"(?:[ \t]*[,;\t ][ \t]*(?P<rest>.*))?')
_NAME = rf".*(?:{_ENDS})(?:\?[^\s,;]*)?"  # a web address may have a query
_FILE = re.compile(rf"(?P<path>{_NAME})(?:[ \t]*[,;\t ][ \t]*(?P<rest>.*))?", re.IGNORECASE)
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
    if usual >= 2 and not files:
        return _kind_of_folders(lines, usual)
    repeated = any(len(set(line.fields)) < len(line.fields) for line in lines)
    if usual == 1 and files and numbers:
        _refuse_one_longer(lines, usual, "path label", "path,label...")
    if files and numbers and not repeated and (usual > 2 or (len(counts) > 1 and 0 not in counts)):
        return "`path label label ...`, several classes a video", ("path", "label...")
    if usual == 1:
        what = "label" if numbers else "class name"
        return f"`path {what}`", ("path", "label")
    raise _two_things(lines, usual, "path,label... or --columns path,frames,label")


def _kind_of_folders(lines: Sequence[_Line], usual: int) -> tuple[str, tuple[str, ...]]:
    """MMAction2's `folder frames label` or its relatives, with an offset or with several classes.

    An offset is taken for one where a line has 0 there or a folder is named twice, in parts.
    """
    least, most = (pick(len(line.fields) for line in lines) for pick in (min, max))
    twice = len({line.path for line in lines}) < len(lines)
    parts = least > 2 and (twice or any(line.fields[0] == "0" for line in lines))
    names = ("path", "offset", "frames", "label") if parts else ("path", "frames", "label")
    shown = " ".join(names).replace("path", "folder" if parts else "name")
    if least < len(names) - 1 or most == len(names) - 1:
        return f"`{shown}`", names
    _refuse_one_longer(lines, usual, shown, f"{','.join(names)}...")
    empty = any(line.fields[1] == "0" for line in lines)  # so that this is a label
    blank = any(re.search(r"\s", line.path) for line in lines)  # so that the name may end in a number
    if blank or (least == most == 3 and not empty):
        raise _two_things(lines, usual, "path,frames,label... or --columns path,offset,frames,label")
    return f"`{shown} label ...`, several classes a video", (*names[:-1], "label...")


def _refuse_one_longer(lines: Sequence[_Line], usual: int, shown: str, columns: str) -> None:
    """One line with a field more is a slip rather than a list of several classes."""
    longer = [line for line in lines if len(line.fields) > usual]
    if len(longer) == 1 and len(lines) > 2:
        raise UserError(
            f"{longer[0].where}: expected `{shown}` as in the other lines, found '{longer[0].text}'; "
            f"where videos may show several classes say so with --columns {columns}"
        )


def _two_things(lines: Sequence[_Line], usual: int, columns: str) -> UserError:
    example = next(line for line in lines if len(line.fields) == usual)
    return UserError(
        f"{example.where}: '{example.text}' may mean two things; say which with --columns {columns}"
    )


def _by_columns(lines: Sequence[_Line], columns: Sequence[str]) -> Iterator[Row]:
    if columns[0] != "path" or "label..." in columns[:-1]:
        raise UserError(
            f"--columns must begin with path, and label... can only be the last, found {','.join(columns)}"
        )
    names = tuple(columns[1:])
    multi_label = names[-1:] == ("label...",)
    for line in lines:
        path, fields = line.path, line.fields
        if len(fields) > len(names) and not line.file and not multi_label:
            extra = len(fields) - len(names)  # numbers that belong to a folder's name
            path = re.sub(rf"(?:[ \t]*[,;\t ][ \t]*-?\d+){{{len(names)}}}$", "", line.text)
            fields = fields[extra:]
        if len(fields) < len(names) or (len(fields) > len(names) and not multi_label):
            shown = " ".join(columns).replace("v2 v2", "0 -1")
            raise UserError(f"{line.where}: expected `{shown}` as in the other lines, found '{line.text}'")
        yield _fields_row(line.where, path, fields, names)


def _fields_row(where: str, path: str, fields: Sequence[str], names: tuple[str, ...]) -> Row:
    if names == ("v2", "v2"):
        first, count = (_integer(where, field) for field in fields)
        return Row(path, where) if count < 0 else Row(path, where, offset=first, frames=count)
    if names[-1:] == ("label...",):
        names = (*names[:-1], *["label"] * (len(fields) - len(names) + 1))
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
