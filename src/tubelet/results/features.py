"""A file of features: one row for each video, with its name, label and times, and what they were made by.

An .npz file has these arrays, which NumPy reads without Tubelet:

    features  float32 (N, D); (N, R, D) where a video has R vectors (of its clips, frames or tokens)
    names     (N,) text: the path, with the times of a segment as `a.mp4#t=2,4`
    labels    int64 (N,), -1 for no label; bool (N, K) of a multi-label data set
    classes   (K,) text
    splits    (N,) text: train, val, test; empty for videos that are not from a list
    start     float64 (N,) seconds, NaN for the start of the video; `end` the same
    broken    (B, 2) text: the videos that could not be read, with the reason
    header    JSON text: the model and its weights' hash, layer, pooling, clips, views, version

Its features are not compressed, so that they are memory-mapped when they are read. A .parquet file has the
same in columns (features flattened), and header, classes and broken videos as JSON in its metadata.
"""

import json
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.errors import UserError, plural
from tubelet.files import replacing
from tubelet.results.blocks import row_blocks, write_array

SUFFIXES = (".npz", ".parquet")
_MEMBERS = ("features", "names", "labels", "classes", "splits", "start", "end", "broken", "header")
_METADATA = b"tubelet"
_HEADER = {"model", "weights", "per", "layer", "depth", "pool", "norm"}  # what every reader needs


@dataclass(frozen=True, repr=False, eq=False)
class Features:
    """The features of N videos or segments; the module's docstring describes the arrays.

    Attributes:
        vectors: float32 (N, D) or (N, R, D), maybe a memory-mapped file.
        names: N names.
        labels: int64 (N,) or bool (N, K).
        classes: K class names; empty without labels.
        splits: N names of lists.
        start: float64 (N,).
        end: float64 (N,).
        header: which model and what of it.
        broken: the videos that could not be read, with the reason.
    """

    vectors: np.ndarray
    names: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    splits: list[str]
    start: np.ndarray
    end: np.ndarray
    header: Mapping[str, Any]
    broken: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Features({self.size})"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> str:
        """Their number and width in words."""
        *rows, dim = self.vectors.shape[1:]
        each = f" x {rows[0]}" if rows else ""
        return f"{plural(len(self), 'row')}{each} of {dim} numbers"

    def save(self, path: Path) -> None:
        """Write all of it to an .npz or .parquet file.

        Raises:
            UserError: the suffix is another one, or the package for Parquet is missing.
            OSError: the file cannot be written.
        """
        require_suffix(path)
        with replacing(path) as temporary:
            if path.suffix == ".parquet":
                _write_feature_parquet(self, temporary)
            else:
                _write_feature_npz(self, temporary)


def require_suffix(path: Path) -> None:
    """Raise a UserError if features cannot be written to a file of this name."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: features are written as {' or '.join(SUFFIXES)}, found '{path.suffix}'")
    if path.suffix == ".parquet":
        _pyarrow(path)


def read_features(path: Path) -> Features:
    """Read a file of `Features.save`; the features of an .npz are memory-mapped.

    Raises:
        UserError: it is missing, damaged, not such a file, or has no rows.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; write one with tubelet embed MODEL VIDEOS -o {path}")
    try:
        found = _read_feature_parquet(path) if path.suffix == ".parquet" else _read_feature_npz(path)
    except UserError:
        raise
    except (ArithmeticError, LookupError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a file of tubelet embed, or it is damaged ({error})") from error
    if not len(found):
        raise UserError(f"{path} has no features: embed at least one video that can be read")
    if reason := _damage(found):
        raise UserError(f"{path} is damaged: {reason}")
    return found


def _damage(found: Features) -> str:
    """Return what is wrong with a file, as far as that is seen without reading the features."""
    if len({len(found.vectors), len(found), len(found.labels), len(found.splits)}) > 1:
        return "its arrays have different lengths"
    header = found.header if isinstance(found.header, dict) else {}
    if missing := sorted(_HEADER - header.keys()):
        return f"its header has no {', '.join(missing)}"
    num_classes = len(found.classes)
    if found.labels.shape[1:] not in ((), (num_classes,)):
        return f"its labels have shape {found.labels.shape}, but it has {num_classes} classes"
    if found.labels.ndim == 1 and not -1 <= found.labels.min() <= found.labels.max() < max(num_classes, 1):
        return f"it has {num_classes} classes and a label outside of them"
    return ""


def _write_feature_npz(features: Features, path: Path) -> None:
    arrays = {
        "names": np.array(features.names, dtype=str),
        "labels": features.labels,
        "classes": np.array(features.classes, dtype=str),
        "splits": np.array(features.splits, dtype=str),
        "start": features.start,
        "end": features.end,
        "broken": np.array(list(features.broken.items()), dtype=str).reshape(-1, 2),
        "header": np.array(json.dumps(features.header)),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            write_array(file, np.dtype(np.float32), features.vectors.shape, _blocks(features.vectors))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                write_array(file, array.dtype, array.shape, [array])


def _blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    return (np.asarray(vectors[rows], dtype=np.float32) for rows in row_blocks(vectors))


def _read_feature_npz(path: Path) -> Features:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz")
    with np.load(path, allow_pickle=False) as saved:
        if missing := [name for name in _MEMBERS if name not in saved]:
            raise ValueError(f"there is no {', '.join(missing)} in it")
        vectors = _mapped_member(path, "features")
        return Features(
            vectors=saved["features"] if vectors is None else vectors,
            names=saved["names"].tolist(),
            labels=saved["labels"],
            classes=tuple(saved["classes"].tolist()),
            splits=saved["splits"].tolist(),
            start=saved["start"],
            end=saved["end"],
            header=json.loads(str(saved["header"])),
            broken=dict(saved["broken"].tolist()),
        )


def _mapped_member(path: Path, name: str) -> np.ndarray | None:
    """Return an array of an .npz as a memory-mapped file; None if it is compressed or empty."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # of the local header, where the lengths of name and extra are
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return np.memmap(file, dtype, "r", file.tell(), shape) if shape[0] else None


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"{path}: Parquet needs the package pyarrow: pip install 'tubelet[table]', or write .npz"
        ) from None
    return pyarrow, pyarrow.parquet


def _write_feature_parquet(features: Features, path: Path) -> None:
    arrow, parquet = _pyarrow(path)
    about = {
        "header": features.header,
        "classes": features.classes,
        "broken": features.broken,
        "shape": features.vectors.shape[1:],
        "multi_label": features.labels.ndim == 2,
    }
    width = int(np.prod(features.vectors.shape[1:]))
    schema = arrow.schema(
        [
            ("name", arrow.string()), ("split", arrow.string()), ("start", arrow.float64()),
            ("end", arrow.float64()), ("labels", arrow.list_(arrow.int64())),
            ("features", arrow.list_(arrow.float32(), width)),
        ],
        metadata={_METADATA: json.dumps(about).encode()},
    )  # fmt: skip
    labels = label_lists(features.labels)
    with parquet.ParquetWriter(path, schema) as writer:
        for rows in row_blocks(features.vectors):
            flat = np.asarray(features.vectors[rows], dtype=np.float32).reshape(-1)
            columns = [
                list(map(_text, features.names[rows])), features.splits[rows],
                features.start[rows], features.end[rows], labels[rows],
                arrow.FixedSizeListArray.from_arrays(arrow.array(flat), width),
            ]  # fmt: skip
            arrays = [arrow.array(c, f.type) for c, f in zip(columns[:-1], schema, strict=False)]
            writer.write_table(arrow.table([*arrays, columns[-1]], schema=schema))


def _text(name: str) -> str:
    """Return a name as UTF-8, with bytes that are not text as escapes."""
    return name.encode(errors="backslashreplace").decode()


def _read_feature_parquet(path: Path) -> Features:
    _, parquet = _pyarrow(path)
    table = parquet.read_table(path)
    about = json.loads(table.schema.metadata[_METADATA])
    vectors = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, *about["shape"])
    lists = table["labels"].to_pylist()
    if about["multi_label"]:
        labels = np.zeros((len(lists), len(about["classes"])), dtype=bool)
        for row, present in zip(labels, lists, strict=True):
            row[present] = True
    else:
        labels = np.array([present[0] if present else -1 for present in lists], dtype=np.int64)
    return Features(
        vectors=vectors,
        names=table["name"].to_pylist(),
        labels=labels,
        classes=tuple(about["classes"]),
        splits=table["split"].to_pylist(),
        start=table["start"].to_numpy(),
        end=table["end"].to_numpy(),
        header=about["header"],
        broken=about["broken"],
    )


def label_lists(labels: np.ndarray) -> Sequence[list[int]]:
    """Return the class numbers of each row of labels, int64 (N,) or bool (N, K)."""
    if labels.ndim == 2:
        return [np.flatnonzero(row).tolist() for row in labels]
    return [[label] if label >= 0 else [] for label in labels.tolist()]
