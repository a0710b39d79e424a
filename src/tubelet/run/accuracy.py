"""The result of a test: accuracy, confusion and average precision."""

import html
import mmap
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from tubelet.errors import excerpt, plural
from tubelet.files import replacing

_ROW_BYTES = 2**23  # of a matrix, looked at together
_COLUMN_BYTES = 2**25
_NAMES_TOGETHER = 4096
_LEAST_CLASSES_OF_TOP5 = 10
_MAX_CLASSES_LISTED = 20
_NUM_PAIRS = 3
_NAME_WIDTH = 40


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """The result of a test.

    The matrices may be memory-mapped files: all methods look at a part of them at a time.

    Attributes:
        names: the N tested samples, as `Sample.name`: a path, and the times of a segment.
        labels: their classes, (N,) int64; multi-label (N, K) bool, true for each class of the video.
        probabilities: (N, K) float32, averaged over the views.
        broken: videos that could not be read, with the reason; they are not part of any number here.
        views_per_second: speed of the model without decoding, summed over the processes; from the median
            batch, because the first batches warm up. 0 if all results are of earlier runs.
        reused: how many of the videos an earlier run of this test had finished.
        classes: K class names by index; empty if there are no names.
    """

    names: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    broken: dict[str, str]
    views_per_second: float
    reused: int = 0
    classes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {value:.2%}" for name, value in self.metrics().items())
        broken = f", {plural(len(self.broken), 'video')} broken" if self.broken else ""
        return f"Evaluation({shares} of {plural(len(self.names), 'video')}{broken})"

    def _repr_html_(self) -> str:
        """Return the summary, for notebooks."""
        return f"<pre>{html.escape(self.summary())}</pre>"

    @property
    def multi_label(self) -> bool:
        """Whether a video may have more than one class."""
        return self.labels.ndim == 2

    @property
    def top1(self) -> float:
        """Top-1 accuracy in [0, 1]; raises as `top`."""
        return self.top(1)

    @property
    def top5(self) -> float:
        """Top-5 accuracy in [0, 1]; raises as `top`."""
        return self.top(5)

    def metrics(self) -> dict[str, float]:
        """Return `top1` and `top5` or, of a multi-label test, `mAP`; all in [0, 1].

        With fewer than ten classes there is no `top5`, as chance would have half of it.
        """
        if self.multi_label:
            return {"mAP": self.mean_average_precision()}
        few = self.probabilities.shape[1] < _LEAST_CLASSES_OF_TOP5
        return {"top1": self.top1} if few else {"top1": self.top1, "top5": self.top5}

    def mean_average_precision(self) -> float:
        """Return the mean of `average_precision` over the classes that tested videos have, in [0, 1].

        Raises:
            ValueError: the test is not multi-label.
        """
        if not self.multi_label:
            raise ValueError("each video has one class: use top1, top5 or top(k)")
        return self._mean_average_precision

    @cached_property
    def _mean_average_precision(self) -> float:
        columns = zip(_columns(self.probabilities), _columns(self.labels), strict=True)
        each = [average_precision(scores, labels) for scores, labels in columns if labels.any()]
        return float(np.mean(each)) if each else 0.0

    def top(self, k: int) -> float:
        """Return the share of tested videos whose class is among the k most probable, in [0, 1].

        Raises:
            ValueError: the test is multi-label.
        """
        self._require_single_label()
        return float((self._ranks < k).mean()) if self.names else 0.0

    @cached_property
    def _ranks(self) -> np.ndarray:
        """How many classes come before each video's own, (N,); of equal probabilities the first is first."""
        ranks = np.empty(len(self.labels), dtype=np.int64)
        for rows in row_blocks(self.probabilities):
            own = self.labels[rows, None]
            scores = self.probabilities[rows]
            score = np.take_along_axis(scores, own, axis=1)
            earlier = np.arange(scores.shape[1]) < own
            ranks[rows] = ((scores > score) | ((scores == score) & earlier)).sum(1)
        return ranks

    def confusion(self) -> np.ndarray:
        """Return counts, int64 (K, K), true class by row, predicted class by column; raises as `top`."""
        self._require_single_label()
        num_classes = self.probabilities.shape[1]
        pairs = self.labels * num_classes + self._predicted
        return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)

    @cached_property
    def _predicted(self) -> np.ndarray:
        """The most probable class of each video, (N,) int64."""
        predicted = np.empty(len(self.labels), dtype=np.int64)
        for rows in row_blocks(self.probabilities):
            predicted[rows] = self.probabilities[rows].argmax(1)
        return predicted

    def _require_single_label(self) -> None:
        if self.multi_label:
            raise ValueError("this test is multi-label: use mean_average_precision()")

    def summary(self) -> str:
        """Return the result in a few lines, with the denominators and the broken videos."""
        videos = plural(len(self.names), "video")
        if self.multi_label:
            num_present, num_classes = self._num_present, self.labels.shape[1]
            present = "" if num_present == num_classes else f"the {num_present} present of "
            result = (
                f"mAP {self.mean_average_precision():.2%}  of {videos}, over {present}{num_classes} classes"
            )
        else:
            num_right = round(self.top1 * len(self.names))
            metrics = self.metrics()
            top5 = f"  top-5 {metrics['top5']:.2%}" if "top5" in metrics else ""
            result = f"top-1 {self.top1:.2%}  ({num_right:,} of {videos}){top5}"
        speed = f"  ({self.views_per_second:.1f} views/s)" if self.views_per_second else ""
        lines = [f"{result}{speed}"]
        if self.reused:
            were = "was" if self.reused == 1 else "were"
            lines.append(f"{plural(self.reused, 'video')} of these {were} tested by an earlier run")
        if self.broken:
            are = "is" if len(self.broken) == 1 else "are"
            lines.append(
                f"{plural(len(self.broken), 'video')} could not be read and {are} not part of these numbers:"
            )
            lines.extend(f"  {reason}" for reason in self.broken.values())
        return "\n".join(lines)

    def details(self) -> str:
        """Return a table of the classes, if there are at most 20, and the three most confused pairs of them.

        The table has each class's videos and accuracy or, of a multi-label test, average precision.
        """
        parts = [_class_table(self)] if self.probabilities.shape[1] <= _MAX_CLASSES_LISTED else []
        if not self.multi_label and (pairs := list(self._most_confused())):
            parts.append("most confused:\n" + "\n".join(f"  {pair}" for pair in pairs))
        return "\n\n".join(parts)

    def class_name(self, index: int) -> str:
        """Return the name of a class, or its index if there are no names."""
        return self.classes[index] if self.classes else str(index)

    def _most_confused(self) -> Iterator[str]:
        wrong = self._predicted != self.labels
        num_classes = self.probabilities.shape[1]
        pairs, counts = np.unique(
            self.labels[wrong] * num_classes + self._predicted[wrong], return_counts=True
        )
        for k in np.argsort(-counts, kind="stable")[:_NUM_PAIRS]:
            true, predicted = divmod(int(pairs[k]), num_classes)
            yield f"{self.class_name(true)} taken for {self.class_name(predicted)}: {counts[k]:,}"

    @cached_property
    def _num_present(self) -> int:
        """How many classes the tested videos have."""
        present = np.zeros(self.labels.shape[1], dtype=bool)
        for rows in row_blocks(self.labels):
            present |= self.labels[rows].any(0)
        return int(present.sum())

    def save(self, path: str | Path) -> None:
        """Write all of it to a compressed .npz file with exactly this name."""
        name_type = np.dtype((np.str_, max(map(len, self.names), default=1)))
        broken = np.array(list(self.broken.items()), dtype=str).reshape(-1, 2)
        with (
            replacing(Path(path)) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            parts = range(0, len(self.names), _NAMES_TOGETHER)
            names = (np.array(self.names[k : k + _NAMES_TOGETHER], name_type) for k in parts)
            _write_member(archive, "names", name_type, (len(self.names),), names)
            for name in ("labels", "probabilities"):
                matrix: np.ndarray = getattr(self, name)
                blocks = (matrix[rows] for rows in row_blocks(matrix))
                _write_member(archive, name, matrix.dtype, matrix.shape, blocks)
            classes = np.array(self.classes, dtype=str)
            speed = np.array(self.views_per_second)
            for name, array in (("broken", broken), ("views_per_second", speed), ("classes", classes)):
                _write_member(archive, name, array.dtype, array.shape, [array])

    @classmethod
    def load(cls, path: str | Path) -> "Evaluation":
        """Read a file of `save`."""
        with np.load(path) as saved:
            return cls(
                names=saved["names"].tolist(),
                labels=saved["labels"],
                probabilities=saved["probabilities"],
                broken=dict(saved["broken"].tolist()),
                views_per_second=float(saved["views_per_second"]),
                classes=tuple(saved["classes"].tolist()),
            )


def _class_table(evaluation: Evaluation) -> str:
    """Return a line for each class: its videos, and how many are right or their average precision."""
    num_classes = evaluation.probabilities.shape[1]
    names = [evaluation.class_name(index) for index in range(num_classes)]
    width = min(_NAME_WIDTH, max(map(len, names)))
    if evaluation.multi_label:
        columns = zip(_columns(evaluation.probabilities), _columns(evaluation.labels), strict=True)
        found = [
            (int(labels.sum()), average_precision(scores, labels) if labels.any() else None)
            for scores, labels in columns
        ]
        heading = f"{'class':{width}}  videos       AP"
    else:
        counts = evaluation.confusion()
        totals = counts.sum(1).tolist()
        found = [
            (total, right / total if total else None)
            for total, right in zip(totals, counts.diagonal().tolist(), strict=True)
        ]
        heading = f"{'class':{width}}  videos    right"
    rows = (
        f"{_fit(name, width):{width}}  {total:6,}  {'' if share is None else f'{share:7.1%}'}".rstrip()
        for name, (total, share) in zip(names, found, strict=True)
    )
    return "\n".join((heading, *rows))


def _fit(name: str, width: int) -> str:
    return name if len(name) <= width else excerpt(name, width - 1)


def write_array(
    file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]
) -> None:
    """Write an array in NumPy's format (.npy), given in blocks along its first axis."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for block in blocks:
        file.write(block.tobytes())


def _write_member(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype,
    shape: tuple[int, ...],
    blocks: Iterable[np.ndarray],
) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        write_array(file, dtype, shape, blocks)


def row_blocks(matrix: np.ndarray) -> Iterator[slice]:
    """Yield slices of an array along its first axis; each one's memory is released before the next."""
    num_rows = max(1, _ROW_BYTES // max(1, matrix[:1].nbytes))
    for first in range(0, len(matrix), num_rows):
        yield slice(first, first + num_rows)
        _release(matrix)


def _columns(matrix: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the columns of a matrix, each in memory that later ones overwrite; many from one reading."""
    num_rows, num_columns = matrix.shape
    together = min(num_columns, max(1, _COLUMN_BYTES // max(1, num_rows * matrix.itemsize)))
    columns = np.empty((together, num_rows), matrix.dtype)
    for first in range(0, num_columns, together):
        count = min(together, num_columns - first)
        for rows in row_blocks(matrix):
            columns[:count, rows] = matrix[rows, first : first + count].T
        yield from columns[:count]


def _release(matrix: np.ndarray) -> None:
    """Drop the pages of a memory-mapped file that is only read; they are read again when they are needed."""
    mapping: Any = matrix
    while isinstance(mapping, np.ndarray):
        mapping = mapping.base
    read_only = isinstance(matrix, np.memmap) and matrix.mode == "r"
    if read_only and isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the average precision of one class, in [0, 1].

    It is the mean, over the videos of the class, of the precision among all videos that score at least as
    high. Videos of equal scores count together, so that their order makes no difference (the definition of
    scikit-learn's average_precision_score).

    Args:
        scores: (N,) float, higher if the class is more likely.
        labels: (N,) bool, whether a video has the class; at least one has.
    """
    every, own = np.sort(scores), np.sort(scores[labels])
    as_high, own_as_high = (len(ranked) - np.searchsorted(ranked, own) for ranked in (every, own))
    return float((own_as_high / as_high).mean())
