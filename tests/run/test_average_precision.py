"""Average precision against a loop over thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.run.evaluation import average_precision


def by_hand(scores: np.ndarray, shown: np.ndarray) -> float:
    """Each threshold's precision, weighted by how much recall it adds to that of the one above it."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = [bool(truth) for score, truth in zip(scores, shown, strict=True) if score >= threshold]
        total += (sum(called) / shown.sum() - recall) * (sum(called) / len(called))
        recall = sum(called) / shown.sum()
    return total


def test_a_perfect_order_is_worth_one_and_the_reverse_what_is_left():
    scores = np.array([0.9, 0.8, 0.3, 0.1])
    assert average_precision(scores, np.array([True, True, False, False])) == 1
    reverse = average_precision(scores, np.array([False, False, True, True]))
    assert reverse == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_scores_that_are_all_alike_are_worth_the_share_of_videos_that_show_it():
    assert average_precision(np.full(8, 0.5), np.arange(8) < 3) == pytest.approx(3 / 8)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40), st.randoms())
def test_it_is_the_published_sum_whatever_the_ties_and_their_order(pairs: list[tuple[int, bool]], random):
    random.shuffle(pairs)
    scores = np.array([score / 7 for score, _ in pairs], dtype=np.float32)
    shown = np.array([truth for _, truth in pairs])
    shown[0] = True
    assert average_precision(scores, shown) == pytest.approx(by_hand(scores, shown))
