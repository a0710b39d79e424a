"""The official annotation files of Kinetics, Something-Something v2, UCF101 and HMDB51.

Each reader gets the text files beside the videos, recognizes its own by name and content, and gives every
video its split and its class number. It raises a UserError if a file is missing or a line is broken.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tubelet.errors import UserError, excerpt
from tubelet.files import csv_rows, parse_json, read_text
from tubelet.prepare.lists.class_names import number_labels, read_classes
from tubelet.prepare.lists.row import Row, split_of
from tubelet.prepare.lists.tables import read_list


@dataclass(frozen=True)
class Annotations:
    """The content of annotation files.

    Attributes:
        kind: the annotations in a few words.
        rows: the videos, with splits and class numbers.
        classes: the class names.
        notes: remarks for the report.
        val_is_test: the data set has no videos to validate on, so the test videos are in both splits.
    """

    kind: str
    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    val_is_test: bool = False


_VAL_IS_TEST = "this data set has no validation list: val.csv repeats test.csv, so choose no setting by it"
_HMDB51_SPLITS: dict[str, tuple[str, ...]] = {"0": (), "1": ("train",), "2": ("test", "val")}


def read_kinetics(files: Iterable[Path], num_classes: int, classes: Sequence[str] = ()) -> Annotations:
    """Read Kinetics' `train.csv`, `val.csv` and `test.csv`: label,youtube_id,time_start,time_end,split.

    Args:
        files: the text files beside the videos.
        num_classes: 400, 600 or 700; another number of labels is noted.
        classes: the names in the order of their numbers; if empty, the labels in alphabetical order.
    """
    lists = [path for path in sorted(files) if path.suffix == ".csv" and "youtube_id" in _first_line(path)]
    if not lists:
        raise UserError(
            "no Kinetics annotations found: train.csv, val.csv and test.csv with a column youtube_id. "
            "Put them beside the videos, or give another list with `tubelet prepare list`, "
            "or use class folders with `tubelet prepare folder`"
        )
    rows: dict[tuple[object, ...], Row] = {}
    for path in lists:
        for row in read_list(path).rows:
            split = row.split or split_of(path.stem)
            if split is None:
                raise UserError(f"{row.where}: no split here, nor in the file's name (train, val or test)")
            rows.setdefault((row.name, row.start, split), replace(row, split=split))
    numbered, names, notes = number_labels(list(rows.values()), classes)
    if len(names) != num_classes:
        notes = [*notes, f"{len(names)} classes are annotated; Kinetics-{num_classes} has {num_classes}"]
    return Annotations(f"Kinetics annotations in {_names(lists)}", tuple(numbered), names, tuple(notes))


def read_ssv2(files: Iterable[Path]) -> Annotations:
    """Read Something-Something v2's JSON lists, `labels.json` and, if it is there, `test-answers.csv`."""
    numbers: dict[str, int] = {}
    numbers_path = Path()
    lists: list[tuple[Path, str]] = []
    answers: dict[str, str] = {}
    for path in sorted(files):
        if path.suffix == ".json":
            if found := _label_numbers(path):
                numbers, numbers_path = found, path
            elif split := split_of(path.stem):
                lists.append((path, split))
        elif path.name == "test-answers.csv":
            text = read_text(path, "the labels of the test")
            answers = {cells[0]: cells[1] for _, cells in csv_rows(path, text, ";") if len(cells) == 2}
    rows: dict[tuple[str, str], Row] = {}
    for path, split in lists:
        for row in read_list(path).rows:
            labels = row.labels
            if not labels and split == "test" and row.name in answers:
                labels = (answers[row.name],)
            known = rows.get((row.name, split))
            if known is None or not known.labels:
                rows[row.name, split] = replace(row, split=split, labels=labels)
    if not rows:
        raise UserError(
            "no Something-Something lists found: train.json, validation.json and test.json "
            "(or something-something-v2-train.json and so on) must be beside the videos"
        )
    if not numbers:
        raise UserError(
            "labels.json (or something-something-v2-labels.json) is missing; it numbers the templates"
        )
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise UserError(f"{numbers_path}: the templates must be numbered from 0 without a gap")
    order = tuple(sorted(numbers, key=numbers.__getitem__))
    numbered, names, notes = number_labels(list(rows.values()), order)
    if any(row.split == "test" and not row.labels for row in numbered):
        notes.append("the test list has no labels, as published: test on val.csv (data.split=val)")
    kind = f"Something-Something v2 lists in {_names([path for path, _ in lists])}"
    return Annotations(kind, tuple(numbered), names, tuple(notes))


def read_ucf101(files: Iterable[Path], fold: int = 1) -> Annotations:
    """Read UCF101's `classInd.txt`, `trainlist0F.txt` and `testlist0F.txt` of fold F: 1, 2 or 3."""
    by_name = {path.name: path for path in files}
    wanted = ["classInd.txt", f"trainlist{fold:02}.txt", f"testlist{fold:02}.txt"]
    if absent := [name for name in wanted if name not in by_name]:
        raise UserError(f"{' and '.join(absent)} not found; UCF101's lists must be beside the videos")
    classes = read_classes(by_name[wanted[0]])
    rows = []
    for name in wanted[1:]:
        for row in read_list(by_name[name]).rows:
            folder = row.name.split("/")[0]
            if folder not in classes:
                raise UserError(f"{row.where}: class '{folder}' is not in {by_name[wanted[0]]}")
            rows.append(replace(row, split=split_of(name), labels=(classes.index(folder),)))
    rows += [replace(row, split="val") for row in rows if row.split == "test"]
    return Annotations(f"UCF101 lists, fold {fold}", tuple(rows), classes, (_VAL_IS_TEST,), val_is_test=True)


def read_hmdb51(files: Iterable[Path], fold: int = 1) -> Annotations:
    """Read HMDB51's `CLASS_test_splitF.txt` of fold F: `name.avi` and 1 to train, 2 to test, 0 for unused."""
    ending = f"_test_split{fold}.txt"
    lists = {path.name.removesuffix(ending): path for path in files if path.name.endswith(ending)}
    if not lists:
        raise UserError(f"no *{ending} found; HMDB51's lists must be beside the videos")
    classes = tuple(sorted(lists))
    rows = []
    for label, name in enumerate(classes):
        path = lists[name]
        for number, line in enumerate(read_text(path, "a list of videos").split("\n"), start=1):
            if not line.strip():
                continue
            file, use = line.rsplit(None, 1) if len(line.split(None, 1)) == 2 else (line, "")
            if use not in _HMDB51_SPLITS:
                raise UserError(
                    f"{path}:{number}: expected `name.avi 0`, 1 or 2, found '{excerpt(line.strip())}'"
                )
            for split in _HMDB51_SPLITS[use]:
                rows.append(Row(f"{name}/{file.strip()}", f"{path}:{number}", split=split, labels=(label,)))
    notes = [_VAL_IS_TEST]
    if len(classes) != 51:
        notes.append(f"{len(classes)} classes are annotated; HMDB51 has 51")
    return Annotations(f"HMDB51 lists, fold {fold}", tuple(rows), classes, tuple(notes), val_is_test=True)


def _label_numbers(path: Path) -> dict[str, int]:
    """Return the numbers of the templates; empty if the file is not such a table."""
    if not _first_line(path).lstrip().startswith("{"):
        return {}
    content = parse_json(path, read_text(path, "the numbers of the templates"))
    if not all(isinstance(number, int) or str(number).isdecimal() for number in content.values()):
        return {}
    return {re.sub(r"[\[\]]", "", template): int(number) for template, number in content.items()}


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline(1000).lower()


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)
