"""Class names and their numbers, from the files in which projects keep them."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tubelet.data.manifest import distinct_names, located_lines
from tubelet.errors import UserError, did_you_mean
from tubelet.files import read_text
from tubelet.prepare.lists.row import Row

_FEW, _SPARSE = 1000, 100  # more classes than that, and so many for each that has a video: a slip


def read_classes(path: Path) -> tuple[str, ...]:
    """The class names of a file in the order of their numbers.

    One name a line, or a name and its number in either order (`kinetics_class2ind.txt`, `classInd.txt`,
    a table `id,name`), or JSON: an array, or an object from name to number or from number to name. Numbers
    may count from 0 or from 1.

    Raises:
        UserError: the file cannot be read, a name is missing or there twice, or a number is.
    """
    text = read_text(path, "class names")
    try:
        content: Any = json.loads(text) if path.suffix.lower() == ".json" else None
    except ValueError as error:
        raise UserError(f"{path} does not parse: {error}") from None
    if isinstance(content, list):
        return distinct_names((f"{path}: entry {n}", str(name)) for n, name in enumerate(content, start=1))
    if isinstance(content, dict):
        pairs = [(f"{path}: {key}", _pair(str(key), str(value))) for key, value in content.items()]
    else:
        lines = located_lines(path, text)
        if re.fullmatch(r"(id|index|label)\s*[,;\t]\s*(name|class|label)", lines[0][1].lower()):
            lines = lines[1:]
        pairs = [(where, _split(line)) for where, line in lines if line]
        names = Counter(pair[1] for _, pair in pairs if pair)
        if sum(pair is None for _, pair in pairs) * 2 > len(pairs) or len(names) == 1 < len(pairs):
            return distinct_names(lines)
    named: dict[int, tuple[str, str]] = {}
    for where, pair in pairs:
        if pair is None:
            raise UserError(f"{where}: expected a class name and its number, as the others have")
        number, name = pair
        if number in named:
            raise UserError(f"{where}: number {number} is {named[number][1]} already")
        named[number] = where, name
    first = min(named, default=0)
    if not named or sorted(named) != list(range(first, first + len(named))) or first not in (0, 1):
        raise UserError(f"{path}: the class numbers must count from 0 or 1 without a gap")
    return distinct_names(named[number] for number in sorted(named))


def _split(line: str) -> tuple[int, str] | None:
    if match := re.fullmatch(r"(\d+)\s*[,;:\t ]\s*(.*\S)", line):
        return int(match[1]), match[2].strip("\"'")
    if match := re.fullmatch(r"(.*\S)\s*[,;:\t ]\s*(\d+)", line):
        return int(match[2]), match[1].strip("\"'")
    return None


def _pair(key: str, value: str) -> tuple[int, str] | None:
    if value.isdecimal():
        return int(value), key.strip('"')
    return (int(key), value.strip('"')) if key.isdecimal() else None


def plain(name: str) -> str:
    """A class name as it is compared: blanks and underscores, case and quotes make no difference."""
    return re.sub(r"[\s_]+", " ", name.strip().strip('"')).lower()


def number_labels(
    rows: Sequence[Row], classes: Sequence[str] = ()
) -> tuple[list[Row], tuple[str, ...], list[str]]:
    """The rows with class numbers from 0, the class names, and what should be known of how they came about.

    Args:
        rows: with numbers or names as labels.
        classes: the names in the order of their numbers; otherwise names are sorted, and numbers without
            names are called `class 0` and so on.

    Raises:
        UserError: a label is not among the classes or may be two of them, or some are numbers and some names.
    """
    numbers = [(label, row) for row in rows for label in row.labels if isinstance(label, int)]
    names = [(label, row) for row in rows for label in row.labels if isinstance(label, str)]
    if numbers and names:
        odd = names[0][1] if len(names) < len(numbers) else numbers[0][1]
        raise UserError(f"{odd.where}: labels are numbers in some lines and names in others; use one of them")
    if names:
        order = tuple(classes) or tuple(sorted({label for label, _ in names}))
        exact, alike = _places(order), _places(map(plain, order))
        number_of = {}
        for label, row in names:
            fits = exact.get(label) or alike.get(plain(label), [])
            if not fits:
                hint = did_you_mean(label, order)
                raise UserError(f"{row.where}: '{label}' is not among the {len(order)} classes{hint}")
            if len(fits) > 1:
                two = ", or ".join(f"class {k}, '{order[k]}'" for k in fits[:2])
                raise UserError(f"{row.where}: '{label}' may be {two}; write it as its class is written")
            number_of[label] = fits[0]
        return [_numbered(row, [number_of[str(label)] for label in row.labels]) for row in rows], order, []
    if not numbers:
        return list(rows), (), []
    highest, row = max(numbers, key=lambda pair: pair[0])
    if not classes:
        count, used = highest + 1, len({label for label, _ in numbers})
        if count > max(_FEW, _SPARSE * used):
            raise UserError(
                f"{row.where}: label {highest} would make {count} classes, of which {used} have videos; "
                "if that is right, name the classes with --classes FILE"
            )
        note = f"class names are unknown, the numbers go to {highest}; --classes FILE names them"
        return list(rows), tuple(f"class {k}" for k in range(count)), [note]
    if highest == len(classes) and all(label for label, _ in numbers):
        lowered = [_numbered(row, [int(label) - 1 for label in row.labels]) for row in rows]
        return lowered, tuple(classes), ["the labels of the list count from 1; those written count from 0"]
    if highest >= len(classes):
        raise UserError(f"{row.where}: label {highest} has no class: there are {len(classes)}, from 0")
    return list(rows), tuple(classes), []


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    return found


def _numbered(row: Row, labels: Sequence[int]) -> Row:
    return replace(row, labels=tuple(labels))
