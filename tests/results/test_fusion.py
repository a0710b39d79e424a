"""Tests that are scored again without a model, and averaged."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tubelet.errors import UserError
from tubelet.results import blocks
from tubelet.results.accuracy import Evaluation
from tubelet.results.fusion import fuse_evaluations

CLASSES = ("run", "walk", "sit")


def evaluation_of(seed: int, *, multi_label: bool = False) -> Evaluation:
    """Twenty videos with the same labels and other probabilities for each seed."""
    labels = np.random.default_rng(0)
    shown = labels.random((20, 3)) < 0.4 if multi_label else labels.integers(3, size=20)
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(3), 20).astype(np.float32)
    names = [f"{k}.mp4" for k in range(20)]
    return Evaluation(names, shown, probabilities, {f"broken {seed}.mp4": "why"}, classes=CLASSES)


def shuffled(test: Evaluation) -> Evaluation:
    order = np.random.default_rng(9).permutation(20)
    return replace(
        test,
        names=[test.names[k] for k in order],
        labels=test.labels[order],
        probabilities=test.probabilities[order],
    )


@pytest.fixture
def dumped(tmp_path: Path) -> Callable[[str, Evaluation], Path]:
    def save(name: str, test: Evaluation) -> Path:
        test.save(tmp_path / name)
        return tmp_path / name

    return save


def test_probabilities_are_averaged_with_the_weights_in_any_order_of_the_videos(
    dumped: Callable[[str, Evaluation], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_ROW_BYTES", 100)  # eight videos
    for multi_label in (False, True):
        one, two, three = (evaluation_of(seed, multi_label=multi_label) for seed in (1, 2, 3))
        files = [dumped(f"{k}.npz", test) for k, test in enumerate((one, shuffled(two), three))]
        choices: tuple[Sequence[Any], ...] = (files, [one, shuffled(two), str(files[2])])
        for weights, shares in ((None, [1 / 3] * 3), ([1, 2, 0], [1 / 3, 2 / 3, 0])):
            for tests in choices:
                fused = fuse_evaluations(tests, weights)
                parts = zip(shares, (one, two, three), strict=True)
                expected = sum(share * test.probabilities.astype(float) for share, test in parts)
                np.testing.assert_allclose(fused.probabilities, expected, atol=1e-6)
                assert (fused.names, fused.classes) == (one.names, CLASSES)
                np.testing.assert_array_equal(fused.labels, one.labels)
                assert fused.broken.keys() == {f"broken {seed}.mp4" for seed in (1, 2, 3)}
        fused.save(files[0].with_name("fused.npz"))
        again = fuse_evaluations([files[0].with_name("fused.npz")])
        assert again.metrics() == fused.metrics()


def test_a_single_dump_is_scored_again(dumped: Callable[[str, Evaluation], Path]) -> None:
    test = replace(evaluation_of(1), views_per_second=3.0)
    again = fuse_evaluations([dumped("a.npz", test)], [2])
    assert again.summary() == test.summary()
    assert again.details() == test.details()


def test_a_list_with_a_video_twice_is_averaged_row_by_row() -> None:
    one, two = evaluation_of(1), evaluation_of(2)
    labels = one.labels.copy()
    labels[1] = labels[0]
    one, two = (
        replace(test, names=["0.mp4", "0.mp4", *test.names[2:]], labels=labels) for test in (one, two)
    )
    fused = fuse_evaluations([one, two])
    np.testing.assert_allclose(fused.probabilities, (one.probabilities + two.probabilities) / 2, atol=1e-6)


def test_tests_that_do_not_fit_are_refused_with_the_file_and_the_difference(
    dumped: Callable[[str, Evaluation], Path],
) -> None:
    good = evaluation_of(1)
    first = dumped("first.npz", good)
    labels = good.labels.copy()
    labels[7] = (labels[7] + 1) % 3
    right, wrong = CLASSES[good.labels[7]], CLASSES[labels[7]]
    renamed = replace(good, names=["other.mp4", *good.names[1:]])
    fewer = replace(
        good, names=good.names[1:], labels=good.labels[1:], probabilities=good.probabilities[1:],
        broken={"0.mp4": "cut off"},
    )  # fmt: skip
    two = replace(good, classes=(), probabilities=good.probabilities[:, :2], labels=good.labels % 2)
    for test, parts in (
        (replace(good, labels=labels), ["7.mp4", f"'{right}'", f"'{wrong}'"]),
        (shuffled(replace(good, labels=labels)), ["7.mp4", f"'{right}'", f"'{wrong}'"]),
        (renamed, ["1 video", "0.mp4"]),
        (fewer, ["1 video", "0.mp4", "could not be read"]),
        (replace(good, classes=("run", "stand", "sit")), ["class 1", "'stand'", "'walk'"]),
        (two, ["2 classes", "3"]),
        (evaluation_of(1, multi_label=True), ["multi-label"]),
    ):
        second = dumped("second.npz", test)
        with pytest.raises(UserError) as error:
            fuse_evaluations([first, second])
        for part in (str(first), str(second), *parts):
            assert part in str(error.value), part
        assert len(str(error.value).splitlines()) == 1


def test_weights_that_do_not_fit_are_refused() -> None:
    tests = [evaluation_of(1), evaluation_of(2)]
    for weights in ([1], [1, 2, 3], [1, -1], [0, 0], [1, float("nan")], [1, float("inf")]):
        with pytest.raises(UserError, match="weights"):
            fuse_evaluations(tests, weights)
    with pytest.raises(UserError, match="at least one"):
        fuse_evaluations([])


Command = Callable[..., tuple[int, str, str]]


def test_the_command_scores_dumps_again_and_dumps_what_it_averaged(
    tubelet: Command, dumped: Callable[[str, Evaluation], Path], tmp_path: Path
) -> None:
    tests = [evaluation_of(seed) for seed in (1, 2, 3)]
    files = [dumped(f"{k}.npz", test) for k, test in enumerate(tests)]
    code, out, err = tubelet("evaluate", "--from", files[0])
    assert (code, err) == (0, "")
    assert out == f"{tests[0].summary()}\n\n{tests[0].details()}\n"
    fused = fuse_evaluations(files, [1, 2, 0.5])
    for words in (
        ["--from", *files, "--weights", "1,2,0.5"],
        ["--from", files[0], "--from", files[1], files[2], "--weights", "1,2,0.5"],
    ):
        code, out, err = tubelet("evaluate", *words, "--dump", tmp_path / "fused.npz")
        assert code == 0
        parts = zip(files, ("0.286", "0.571", "0.143"), strict=True)
        assert err == f"fusing {', '.join(f'{file} (weight {share})' for file, share in parts)}\n"
        assert out == f"{fused.summary()}\n\n{fused.details()}\n"
        loaded = Evaluation.load(tmp_path / "fused.npz")
        np.testing.assert_array_equal(loaded.probabilities, fused.probabilities)


def test_a_dump_that_is_given_twice_has_both_weights(dumped: Callable[[str, Evaluation], Path]) -> None:
    file = dumped("a.npz", evaluation_of(1))
    assert fuse_evaluations([file, file, dumped("b.npz", evaluation_of(2))], [1, 1, 2]).facts == {
        str(file): "weight 0.5", str(file.with_name("b.npz")): "weight 0.5"
    }  # fmt: skip


def test_wrong_words_after_from_are_one_message(
    tubelet: Command, dumped: Callable[[str, Evaluation], Path], tmp_path: Path
) -> None:
    file = dumped("a.npz", evaluation_of(1))
    (tmp_path / "empty.npz").write_bytes(b"")
    words: list[tuple[list[Any], str]] = [
        (["--from", file, tmp_path / "missing.npz"], "missing.npz"),
        (["--from", tmp_path / "empty.npz"], "empty.npz"),
        (["--from", file, "views.clips=5"], "views.clips=5"),
        (["--from", file, "--device", "cpu"], "--device"),
        (["--from", file, "--allow-nonfinite"], "--allow-nonfinite"),
        (["--from", file, file, "--weights", "ema"], "--weights"),
        (["--from", file, file, "--weights", "1"], "weights"),
        (["--from", file, "--dump", tmp_path / "x.txt"], "x.txt"),
        ([], "MODEL"),
    ]
    for each, named in words:
        code, out, err = tubelet("evaluate", *each)
        assert (code, out) == (2, ""), each
        assert len(err.splitlines()) == 1, err
        assert named in err
