"""The metrics of a test: average precision, calibration, and the results of single classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassScore:
    """The result of one class.

    Attributes:
        name: of the class, or its index if there are no names.
        videos: how many tested videos have the class.
        score: the share of them that is classified right or, of a multi-label test, the average precision, in
            [0, 1]; None if no tested video has the class.
    """

    name: str
    videos: int
    score: float | None


@dataclass(frozen=True)
class ConfusedPair:
    """Videos of one class that were taken for another.

    Attributes:
        truth: index of their class.
        predicted: index of the class that was predicted.
        videos: how many they are.
    """

    truth: int
    predicted: int
    videos: int


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far the probability of the predicted class is from the share of right predictions.

    As defined by Guo et al., On Calibration of Modern Neural Networks (ICML 2017, section 2): bin m of the
    M = 15 has the videos whose highest probability is in ((m - 1) / M, m / M], and the first also 0.

    Attributes:
        videos: (M,) int64, how many videos are in each bin.
        confidence: (M,) float64, their mean highest probability; NaN in an empty bin.
        accuracy: (M,) float64, the share of them that is classified right; NaN in an empty bin.
    """

    videos: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: |accuracy - confidence| of a bin, averaged over videos, in [0, 1]."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.videos) / max(1, self.videos.sum()))


def calibration(confidence: np.ndarray, is_right: np.ndarray) -> Calibration:
    """Return the calibration of predictions.

    Args:
        confidence: (N,) float, the probability of each predicted class, in [0, 1].
        is_right: (N,) bool, whether it is the video's class.
    """
    edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
    bins = np.searchsorted(edges, confidence)  # the number of edges below: bins are closed on the right
    videos, confidences, right = (
        np.bincount(bins, weights, CALIBRATION_BINS) for weights in (None, confidence, is_right)
    )
    with np.errstate(invalid="ignore"):
        return Calibration(videos, confidences / videos, right / videos)


def mean_score(classes: Sequence[ClassScore]) -> float:
    """Return the mean score of the classes that have one, 0 if none has."""
    scores = [each.score for each in classes if each.score is not None]
    return float(np.mean(scores)) if scores else 0.0


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
