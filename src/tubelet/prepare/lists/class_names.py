"""Class names and their numbers, from the files in which projects store them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as short_repr

from tubelet.data.manifest import distinct_names, located_lines, require_one_line
from tubelet.errors import UserError, did_you_mean, excerpt
from tubelet.files import csv_rows, parse_json, read_text
from tubelet.prepare.lists.row import Row, is_plain

# A list whose numbers make more classes than both bounds is an error rather than a large data set.
_MAX_UNNAMED_CLASSES = 1000
_MAX_UNNAMED_PER_USED = 100
_MAX_DIGITS = 18  # of a class number
_DIGITS, _SEPARATORS = "0123456789", " \t,;:"
_NUMBER_COLUMNS, _NAME_COLUMNS = ("id", "index", "label"), ("name", "class", "label", "key")


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the class names in a file, in the order of their numbers.

    One name a line, or a name and its number in either order (`kinetics_class2ind.txt`, `classInd.txt`,
    a table `id,name`), or JSON: an array, or an object from name to number or from number to name. Numbers
    count from 0 or from 1 without a gap. A UserError names the line.
    """
    text = read_text(path, "class names")
    content = parse_json(path, text) if path.suffix.lower() == ".json" else None
    values = content if isinstance(content, list) else content.values() if isinstance(content, dict) else ()
    if odd := [value for value in values if not is_plain(value)]:
        raise UserError(f"{path}: expected names and numbers, found {short_repr(odd[0])}")
    if isinstance(content, list):
        return _distinct([(f"{path}: entry {n}", str(name)) for n, name in enumerate(content, start=1)])
    if isinstance(content, dict):
        pairs = [(f"{path}: {key}", _pair(str(key), str(value))) for key, value in content.items()]
    else:
        lines = _without_header(path, located_lines(path, text))
        pairs = [(where, _number_and_name(line)) for where, line in lines if line]
        names = {pair[1] for _, pair in pairs if pair}
        if sum(pair is None for _, pair in pairs) * 2 > len(pairs) or len(names) == 1 < len(pairs):
            return _distinct(lines)  # names without numbers, also if the names end in numbers
    named: dict[int, tuple[str, str]] = {}
    for where, pair in pairs:
        if pair is None:
            raise UserError(f"{where}: expected a class name and its number, as in the other lines")
        number, name = pair
        if number in named:
            raise UserError(f"{where}: number {number} is {excerpt(named[number][1])} already")
        named[number] = where, name
    numbers = sorted(named)
    if not numbers or numbers[0] not in (0, 1) or numbers[-1] - numbers[0] + 1 != len(numbers):
        raise UserError(f"{path}: the class numbers must count from 0 or 1 without a gap")
    return _distinct([named[number] for number in numbers])


def _distinct(located: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    for where, name in located:
        require_class_name(name, where)
    return distinct_names(located)


def _without_header(path: Path, lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the lines below a header such as `id,name`, without columns that may follow these two."""
    names = [name.strip() for name in re.split(r"[,;\t]", lines[0][1].lower())]
    if len(names) < 2 or names[0] not in _NUMBER_COLUMNS or names[1] not in _NAME_COLUMNS:
        return lines
    if len(names) == 2:
        return lines[1:]
    delimiter = next(mark for mark in lines[0][1] if mark in ",;\t")
    rows = csv_rows(path, "\n".join(line for _, line in lines), delimiter)
    return [(where, f"{cells[0]},{cells[1]}" if len(cells) > 1 else "") for where, cells in rows][1:]


def _number_and_name(line: str) -> tuple[int, str] | None:
    """Return the number and the name in a line, in either order; None if there is no number."""
    after = line.lstrip(_DIGITS)
    if after != line and (name := after.lstrip(_SEPARATORS)) not in ("", after):
        return _numbered(line[: len(line) - len(after)], name)
    before = line.rstrip(_DIGITS)
    if before != line and (name := before.rstrip(_SEPARATORS)) not in ("", before):
        return _numbered(line[len(before) :], name)
    return None


def _pair(key: str, value: str) -> tuple[int, str] | None:
    if value.isdecimal():
        return _numbered(value, key)
    return _numbered(key, value) if key.isdecimal() else None


def _numbered(number: str, name: str) -> tuple[int, str] | None:
    return (int(number), name.strip("\"'")) if len(number) <= _MAX_DIGITS else None


def require_class_name(name: str, where: str) -> None:
    """Raise a UserError if a name cannot be a line of classes.txt."""
    require_one_line(name, where)
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise UserError(f"{where}: the class name {excerpt(name)!r} is not valid Unicode text; rename it")


def normalized(name: str) -> str:
    """Return a class name for comparisons that ignore case, quotes, and blanks against underscores."""
    return re.sub(r"[\s_]+", " ", name.strip().strip('"')).lower()


def number_labels(
    rows: Sequence[Row], classes: Sequence[str] = ()
) -> tuple[list[Row], tuple[str, ...], list[str]]:
    """Return the rows with class numbers from 0, the class names, and notes about them.

    Args:
        rows: with numbers or names as labels.
        classes: the names in the order of their numbers; if empty, names are sorted, and numbers without
            names are called `class 0` and so on. A UserError names the row of a label that fits none or two.
    """
    numbers = [(label, row) for row in rows for label in row.labels if isinstance(label, int)]
    names = [(label, row) for row in rows for label in row.labels if isinstance(label, str)]
    for label, row in names:
        require_class_name(label, row.where)
    if numbers and names:
        odd = names[0][1] if len(names) < len(numbers) else numbers[0][1]
        hint = "; is its first line a header? Remove it" if odd is rows[0] else ""
        raise UserError(
            f"{odd.where}: labels are numbers in some lines and names in others; use one of them{hint}"
        )
    number_of: Mapping[int | str, int] = {}
    order, notes = tuple(classes), []
    if names:
        order = order or tuple(sorted({label for label, _ in names}))
        number_of = _match_names(names, order)
    elif numbers:
        order, first, note = _match_numbers(numbers, order)
        number_of, notes = {label: label - first for label, _ in numbers}, [note] * bool(note)
    numbered = [replace(row, labels=tuple(number_of[label] for label in row.labels)) for row in rows]
    return numbered, order if numbers or names else (), notes


def _match_numbers(
    numbers: Sequence[tuple[int, Row]], classes: tuple[str, ...]
) -> tuple[tuple[str, ...], int, str]:
    """Return the class names, the number of the first class in the list, and a note."""
    highest, row = max(numbers, key=lambda pair: pair[0])
    if not classes:
        count, used = highest + 1, len({label for label, _ in numbers})
        if count > max(_MAX_UNNAMED_CLASSES, _MAX_UNNAMED_PER_USED * used):
            raise UserError(
                f"{row.where}: label {excerpt(str(highest))} would make {excerpt(str(count))} classes, "
                f"of which {used} have videos; if that is right, name the classes with --classes FILE"
            )
        note = f"class names are unknown, the numbers go to {highest}; --classes FILE names them"
        return tuple(f"class {k}" for k in range(count)), 0, note
    if highest < len(classes):
        return classes, 0, ""
    if highest == len(classes) and all(label for label, _ in numbers):
        return classes, 1, "the labels of the list count from 1; the manifest's count from 0"
    raise UserError(
        f"{row.where}: label {excerpt(str(highest))} has no class: there are {len(classes)}, from 0"
    )


def _match_names(names: Iterable[tuple[str, Row]], order: Sequence[str]) -> dict[int | str, int]:
    """Return the class number of each label: of the class with its name or code, or of the only similar one.

    A code is the first word of a class name, such as c092 in Charades' `c092 Opening a window`.
    """
    exact: dict[str, list[int]] = {}
    similar: dict[str, list[int]] = {}
    for k, name in enumerate(order):
        exact.setdefault(name, []).append(k)
        if re.match(r"[a-z]\d+ ", name):
            exact.setdefault(name.split(" ", 1)[0], []).append(k)
        similar.setdefault(normalized(name), []).append(k)
    number_of: dict[int | str, int] = {}
    for label, row in names:
        fits = exact.get(label) or similar.get(normalized(label), [])
        if not fits:
            hint = did_you_mean(label, order)
            raise UserError(f"{row.where}: '{excerpt(label)}' is not among the {len(order)} classes{hint}")
        if len(fits) > 1:
            two = ", or ".join(f"class {k}, '{order[k]}'" for k in fits[:2])
            raise UserError(f"{row.where}: '{excerpt(label)}' may be {two}; write it as its class is written")
        number_of[label] = fits[0]
    return number_of
