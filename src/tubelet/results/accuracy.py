"""The result of a test: the probabilities of its videos, and what they say about the model."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tubelet.errors import excerpt, plural, printable
from tubelet.results.blocks import columns, row_blocks
from tubelet.results.dumps import ScoredVideos, read_dump, write_dump
from tubelet.results.metrics import (
    Calibration,
    ClassScore,
    ConfusedPair,
    average_precision,
    calibration,
    mean_score,
)

_LEAST_CLASSES_OF_TOP5 = 10
_MAX_CLASSES_LISTED = 20
_NUM_LOWEST = 5
_NUM_PAIRS = 3
_NAME_WIDTH = 40


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation(ScoredVideos):
    """The result of a test.

    The matrices may be memory-mapped files: all methods look at a part of them at a time.

    Attributes:
        names: the N tested samples, as `Sample.name`: a path, and the times of a segment.
        labels: their classes, (N,) int64; multi-label (N, K) bool, true for each class of the video.
        probabilities: (N, K) float32, averaged over the views.
        broken: videos that could not be read, with the reason; they are not part of any number here.
        views_per_second: speed of the model without decoding, summed over the processes; from the median
            batch, because the first batches warm up. 0 if all results are of earlier runs.
        data_wait: share of the time that the processes waited for videos, in [0, 1], from the second batch
            on; NaN if there were fewer batches.
        reused: how many of the videos an earlier run of this test had finished.
        classes: K class names by index; empty if there are no names.
        seconds: how long each video or segment is, (N,) float32, NaN where the list does not say; None if
            nothing is known.
        list_file: the list of videos that was tested, such as /data/k400/test.csv; empty if it is unknown.
        facts: how it was tested, as text by name, such as the clips and the views.
    """

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
        return mean_score(self.per_class())

    @property
    def mean_class_accuracy(self) -> float:
        """Mean, over the classes that tested videos have, of the share of right videos; raises as `top`."""
        self._require_single_label()
        return mean_score(self.per_class())

    def per_class(self) -> list[ClassScore]:
        """Return the result of each class, by index."""
        names = map(self.class_name, range(self.probabilities.shape[1]))
        return [ClassScore(name, *found) for name, found in zip(names, self._scores, strict=True)]

    @cached_property
    def _scores(self) -> list[tuple[int, float | None]]:
        """The videos of each class, and how many of them are right or their average precision."""
        if self.multi_label:
            pairs = zip(columns(self.probabilities), columns(self.labels), strict=True)
            return [
                (int(labels.sum()), average_precision(scores, labels) if labels.any() else None)
                for scores, labels in pairs
            ]
        num_classes = self.probabilities.shape[1]
        totals = np.bincount(self.labels, minlength=num_classes).tolist()
        right = np.bincount(self.labels[self.predicted == self.labels], minlength=num_classes).tolist()
        return [(total, n / total if total else None) for total, n in zip(totals, right, strict=True)]

    @property
    def num_present(self) -> int:
        """How many of the classes tested videos have."""
        return sum(total > 0 for total, _ in self._scores)

    def calibration(self) -> Calibration:
        """Return the calibration of the predicted classes; raises as `top`."""
        self._require_single_label()
        return calibration(self.confidence, self.predicted == self.labels)

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
        pairs = self.labels * num_classes + self.predicted
        return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each video, (N,) int64."""
        return self._best[0]

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the most probable class of each video, (N,) float32."""
        return self._best[1]

    @cached_property
    def _best(self) -> tuple[np.ndarray, np.ndarray]:
        predicted = np.empty(len(self.names), dtype=np.int64)
        confidence = np.empty(len(self.names), dtype=np.float32)
        for rows in row_blocks(self.probabilities):
            block = self.probabilities[rows]
            predicted[rows], confidence[rows] = block.argmax(1), block.max(1)
        return predicted, confidence

    def _require_single_label(self) -> None:
        if self.multi_label:
            raise ValueError("this test is multi-label: use mean_average_precision()")

    def headline(self) -> str:
        """Return the metrics on one line, with the denominator and the number of broken videos."""
        broken = f"  ({plural(len(self.broken), 'video')} could not be read)" if self.broken else ""
        return self._result() + broken

    def summary(self) -> str:
        """Return the result in a few lines, with the denominators and the broken videos."""
        lines = [
            self._result() + (f"  ({self.views_per_second:.1f} views/s)" if self.views_per_second else "")
        ]
        if not self.multi_label:
            present = plural(self.num_present, "class", "classes")
            lines.append(
                f"mean class accuracy {self.mean_class_accuracy:.2%}  (of {present})"
                f"  calibration error {self.calibration().error:.2%}"
            )
        if not math.isnan(self.data_wait):
            lines.append(f"waited for data {self.data_wait:.0%} of the time")
        if self.reused:
            were = "was" if self.reused == 1 else "were"
            lines.append(f"{plural(self.reused, 'video')} of these {were} tested by an earlier run")
        if self.broken:
            are = "is" if len(self.broken) == 1 else "are"
            lines.append(
                f"{plural(len(self.broken), 'video')} could not be read and {are} not part of these numbers:"
            )
            lines.extend(f"  {printable(reason)}" for reason in self.broken.values())
        return "\n".join(lines)

    def _result(self) -> str:
        """Return the metrics with their denominator."""
        videos = plural(len(self.names), "video")
        if self.multi_label:
            present, num_classes = self.num_present, self.labels.shape[1]
            of = "" if present == num_classes else f"the {present} present of "
            return f"mAP {self.mean_average_precision():.2%}  of {videos}, over {of}{num_classes} classes"
        num_right = round(self.top1 * len(self.names))
        metrics = self.metrics()
        top5 = f"  top-5 {metrics['top5']:.2%}" if "top5" in metrics else ""
        return f"top-1 {self.top1:.2%}  ({num_right:,} of {videos}){top5}"

    def details(self) -> str:
        """Return a table of the classes and the three most confused pairs of them.

        The table has each class's videos and accuracy or, of a multi-label test, average precision. Of more
        than 20 classes it has the five with the lowest.
        """
        each = self.per_class()
        title = f"lowest of {len(each):,} classes" if len(each) > _MAX_CLASSES_LISTED else "class"
        if len(each) > _MAX_CLASSES_LISTED:
            scored = [one for one in each if one.score is not None]
            each = sorted(scored, key=lambda one: one.score or 0)[:_NUM_LOWEST]
        parts = [_class_table(title, each, "AP" if self.multi_label else "right")]
        if not self.multi_label and (pairs := self.confused_pairs(_NUM_PAIRS)):
            lines = [
                f"  {self.class_name(p.truth)} taken for {self.class_name(p.predicted)}: {p.videos:,}"
                for p in pairs
            ]
            parts.append("\n".join(("most confused:", *map(printable, lines))))
        return "\n\n".join(parts)

    def class_name(self, index: int) -> str:
        """Return the name of a class, or its index if there are no names."""
        return self.classes[index] if self.classes else str(index)

    def confused_pairs(self, count: int) -> list[ConfusedPair]:
        """Return the most frequent pairs of a class and another that was predicted; raises as `top`."""
        self._require_single_label()
        wrong = self.predicted != self.labels
        num_classes = self.probabilities.shape[1]
        pairs, videos = np.unique(
            self.labels[wrong] * num_classes + self.predicted[wrong], return_counts=True
        )
        most = np.argsort(-videos, kind="stable")[:count]
        return [
            ConfusedPair(int(pairs[k]) // num_classes, int(pairs[k]) % num_classes, int(videos[k]))
            for k in most
        ]

    def save(self, path: str | Path) -> None:
        """Write the probabilities of all videos with their labels and class names to exactly this file.

        Its suffix is the format (docs/evaluation.md describes them): `.npz` has all of this object, and
        `load` reads it; `.csv` has one line per video; `.pkl` is a list as MMAction2 dumps it.

        Raises:
            UserError: the suffix is none of these.
            OSError: the file cannot be written.
        """
        write_dump(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "Evaluation":
        """Read a `.npz` file of `save`; its matrices are mapped from a temporary file.

        Raises:
            UserError: it is not such a file, or it has no videos.
        """
        return cls(**read_dump(Path(path)))


def _class_table(title: str, classes: Sequence[ClassScore], heading: str) -> str:
    """Return a line for each class: its name, its videos and its score."""
    width = min(_NAME_WIDTH, max(len(text) for text in (title, *(each.name for each in classes))))
    rows = (
        f"{_fit(each.name, width):{width}}  {each.videos:6,}  "
        f"{'' if each.score is None else f'{each.score:7.1%}'}".rstrip()
        for each in classes
    )
    return "\n".join((f"{title:{width}}  videos  {heading:>7}", *rows))


def _fit(name: str, width: int) -> str:
    name = printable(name)
    return name if len(name) <= width else excerpt(name, width - 1)
