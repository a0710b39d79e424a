"""Files of a test's probabilities: written as .npz, .csv or MMAction2's .pkl, and read from .npz.

docs/evaluation.md describes the three formats. All are written and read a few megabytes at a time.
"""

import csv
import math
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from tubelet.errors import UserError
from tubelet.files import replacing
from tubelet.results.blocks import mapped_array, row_blocks, write_array

_NAMES_TOGETHER = 4096
_BLOCK_BYTES = 2**23
_LARGE = ("labels", "probabilities")
_PAIRS = ("broken", "facts")


@dataclass(frozen=True, repr=False, eq=False)
class ScoredVideos:
    """The data of a test; `Evaluation` documents the attributes."""

    names: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    broken: dict[str, str]
    views_per_second: float = 0.0
    data_wait: float = math.nan
    reused: int = 0
    classes: tuple[str, ...] = ()
    seconds: np.ndarray | None = None
    list_file: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def require_dump_suffix(path: Path) -> None:
    """Raise a UserError if a dump of this name cannot be written."""
    if path.suffix.lower() not in _WRITERS:
        raise UserError(f"{path}: a dump is written as {', '.join(_WRITERS)}, found '{path.suffix}'")


def write_dump(scores: ScoredVideos, path: Path) -> None:
    """Write a dump in the format that its suffix names; the errors are those of `Evaluation.save`."""
    require_dump_suffix(path)
    with replacing(path) as temporary:
        _WRITERS[path.suffix.lower()](scores, temporary)


def read_dump(path: Path) -> dict[str, Any]:
    """Return the attributes of a test from a .npz file; the errors are those of `Evaluation.load`."""
    if path.suffix.lower() != ".npz":
        raise UserError(
            f"{path}: only dumps that `tubelet evaluate` wrote as .npz are read, found '{path.suffix}'"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            found = {Path(name).stem: _member(archive, name) for name in archive.namelist()}
        attributes = _attributes(found)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        what = "it is empty" if not path.stat().st_size else f"it is damaged or something else ({error})"
        raise UserError(f"{path} is not a dump of `tubelet evaluate`: {what}") from None
    if not attributes["names"]:
        raise UserError(f"{path} has no videos: the test that wrote it could not read any")
    return attributes


def _attributes(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    attributes: dict[str, Any] = {name: found[name] for name in _LARGE}
    names, (num_videos, num_classes) = found["names"].tolist(), found["probabilities"].shape
    classes = tuple(found["classes"].tolist())
    kinds = {(np.dtype(np.int64), (num_videos,)), (np.dtype(bool), (num_videos, num_classes))}
    fit = len(names) == num_videos and len(classes) in (0, num_classes)
    fit = fit and (found["labels"].dtype, found["labels"].shape) in kinds
    if not fit or found["probabilities"].dtype != np.float32:
        raise ValueError("its arrays do not fit each other")
    labels = found["labels"]
    if labels.ndim == 1 and num_videos and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"it has {num_classes} classes and a label outside of them")
    if not all(
        np.isfinite(found["probabilities"][rows]).all() for rows in row_blocks(found["probabilities"])
    ):
        raise ValueError("a probability is not a finite number")
    attributes |= {name: dict(found[name].tolist()) for name in _PAIRS}
    attributes |= {name: float(found[name]) for name in ("views_per_second", "data_wait")}
    return attributes | {
        "names": names,
        "classes": classes,
        "seconds": found.get("seconds"),
        "list_file": str(found["list_file"]),
    }


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array of an archive; a large one is mapped from a temporary file."""
    with archive.open(name) as file:
        if Path(name).stem not in _LARGE:
            return np.lib.format.read_array(file, allow_pickle=False)
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} has another version of NumPy's format")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if is_fortran or dtype.hasobject:
            raise ValueError(f"{name} has another layout")
        size = math.prod(shape) * dtype.itemsize
        return mapped_array(dtype, shape, _read_blocks(file, size))


def _read_blocks(file: IO[bytes], size: int) -> Iterator[np.ndarray]:
    while size > 0:
        block = file.read(min(size, _BLOCK_BYTES))
        if not block:
            raise EOFError("it ends too early")
        size -= len(block)
        yield np.frombuffer(block, np.uint8)


def _write_npz(scores: ScoredVideos, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        name_type = np.dtype((np.str_, max(map(len, scores.names), default=1)))
        parts = range(0, len(scores.names), _NAMES_TOGETHER)
        names = (np.array(scores.names[k : k + _NAMES_TOGETHER], name_type) for k in parts)
        _write_member(archive, "names", name_type, (len(scores.names),), names)
        for name in _LARGE:
            matrix: np.ndarray = getattr(scores, name)
            blocks = (matrix[rows] for rows in row_blocks(matrix))
            _write_member(archive, name, matrix.dtype, matrix.shape, blocks)
        small = {"classes": np.array(scores.classes, dtype=str), "list_file": np.array(scores.list_file)}
        small |= {name: np.array(list(getattr(scores, name).items()), str).reshape(-1, 2) for name in _PAIRS}
        small |= {name: np.array(getattr(scores, name)) for name in ("views_per_second", "data_wait")}
        if scores.seconds is not None:
            small["seconds"] = scores.seconds
        for name, array in small.items():
            _write_member(archive, name, array.dtype, array.shape, [array])


def _write_member(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype,
    shape: tuple[int, ...],
    blocks: Iterable[np.ndarray],
) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        write_array(file, dtype, shape, blocks)


def _write_csv(scores: ScoredVideos, path: Path) -> None:
    classes = _class_names(scores)
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "class", "predicted", *classes])
        for name, label, probabilities in _videos(scores):
            true = ";".join(classes[k] for k in label)
            best = classes[int(probabilities.argmax())]
            shortest = map(str, probabilities)  # as few digits as float32 needs
            rows.writerow([name, true, best, *shortest])


def _write_pickle(scores: ScoredVideos, path: Path) -> None:
    with path.open("wb") as file:
        pickler = pickle.Pickler(file)
        pickler.fast = True  # keeps no reference to what is written; equal objects are written again
        pickler.dump(_ListOfItems(_mmaction2_items(scores)))


class _ListOfItems:
    """Items that are pickled one after the other, as if they were in a list."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __reduce__(self) -> tuple[type[list[Any]], tuple[()], None, Iterator[Any]]:
        return list, (), None, self._items


def _mmaction2_items(scores: ScoredVideos) -> Iterator[dict[str, Any]]:
    """Yield each video as `ActionDataSample.to_dict` does, with the names of its classes."""
    classes, multi_label = _class_names(scores), scores.labels.ndim == 2
    for name, label, probabilities in _videos(scores):
        if multi_label:
            truth = torch.zeros(len(classes))
            truth[list(label)] = 1
        else:
            truth = torch.tensor(label)
        yield {
            "video_id": name,
            # A view would be written with the whole block.
            "pred_score": torch.from_numpy(probabilities.copy()),
            "pred_label": torch.tensor([int(probabilities.argmax())]),
            "gt_label": truth,
            "num_classes": len(classes),
            "class_names": [classes[k] for k in label],
        }


def _videos(scores: ScoredVideos) -> Iterator[tuple[str, Sequence[int], np.ndarray]]:
    """Yield the name, the class indices and the probabilities (K,) of each video."""
    for rows in row_blocks(scores.probabilities):
        labels, probabilities = scores.labels[rows], scores.probabilities[rows]
        for name, label, row in zip(scores.names[rows], labels, probabilities, strict=True):
            yield name, np.flatnonzero(label).tolist() if label.ndim else [int(label)], row


def _class_names(scores: ScoredVideos) -> tuple[str, ...]:
    return scores.classes or tuple(map(str, range(scores.probabilities.shape[1])))


_WRITERS: dict[str, Callable[[ScoredVideos, Path], None]] = {
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".pkl": _write_pickle,
}
