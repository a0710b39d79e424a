"""The list of a data set's videos: one CSV per split beside the class names.

    ROOT/train.csv      path,label,frames,fps,width,height,codec     (val.csv and test.csv alike)
    ROOT/classes.txt    one class name per line; `label` is the line number, from 0

Paths are relative to ROOT, absolute or URLs, with forward slashes; they may contain spaces and commas
(standard CSV quoting). Multi-label data sets have a column `labels` instead of `label`: 3;17; there an empty
cell means that a video shows none of the classes. With the columns `start` and `end` a sample is a segment of
the video, in seconds. Only `path` is required: pre-training needs no label, and unknown cells stay empty.
"""

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path

from tubelet.errors import UserError, did_you_mean, excerpt, plural
from tubelet.files import read_text, replacing
from tubelet.video.remote import remote_url

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """One video of a manifest; None stands for what is unknown.

    Attributes:
        path: relative to the manifest's root, absolute, or a URL.
        label: class index, from 0; None without a label and in multi-label data sets.
        frames: number of frames that decode, of the segment if it is one.
        fps: frames per second.
        width: in pixels as shown.
        height: in pixels as shown.
        codec: FFmpeg's name of it.
        labels: class indices in a multi-label data set.
        start: seconds after the first frame at which the sample begins; None for the start of the video.
        end: seconds at which it ends (exclusive); None for the end of the video.
    """

    path: str
    label: int | None = None
    frames: int | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    labels: tuple[int, ...] = ()
    start: float | None = None
    end: float | None = None

    @property
    def name(self) -> str:
        """Its path, and the times of a segment: `a.mp4#t=2.5,7`, as in the W3C's media fragments."""
        return segment_name(self.path, self.start, self.end)

    @property
    def classes(self) -> tuple[int, ...]:
        """The indices of all classes that the video shows."""
        return self.labels or (() if self.label is None else (self.label,))


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        classes = plural(len(self.classes), "class", "classes")
        return f"Manifest({self.root / self.split}.csv, {plural(len(self), 'video')}, {classes})"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the class names, videos and their classes in order: 64 hexadecimal digits."""
        listed = [self.classes, *((sample.name, sample.classes) for sample in self.samples)]
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
        unlabeled = [sample.name for sample in self.samples if not sample.classes]
        if unlabeled and not self.multi_label:
            have = "has" if len(unlabeled) == 1 else "have"
            is_test = self.split == "test" and (self.root / "val.csv").is_file()
            raise UserError(
                f"{self.root / self.split}.csv: {plural(len(unlabeled), 'video')} {have} no label, "
                f"for example {unlabeled[0]}" + (": data.split=val tests on val.csv" if is_test else "")
            )


@dataclass(frozen=True)
class JoinedManifest(Manifest):
    """The samples of more than one data set, one after the other, by absolute paths.

    Attributes:
        parts: the manifests.
    """

    parts: tuple[Manifest, ...]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the parts' fingerprints, so that data sets may be moved."""
        return hashlib.sha256("".join(part.fingerprint for part in self.parts).encode()).hexdigest()


def join_manifests(parts: Sequence[Manifest], *, labeled: bool) -> JoinedManifest:
    """Return the samples of all manifests; their root, and the split's name, are those of the first.

    Args:
        parts: the manifests.
        labeled: keep the labels, for which all must have the same classes.

    Raises:
        UserError: the classes differ.
    """
    first = parts[0]
    for part in parts[1:]:
        if labeled and (part.classes, part.multi_label) != (first.classes, first.multi_label):
            raise UserError(
                f"{part.root / part.split}.csv has other classes than {first.root / first.split}.csv: data "
                "sets that are joined need the same classes.txt, and labels of one kind"
            )
    unlabeled = {} if labeled else {"label": None, "labels": ()}
    samples = tuple(
        replace(sample, path=str(_absolute(part.locate(sample))), **unlabeled)  # type: ignore[arg-type]
        for part in parts
        for sample in part.samples
    )
    return JoinedManifest(first.root, first.split, samples, first.classes if labeled else (), tuple(parts))


def _absolute(path: Path | str) -> Path | str:
    return path if isinstance(path, str) else path.absolute()


def segment_name(path: str, start: float | None, end: float | None) -> str:
    """Return the name of a segment of a video; None is the start or the end of the video."""
    if start is None and end is None:
        return path
    return f"{path}#t={'' if start is None else seconds_text(start)}" + (
        "" if end is None else f",{seconds_text(end)}"
    )


def seconds_text(seconds: float) -> str:
    """Return seconds as short as they are exact to the microsecond: `12.5`, `7`."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


COLUMNS = tuple(field.name for field in fields(Sample))
_OPTIONAL_COLUMNS = ("labels", "start", "end")  # written only if a sample has them


@lru_cache(maxsize=2**16)
def _class_index(text: str) -> int:
    """Return the number in a text; all videos of a class have the same object, which saves memory."""
    return int(text)


def _class_indices(text: str) -> tuple[int, ...]:
    return tuple(map(_class_index, text.split(";")))


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError(text)
    return seconds


_NUMBERS: dict[str, Callable[[str], int | float | tuple[int, ...]]] = {
    "label": _class_index, "frames": int, "fps": float, "width": int, "height": int, "labels": _class_indices,
    "start": _seconds, "end": _seconds,
}  # fmt: skip
_EXPECTED = {"labels": "numbers separated by ;", "start": "seconds from 0 on", "end": "seconds from 0 on"}


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
        UserError: a class name has a line break.
        UnicodeEncodeError: a path or a name is not valid text.
    """
    samples, names = list(samples), list(classes)
    for name in names:
        require_one_line(name, str(root / "classes.txt"))
    columns = [
        column
        for column in COLUMNS
        if column not in _OPTIONAL_COLUMNS or any(getattr(s, column) not in (None, ()) for s in samples)
    ]
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
                raise UserError(f"{path}: unknown column '{excerpt(column)}'{did_you_mean(column, COLUMNS)}")
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
            expected = _EXPECTED.get(column, "a number")
            raise UserError(f"{where}: {column}: expected {expected}, found '{excerpt(text)}'") from None
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
    if sample.end is not None and sample.end <= (sample.start or 0.0):
        raise UserError(f"{where}: end: expected seconds after the start, found '{row['end']}'")
    if sample.labels and sample.label is not None:
        raise UserError(f"{where}: both label and labels are filled in: use one of them for all videos")
    return sample


def _no_list(root: Path, split: str) -> str:
    if not root.is_dir():
        return (
            f"no data set at {root}: the folder does not exist. Set data.root (or its root in "
            f"data.more_roots) to a folder with {split}.csv"
        )
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
    """Return class names, each given after its location, unless one is empty, broken or there twice."""
    first: dict[str, str] = {}
    for where, name in located:
        require_one_line(name, where)
        if not name:
            raise UserError(f"{where}: an empty name among the classes; fill it in, as line numbers count")
        if name in first:
            raise UserError(
                f"{where}: '{excerpt(name)}' is a class already ({first[name]}); give each its own name"
            )
        first[name] = where
    return tuple(first)


def require_one_line(name: str, where: str) -> None:
    """Raise a UserError if a class name has a line break, which in classes.txt would shift all later ones."""
    if "\n" in name or "\r" in name:
        raise UserError(f"{where}: the class name {excerpt(name)!r} has a line break; write it in one line")
