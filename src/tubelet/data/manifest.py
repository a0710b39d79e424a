"""The list of a data set's videos: one CSV per split beside the class names.

    ROOT/train.csv      path,label,frames,fps,width,height,codec     (val.csv and test.csv alike)
    ROOT/classes.txt    one class name per line; `label` is the line number, from 0

Paths are relative to ROOT, absolute or URLs, with forward slashes; they may contain spaces and commas
(standard CSV quoting). Multi-label data sets have a column `labels` instead of `label`: 3;17; there an empty
cell means that a video shows none of the classes. Only `path` is required: pre-training needs no label, and
unknown properties stay empty.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from tubelet.errors import UserError, did_you_mean, plural
from tubelet.files import read_text, replacing
from tubelet.video.remote import remote_url

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """One video of a manifest; None stands for what is unknown.

    Attributes:
        path: relative to the manifest's root, absolute, or a URL.
        label: class index, from 0; None without a label and in multi-label data sets.
        frames: number of frames that decode.
        fps: frames per second.
        width: in pixels as shown.
        height: in pixels as shown.
        codec: FFmpeg's name of it.
        labels: class indices in a multi-label data set.
    """

    path: str
    label: int | None = None
    frames: int | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    labels: tuple[int, ...] = ()

    @property
    def classes(self) -> tuple[int, ...]:
        """The indices of all classes that the video shows."""
        return self.labels or (() if self.label is None else (self.label,))


@dataclass(frozen=True)
class Manifest:
    """The samples of one split.

    Attributes:
        root: the data set's folder.
        split: `train`, `val` or `test`.
        samples: the videos.
        classes: class names by class index, empty without labels.
    """

    root: Path
    split: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the class names, videos and their classes in order: 64 hexadecimal digits."""
        listed = [self.classes, *((sample.path, sample.classes) for sample in self.samples)]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    def locate(self, sample: Sample) -> Path | str:
        """Return the file of a sample, or its URL as it is listed."""
        return remote_url(sample.path) or self.root / sample.path

    @property
    def multi_label(self) -> bool:
        """Whether a video may show any number of the classes: at least one sample has `labels`."""
        return any(sample.labels for sample in self.samples)

    def require_labels(self) -> None:
        """Raise a UserError if a video has no label, unless the data set is multi-label."""
        unlabeled = [sample.path for sample in self.samples if not sample.classes]
        if unlabeled and not self.multi_label:
            have = "has" if len(unlabeled) == 1 else "have"
            raise UserError(
                f"{self.root / self.split}.csv: {plural(len(unlabeled), 'video')} {have} no label, "
                f"for example {unlabeled[0]}"
            )


COLUMNS = tuple(field.name for field in fields(Sample))


def _class_indices(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(";"))


_NUMBERS: dict[str, Callable[[str], int | float | tuple[int, ...]]] = {
    "label": int, "frames": int, "fps": float, "width": int, "height": int, "labels": _class_indices,
}  # fmt: skip


def read_manifest(root: Path | str, split: str) -> Manifest:
    """Read `ROOT/SPLIT.csv` and `ROOT/classes.txt`.

    Raises:
        UserError: the folder or the list is missing, a column is unknown, a cell does not parse, a label has
            no class, or two classes have one name; the message names file, line and column.
    """
    root = Path(root)
    path = root / f"{split}.csv"
    if not path.is_file():
        raise UserError(_no_list(root, split))
    names = root / "classes.txt"
    classes = read_names(names) if names.is_file() else ()
    try:
        samples = _read_samples(path, classes)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: expected CSV as UTF-8 text ({error})") from None
    if not samples:
        raise UserError(f"{path}: no videos in this list")
    return Manifest(root, split, samples, classes)


def write_manifest(root: Path, split: str, samples: Iterable[Sample], classes: Iterable[str] = ()) -> None:
    """Write `ROOT/SPLIT.csv`, and `ROOT/classes.txt` if there are class names, each atomically.

    Raises:
        OSError: they cannot be written, for example because the disk is full.
        UnicodeEncodeError: a path or a name is not valid text.
    """
    samples, names = list(samples), list(classes)
    columns = [column for column in COLUMNS if column != "labels" or any(s.labels for s in samples)]
    root.mkdir(parents=True, exist_ok=True)
    with replacing(root / f"{split}.csv") as path:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for sample in samples:
                writer.writerow(_cell(getattr(sample, column)) for column in columns)
        if names:
            with replacing(root / "classes.txt") as beside:
                beside.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _cell(value: str | int | float | tuple[int, ...] | None) -> str | int | float:
    if isinstance(value, tuple):
        return ";".join(map(str, value))
    return "" if value is None else value


def _read_samples(path: Path, classes: tuple[str, ...]) -> tuple[Sample, ...]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        header = rows.fieldnames or ()
        for column in header:
            if column not in COLUMNS:
                raise UserError(f"{path}: unknown column '{column}'{did_you_mean(column, COLUMNS)}")
        if "path" not in header:
            raise UserError(
                f"{path}: expected column names with 'path' in the first line, found {', '.join(header)}"
            )
        return tuple(_sample(row, f"{path}:{rows.line_num}", classes) for row in rows)


def _sample(row: dict[str, str], where: str, classes: tuple[str, ...]) -> Sample:
    if None in row or None in row.values():
        raise UserError(f"{where}: more or fewer cells than columns; quote a path that contains a comma")
    values: dict[str, str | int | float | tuple[int, ...]] = {}
    for column, text in row.items():
        convert = _NUMBERS.get(column, str)
        try:
            values |= {column: convert(text)} if text else {}
        except ValueError:
            expected = "numbers separated by ;" if column == "labels" else "a number"
            raise UserError(f"{where}: {column}: expected {expected}, found '{text}'") from None
    if not values.get("path"):
        raise UserError(f"{where}: the path is empty")
    sample = Sample(**values)  # type: ignore[arg-type]
    for label in sample.classes:
        if not 0 <= label < len(classes):
            raise UserError(
                f"{where}: label {label} is not in classes.txt: expected 0 to {len(classes) - 1}"
                if classes
                else f"{where}: label {label} needs a class name in classes.txt, which is missing"
            )
    if sample.labels and sample.label is not None:
        raise UserError(f"{where}: both label and labels are filled in: use one of them for all videos")
    return sample


def _no_list(root: Path, split: str) -> str:
    if not root.is_dir():
        return f"no data set at {root}: the folder does not exist. Set data.root to a folder with {split}.csv"
    found = sorted(path.name for path in root.glob("*.csv"))
    advice = (
        f"it contains {', '.join(found)}"
        if found
        else "write one with a column path (and label), see docs/data.md"
    )
    return f"{root} has no {split}.csv, the list of the {split} videos: {advice}"


def read_names(path: Path) -> tuple[str, ...]:
    """Read class names from a text file, one a line: a class index is the line number, from 0.

    Raises:
        UserError: the file cannot be read or is empty, a line before the last name is empty, or a name is
            there twice.
    """
    return distinct_names(located_lines(path, read_text(path, "class names")))


def located_lines(path: Path, text: str) -> list[tuple[str, str]]:
    """Return the lines up to the last that is not empty, each after its location `path:number`."""
    if not text.strip():
        raise UserError(f"{path} is empty; it should hold class names")
    return [(f"{path}:{n}", line.strip()) for n, line in enumerate(text.rstrip().split("\n"), start=1)]


def distinct_names(located: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return class names, each given after its location, unless one is empty or there twice."""
    first: dict[str, str] = {}
    for where, name in located:
        if not name:
            raise UserError(f"{where}: an empty name among the classes; fill it in, as line numbers count")
        if name in first:
            raise UserError(f"{where}: '{name}' is a class already ({first[name]}); give each its own name")
        first[name] = where
    return tuple(first)
