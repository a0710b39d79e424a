"""Lines of a path and fields behind it, as training scripts read them: `path label` and similar.

A line is split from the right, or after the suffix of a video's name, so that a path may contain blanks and
commas. What the fields are is given as column names, or detected from all lines together. A line is read in
time that is linear in its length, for any content.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tubelet.errors import UserError, excerpt
from tubelet.prepare.lists.formats import LINE_FORMATS, Columns
from tubelet.prepare.lists.row import Row, labels_in, number_in, seconds_in, split_of
from tubelet.video.sources import VIDEO_SUFFIXES

_TIMES: Columns = ("path", "start", "end", "label")

_SUFFIX = "|".join(sorted(re.escape(suffix) for suffix in VIDEO_SUFFIXES))
# The end of a video's name; a web address may have a query.
_VIDEO_END = re.compile(rf"(?:{_SUFFIX})(?:\?[^\s,;]*)?(?=[\s,;]|$)", re.IGNORECASE)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_WORD = re.compile(r"[^\s,;]+")
_WHOLE_NUMBER = re.compile(r"-?\d+")
_TIME = re.compile(r"\d+(?::\d+)*(?:\.\d*)?|-\d+")  # or a number


@dataclass(frozen=True)
class _Line:
    """A path and the fields behind it; `is_video` if the path ends as a video's does."""

    where: str
    text: str
    path: str
    fields: tuple[str, ...]
    is_video: bool = False


def read_lines(path: Path, text: str, columns: Sequence[str] = ()) -> tuple[Columns, list[Row]]:
    """Return the columns of a list's lines, detected unless given, and its rows.

    Raises:
        UserError: a line is broken or ambiguous.
    """
    numbered = enumerate((line.strip() for line in text.split("\n")), start=1)
    located = [(f"{path}:{number}", line) for number, line in numbered if line]
    if not columns and _have_times(_split_line(where, line, _TIME) for where, line in located):
        columns = _TIMES
    number = _number_in(columns)
    lines = [_split_line(where, line, number) for where, line in located]
    found = tuple(columns) or _detect(lines)
    if found[0] != "path" or "label..." in found[:-1]:
        raise UserError(
            f"--columns must begin with path, and label... can only be last, found {','.join(found)}"
        )
    return found, list(_rows(lines, found))


def _number_in(columns: Sequence[str]) -> re.Pattern[str]:
    """Return what the numbers behind a path are."""
    return _TIME if {"start", "end"} & set(columns) else _WHOLE_NUMBER


def _split_line(where: str, text: str, number: re.Pattern[str]) -> _Line:
    """Split a line into a path and fields, which are numbers unless the path ends as a video's does."""
    if (found := _quoted(text) or _video(text)) is not None:
        name, rest = found
        words = rest.split()
        fields = words if all(map(number.fullmatch, words)) else _fields(rest)  # class names have blanks
        return _Line(where, text, name, tuple(fields), _ends_as_video(name))
    name, fields = _numbers_at_end(text, number)
    if not fields and len(parts := re.split(r"[,;\t]", text)) == 2:  # a name and a class name
        return _Line(where, text, parts[0].strip(), (parts[1].strip(),))
    return _Line(where, text, name, tuple(fields))


def _ends_as_video(name: str) -> bool:
    return any(match.end() == len(name) for match in _VIDEO_END.finditer(name))


def _quoted(text: str) -> tuple[str, str] | None:
    """Return the path in quotes with which a line begins, and the rest."""
    match = _QUOTED.match(text)
    if match is None or (rest := _behind(text, match.end())) is None:
        return None
    return match[1].replace('""', '"'), rest


def _video(text: str) -> tuple[str, str] | None:
    """Return the longest beginning of a line that ends as a video's name does, and the rest."""
    ends = [match.end() for match in _VIDEO_END.finditer(text)]
    if not ends or (rest := _behind(text, ends[-1])) is None:
        return None
    return text[: ends[-1]], rest


def _behind(text: str, end: int) -> str | None:
    """Return what follows a path and one delimiter; None if no delimiter follows."""
    rest = text[end:]
    if rest and not rest[0].isspace() and rest[0] not in ",;":
        return None
    rest = rest.lstrip()
    return rest[1:].lstrip() if rest[:1] in (",", ";") else rest


def _fields(text: str) -> list[str]:
    """Return the fields between commas, semicolons and tabs, without blanks around them."""
    blanks = re.sub(r"[ \t]+", lambda run: "\t" if "\t" in run[0] else " ", text)
    return re.split(r"[ \t]?[,;\t][ \t]?", blanks)


def _numbers_at_end(text: str, number: re.Pattern[str], most: int | None = None) -> tuple[str, list[str]]:
    """Return a path, and the numbers behind it (at most `most`); the first word is part of the path."""
    words = list(_WORD.finditer(text))
    first = len(words)
    while first > 1 and number.fullmatch(words[first - 1][0]) and (most is None or len(words) - first < most):
        first -= 1
    path = text[: words[first - 1].end()] if words and first < len(words) else text
    return path, [word[0] for word in words[first:]]


def _have_times(lines: Iterable[_Line]) -> bool:
    """Return whether all lines are `path start end label`, and a time of the first is not a whole number."""
    for number, line in enumerate(lines):
        *times, label = line.fields or ("",)
        if len(times) != 2 or not all(map(_TIME.fullmatch, times)) or not _WHOLE_NUMBER.fullmatch(label):
            return False
        if number == 0 and not set(".:") & set("".join(times)):
            return False
    return True


def _detect(lines: Sequence[_Line]) -> Columns:
    counts = Counter(len(line.fields) for line in lines)
    usual = counts.most_common(1)[0][0]
    if usual == 0:
        return ("path",)
    if usual == 2 and any(len(line.fields) == 2 and line.fields[1].startswith("-") for line in lines):
        return LINE_FORMATS["videomaev2_pretrain"]
    videos = sum(line.is_video for line in lines) * 2 >= len(lines)
    if usual > 1 and not videos:
        return _detect_folders(lines, usual)
    if videos and all(isinstance(number_in(field), int) for line in lines for field in line.fields):
        if usual == 1:
            _require_alike(lines, usual, ("path", "label"))
        if all(len(line.fields) == 3 and float(line.fields[0]) < float(line.fields[1]) for line in lines):
            raise _ambiguous(lines, usual, ("path", "label..."), _TIMES)
        repeated = any(len(set(line.fields)) < len(line.fields) for line in lines)
        if not repeated and (usual > 2 or (len(counts) > 1 and 0 not in counts)):
            return ("path", "label...")
    if usual == 1:
        return ("path", "label")
    raise _ambiguous(lines, usual, ("path", "label..."), ("path", "frames", "label"))


def _detect_folders(lines: Sequence[_Line], usual: int) -> Columns:
    """Detect `folder frames label` or `folder offset frames label`, with one label or more.

    There is an offset if it is 0 in one line, or if parts of one folder are in different lines.
    """
    counts = [len(line.fields) for line in lines]
    parts = len({line.path for line in lines}) < len(lines) or any(
        line.fields[:1] == ("0",) for line in lines
    )
    columns = LINE_FORMATS["mmaction2_offset" if min(counts) > 2 and parts else "mmaction2_frames"]
    if min(counts) < len(columns) - 1 or max(counts) == len(columns) - 1:
        return columns
    _require_alike(lines, usual, columns)
    label_0 = any(line.fields[1] == "0" for line in lines)  # no folder has 0 images
    blank = any(re.search(r"\s", line.path) for line in lines)  # a name may end in a number
    if blank or (set(counts) == {3} and not label_0):
        raise _ambiguous(lines, usual, ("path", "frames", "label..."), LINE_FORMATS["mmaction2_offset"])
    return (*columns[:-1], "label...")


def _require_alike(lines: Sequence[_Line], usual: int, columns: Columns) -> None:
    """Raise if only one line has a field more: that is an error in the list rather than a second label."""
    longer = [line for line in lines if len(line.fields) > usual]
    if len(longer) == 1 and len(lines) > 2:
        option = _option((*columns[:-1], "label..."))
        raise UserError(
            f"{longer[0].where}: expected `{' '.join(columns)}` as in the other lines, found "
            f"'{excerpt(longer[0].text)}'; if videos have more than one class use {option}"
        )


def _ambiguous(lines: Sequence[_Line], usual: int, *choices: Columns) -> UserError:
    example = next(line for line in lines if len(line.fields) == usual)
    options = ", or ".join(map(_option, choices))
    return UserError(f"{example.where}: '{excerpt(example.text)}' is ambiguous; use {options}")


def _option(columns: Columns) -> str:
    """Return the option that chooses these columns."""
    names = " or ".join(name for name, known in LINE_FORMATS.items() if known == columns)
    given = f"--columns {','.join(columns)}"
    return f"--format {names} ({given})" if names else given


def _rows(lines: Sequence[_Line], columns: Columns) -> Iterator[Row]:
    names = columns[1:]
    multi_label = names[-1:] == ("label...",)
    for line in lines:
        path, fields = line.path, line.fields
        extra = len(fields) - len(names)
        if extra > 0 and not line.is_video and not multi_label:  # numbers at the end of a folder's name
            path, _ = _numbers_at_end(line.text, _number_in(names), len(names))
            fields, extra = fields[extra:], 0
        if extra < 0 or (extra and not multi_label):
            raise UserError(
                f"{line.where}: expected `{' '.join(columns)}` as in the other lines, found "
                f"'{excerpt(line.text)}'"
            )
        yield _row_of_fields(
            line.where, path, fields, (*names[:-1], *["label"] * (extra + 1)) if multi_label else names
        )


def _row_of_fields(where: str, path: str, fields: Sequence[str], names: Sequence[str]) -> Row:
    cells = dict(zip(names, fields, strict=True))
    numbers: dict[str, int] = {}
    for name in {"first", "offset", "frames", "last"} & cells.keys():
        number = number_in(cells[name])
        if not isinstance(number, int):
            raise UserError(f"{where}: expected a whole number, found '{excerpt(cells[name])}'")
        numbers["offset" if name == "first" else name] = number + (name == "offset")  # images count from 1
    if (last := numbers.pop("last", None)) is not None:
        numbers["frames"] = last + 2 - numbers.get("offset", 1)
    if numbers.get("frames", 0) < 0:  # the whole video
        numbers = {}
    times: dict[str, float] = {}
    for name in {"start", "end"} & cells.keys():
        seconds = seconds_in(cells[name])
        if seconds is None:
            raise UserError(f"{where}: expected a time in seconds, found '{excerpt(cells[name])}'")
        times[name] = seconds
    labels = (labels_in(field) for name, field in zip(names, fields, strict=True) if name == "label")
    split = split_of(cells["split"]) if "split" in cells else None
    return Row(
        path,
        where,
        split,
        tuple(label for found in labels for label in found),
        numbers.get("offset"),
        numbers.get("frames"),
        times.get("start"),
        times.get("end"),
    )
