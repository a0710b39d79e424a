"""Average precision and calibration against loops by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.results.metrics import average_precision, calibration


def precision_by_hand(scores: np.ndarray, labels: np.ndarray) -> float:
    """Each threshold's precision, weighted by how much recall it adds to that of the one above it."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        positive = [bool(label) for score, label in zip(scores, labels, strict=True) if score >= threshold]
        total += (sum(positive) / labels.sum() - recall) * (sum(positive) / len(positive))
        recall = sum(positive) / labels.sum()
    return total


def test_the_average_precision_of_the_best_and_the_worst_order() -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.1])
    assert average_precision(scores, np.array([True, True, False, False])) == 1
    reverse = average_precision(scores, np.array([False, False, True, True]))
    assert reverse == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_the_average_precision_of_equal_scores_is_the_share_of_videos_with_the_class() -> None:
    assert average_precision(np.full(8, 0.5), np.arange(8) < 3) == pytest.approx(3 / 8)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40), st.randoms())
def test_the_average_precision_is_the_published_sum_for_any_ties_and_order(
    pairs: list[tuple[int, bool]], random
) -> None:
    random.shuffle(pairs)
    scores = np.array([score / 7 for score, _ in pairs], dtype=np.float32)
    labels = np.array([label for _, label in pairs])
    labels[0] = True
    assert average_precision(scores, labels) == pytest.approx(precision_by_hand(scores, labels))


def error_by_hand(confidence: list[float], right: list[bool]) -> float:
    """Each video looks for its bin, and the gaps are summed as the paper writes them."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for probability, is_right in zip(confidence, right, strict=True):
        number = next(m for m in range(1, 16) if probability <= m / 15)
        bins.setdefault(number, []).append((probability, is_right))
    total = 0.0
    for members in bins.values():
        mean, accuracy = (sum(values) / len(members) for values in zip(*members, strict=True))
        total += len(members) / len(confidence) * abs(accuracy - mean)
    return total


EDGES = st.integers(0, 15).map(lambda k: k / 15)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.floats(0, 1) | EDGES, st.booleans()), min_size=1))
def test_the_calibration_error_is_the_published_sum(videos: list[tuple[float, bool]]) -> None:
    confidence, right = [p for p, _ in videos], [r for _, r in videos]
    found = calibration(np.array(confidence), np.array(right))
    assert found.error == pytest.approx(error_by_hand(confidence, right))
    assert found.videos.sum() == len(videos)


def test_a_bin_contains_its_upper_edge_and_the_first_also_zero() -> None:
    found = calibration(np.array([0, 1 / 15, 1 / 15 + 1e-9, 2 / 15, 1]), np.ones(5, dtype=bool))
    assert found.videos.tolist() == [2, 2, *[0] * 12, 1]
    assert np.isnan(found.accuracy[2:14]).all()
    assert calibration(np.empty(0), np.empty(0, dtype=bool)).error == 0
