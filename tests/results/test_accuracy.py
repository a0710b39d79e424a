"""The numbers of a test against counts by hand, and how they are printed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tubelet.results.accuracy import Evaluation


def test_top_k_and_confusion_count_by_hand() -> None:
    outcome = Evaluation(
        names=["a", "b", "c"],
        labels=np.array([0, 2, 1]),
        probabilities=np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.4, 0.35, 0.25]], dtype=np.float32),
        broken={},
        views_per_second=1.0,
    )
    assert outcome.top(1) == pytest.approx(1 / 3)
    assert outcome.top(2) == pytest.approx(2 / 3)
    assert outcome.top(3) == 1
    assert (outcome.top1, outcome.top5) == (outcome.top(1), 1)
    assert outcome.confusion().tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]


def result_of(labels: np.ndarray, probabilities: np.ndarray, broken: int = 0) -> Evaluation:
    return Evaluation(
        names=[f"{k}.mp4" for k in range(len(labels))],
        labels=labels,
        probabilities=probabilities,
        broken={f"b{k}.mp4": f"b{k}.mp4: no such file" for k in range(broken)},
        views_per_second=2.5,
    )


LABELS = np.array([[1, 0, 0, 1], [0, 0, 0, 1], [1, 0, 1, 1]], dtype=bool)
SCORES = np.array([[0.9, 0.2, 0.1, 0.5], [0.8, 0.9, 0.3, 0.5], [0.7, 0.1, 0.2, 0.5]], dtype=np.float32)


def test_the_mean_average_precision_is_over_the_classes_that_are_present() -> None:
    outcome = result_of(LABELS, SCORES)
    # Class 0 has ranks 1 and 3, no video has class 1, class 2 is second, every video has class 3.
    expected = ((1 + 2 / 3) / 2 + 1 / 2 + 1) / 3
    assert outcome.mean_average_precision() == pytest.approx(expected)
    assert outcome.metrics() == {"mAP": pytest.approx(expected)}
    assert f"mAP {expected:.2%}  of 3 videos" in outcome.summary()
    assert "3 present of 4 classes" in outcome.summary()
    all_present = result_of(LABELS[:, [0, 2, 3]], SCORES[:, [0, 2, 3]])
    assert "present of" not in all_present.summary()


def test_videos_without_classes_have_no_precision() -> None:
    outcome = result_of(np.zeros((2, 3), dtype=bool), SCORES[:2, :3])
    assert outcome.mean_average_precision() == 0
    assert "0 present of 3 classes" in outcome.summary()


def test_metrics_of_other_labels_are_refused() -> None:
    multi_label, one = result_of(LABELS, SCORES), result_of(np.array([0, 3, 2]), SCORES)
    for metric in (
        lambda: multi_label.top(1),
        lambda: multi_label.top1,
        lambda: multi_label.mean_class_accuracy,
        lambda: multi_label.confused_pairs(3),
        multi_label.confusion,
        multi_label.calibration,
    ):
        with pytest.raises(ValueError, match="multi-label"):
            metric()
    with pytest.raises(ValueError, match="each video has one class"):
        one.mean_average_precision()
    assert one.metrics() == {"top1": one.top(1)}


def test_broken_videos_are_counted_and_named_under_the_numbers() -> None:
    for broken, counted in ((1, "1 video could not be read"), (2, "2 videos could not be read")):
        outcome = result_of(np.array([0, 3, 2]), SCORES, broken)
        assert outcome.headline().endswith(f"of 3 videos)  ({counted})")
        lines = outcome.summary().splitlines()
        assert lines[2].startswith(counted)
        assert lines[3:] == [f"  b{k}.mp4: no such file" for k in range(broken)]
    assert len(result_of(LABELS, SCORES).summary().splitlines()) == 1


def test_names_cannot_change_a_terminal() -> None:
    names = ("a\x1b[31m", "b\nc", "d", "e")
    outcome = replace(result_of(np.array([0, 1, 2]), SCORES), classes=names, broken={"x": "x\x1b: gone"})
    for text in (outcome.summary(), outcome.details()):
        assert "\x1b" not in text
        assert r"\x1b" in text
    assert r"b\nc" in outcome.details()


def test_few_classes_are_listed_and_the_confused_pairs_named(tmp_path: Path) -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 1, 1, 1, 2, 2])
    outcome = replace(
        result_of(labels, np.eye(4, dtype=np.float32)[predicted]), classes=("run", "walk", "sit", "a" * 50)
    )
    assert outcome.summary().startswith("top-1 50.00%  (3 of 6 videos)")
    assert "top-5" not in outcome.summary()
    table, pairs = outcome.details().split("\n\n")
    assert [line.split()[-2:] for line in table.splitlines()[1:4]] == [
        ["3", "33.3%"],
        ["2", "50.0%"],
        ["1", "100.0%"],
    ]
    assert max(map(len, table.splitlines())) <= 80
    assert pairs.splitlines()[1:] == ["  run taken for walk: 2", "  walk taken for sit: 1"]
    outcome.save(tmp_path / "x.npz")
    assert Evaluation.load(tmp_path / "x.npz").classes == outcome.classes
    assert "array" not in repr(outcome)
    assert "50.00%" in repr(outcome)


def test_of_many_classes_the_lowest_are_listed_and_there_is_a_top5() -> None:
    labels = np.repeat(np.arange(10), 3)
    predicted = np.where(np.arange(30) % 3 < np.arange(10).repeat(3) % 4, labels, 29)
    outcome = result_of(labels, np.eye(30, dtype=np.float32)[predicted])
    assert outcome.metrics().keys() == {"top1", "top5"}
    table, pairs = outcome.details().split("\n\n")
    assert table.splitlines()[0].startswith("lowest of 30 classes")
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["0", "3", "0.0%"],
        ["4", "3", "0.0%"],
        ["8", "3", "0.0%"],
        ["1", "3", "33.3%"],
        ["5", "3", "33.3%"],
    ]
    assert pairs.startswith("most confused:\n  0 taken for 29: 3\n  4 taken for 29: 3\n")


def test_the_mean_class_accuracy_is_over_the_classes_that_are_present() -> None:
    labels = np.array([0, 0, 0, 1, 3])
    predicted = np.array([0, 0, 1, 1, 2])
    outcome = result_of(labels, np.eye(4, dtype=np.float32)[predicted])
    expected = (2 / 3 + 1 + 0) / 3  # no video has class 2
    assert outcome.mean_class_accuracy == pytest.approx(expected)
    assert f"mean class accuracy {expected:.2%}  (of 3 classes)" in outcome.summary()
    assert [(each.videos, each.score) for each in outcome.per_class()] == [
        (3, pytest.approx(2 / 3)), (1, 1.0), (0, None), (1, 0.0),
    ]  # fmt: skip


def test_the_most_confused_pairs_come_first() -> None:
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 2, 2])
    pairs = result_of(labels, np.eye(3, dtype=np.float32)[predicted]).confused_pairs(5)
    assert [(pair.truth, pair.predicted, pair.videos) for pair in pairs] == [(0, 1, 2), (1, 2, 1)]


def test_the_calibration_is_that_of_the_most_probable_class() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.7, 0.3]], dtype=np.float32)
    outcome = result_of(np.array([0, 1, 1, 0]), probabilities)
    found = outcome.calibration()
    assert found.videos[[10, 13]].tolist() == [2, 2]  # (10/15, 11/15] and (13/15, 14/15]
    assert found.accuracy[[10, 13]].tolist() == [1, 0.5]
    assert found.error == pytest.approx((2 * 0.3 + 2 * 0.4) / 4, abs=1e-6)
    assert f"calibration error {found.error:.2%}" in outcome.summary()


def test_multi_label_classes_are_listed_with_their_precision() -> None:
    lines = result_of(LABELS, SCORES).details().splitlines()
    assert [line.split()[1:] for line in lines[1:]] == [
        ["2", "83.3%"],
        ["0"],
        ["1", "50.0%"],
        ["3", "100.0%"],
    ]
