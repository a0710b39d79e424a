"""The result of a test: accuracy, confusion and average precision."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tubelet.errors import plural
from tubelet.files import replacing


@dataclass(frozen=True)
class Evaluation:
    """The result of a test.

    Attributes:
        names: the N tested samples, as `Sample.name`: a path, and the times of a segment.
        labels: their classes, (N,) int64; multi-label (N, K) bool, true for each class of the video.
        probabilities: (N, K) float32, averaged over the views.
        broken: videos that could not be read, with the reason; they are not part of any number here.
        views_per_second: speed of the model without decoding, summed over the processes; from the median
            batch, because the first batches warm up.
    """

    names: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    broken: dict[str, str]
    views_per_second: float

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
        """Return `top1` and `top5` or, of a multi-label test, `mAP`; all in [0, 1]."""
        if self.multi_label:
            return {"mAP": self.mean_average_precision()}
        return {"top1": self.top1, "top5": self.top5}

    def mean_average_precision(self) -> float:
        """Return the mean of `average_precision` over the classes that tested videos have, in [0, 1].

        Raises:
            ValueError: the test is not multi-label.
        """
        if not self.multi_label:
            raise ValueError("each video has one class: use top1, top5 or top(k)")
        present = np.flatnonzero(self.labels.any(0))
        each = [average_precision(self.probabilities[:, k], self.labels[:, k]) for k in present]
        return float(np.mean(each)) if each else 0.0

    def top(self, k: int) -> float:
        """Return the share of tested videos whose class is among the k most probable, in [0, 1].

        Raises:
            ValueError: the test is multi-label.
        """
        self._require_single_label()
        if not self.names:
            return 0.0
        best = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return float((best == self.labels[:, None]).any(1).mean())

    def confusion(self) -> np.ndarray:
        """Return counts, int64 (K, K), true class by row, predicted class by column; raises as `top`."""
        self._require_single_label()
        num_classes = self.probabilities.shape[1]
        pairs = self.labels * num_classes + self.probabilities.argmax(1)
        return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)

    def _require_single_label(self) -> None:
        if self.multi_label:
            raise ValueError("this test is multi-label: use mean_average_precision()")

    def summary(self) -> str:
        """Return the result in a few lines, with the denominators and the broken videos."""
        videos = plural(len(self.names), "video")
        if self.multi_label:
            num_present, num_classes = int(self.labels.any(0).sum()), self.labels.shape[1]
            present = "" if num_present == num_classes else f"the {num_present} present of "
            result = (
                f"mAP {self.mean_average_precision():.2%}  of {videos}, over {present}{num_classes} classes"
            )
        else:
            result = f"top-1 {self.top1:.2%}  top-5 {self.top5:.2%}  of {videos}"
        lines = [f"{result}  ({self.views_per_second:.1f} views/s)"]
        if self.broken:
            are = "is" if len(self.broken) == 1 else "are"
            lines.append(
                f"{plural(len(self.broken), 'video')} could not be read and {are} not part of these numbers:"
            )
            lines.extend(f"  {reason}" for reason in self.broken.values())
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write all of it to a compressed .npz file with exactly this name."""
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                names=np.array(self.names),
                labels=self.labels,
                probabilities=self.probabilities,
                broken=np.array(list(self.broken.items()), dtype=str).reshape(-1, 2),
                views_per_second=self.views_per_second,
            )

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
            )


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the average precision of one class, in [0, 1].

    It is the mean, over the videos of the class, of the precision among all videos that score at least as
    high. Videos of equal scores count together, so that their order makes no difference (the definition of
    scikit-learn's average_precision_score).

    Args:
        scores: (N,) float, higher if the class is more likely.
        labels: (N,) bool, whether a video has the class; at least one has.
    """
    order = np.argsort(-scores)
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # the last video of each score
    found = labels[order].cumsum()[last]
    return float((np.diff(found, prepend=0) * found / (last + 1)).sum() / found[-1])
