"""Tests of the same videos scored again from their dumps, and their probabilities averaged."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tubelet.errors import UserError, excerpt, plural
from tubelet.results.accuracy import Evaluation
from tubelet.results.blocks import mapped_array, row_blocks


def fuse_evaluations(
    tests: Sequence[Evaluation | str | Path], weights: Sequence[float] | None = None
) -> Evaluation:
    """Return the result of averaging the probabilities of tests (late fusion), without their models.

    The tests are of the same videos, in any order, with the same labels and classes. A single one is only
    scored again.

    Args:
        tests: results of `evaluate`, or the .npz files that they were saved to.
        weights: of each test in the average, not negative; None is the same for all.

    Raises:
        UserError: a file is not such a dump; the tests are of other videos, labels or classes, which the
            message names; or the weights do not fit.
    """
    results = [test if isinstance(test, Evaluation) else Evaluation.load(test) for test in tests]
    names = [f"test {k}" if isinstance(test, Evaluation) else str(test) for k, test in enumerate(tests, 1)]
    shares = _shares(weights, len(results))
    if len(results) == 1:
        return results[0]
    first = results[0]
    share_of = dict.fromkeys(names, 0.0)  # the same dump may be given twice
    for name, share in zip(names, shares, strict=True):
        share_of[name] += share
    orders = [
        _matching_rows(result, first, name, names[0]) for result, name in zip(results, names, strict=True)
    ]

    def blocks() -> Iterator[np.ndarray]:
        for rows in _blocks_of(*(result.probabilities for result in results)):
            total = np.zeros(first.probabilities[rows].shape)
            for result, order, share in zip(results, orders, shares, strict=True):
                total += share * result.probabilities[rows if order is None else order[rows]]
            yield total.astype(np.float32)

    return Evaluation(
        names=first.names,
        labels=first.labels,
        probabilities=mapped_array(np.dtype(np.float32), first.probabilities.shape, blocks()),
        broken={name: reason for result in results for name, reason in result.broken.items()},
        classes=next((result.classes for result in results if result.classes), ()),
        seconds=first.seconds,
        list_file=first.list_file,
        facts={name: f"weight {share:.3g}" for name, share in share_of.items()},
    )


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """Return weights that add up to 1."""
    if not count:
        raise UserError("there is no test to score again: give at least one dump")
    given = [1.0] * count if weights is None else list(weights)
    if len(given) != count:
        raise UserError(
            f"weights: expected one for each of the {plural(count, 'dump')}, found {len(given)}: "
            f"{', '.join(f'{weight:g}' for weight in given)}"
        )
    if not all(0 <= weight < math.inf for weight in given) or not sum(given):
        raise UserError(
            "weights must be finite, not negative and not all 0, found "
            f"{', '.join(f'{weight:g}' for weight in given)}"
        )
    return [weight / sum(given) for weight in given]


def _matching_rows(result: Evaluation, first: Evaluation, name: str, first_name: str) -> np.ndarray | None:
    """Return the row of each video of the first test in another one, (N,); None if the order is the same.

    Raises:
        UserError: the tests do not fit each other.
    """
    _require_the_same_classes(result, first, name, first_name)
    rows = None
    if result.names != first.names:
        _require_the_same_videos(result, first, name, first_name)
        rows = np.empty(len(first.names), np.int64)
        rows[_sorted_rows(first.names)] = _sorted_rows(result.names)
    for block in _blocks_of(first.labels, result.labels):
        differ = result.labels[block if rows is None else rows[block]] != first.labels[block]
        if differ.any():
            number = block.start + int(np.argwhere(differ)[0, 0])
            row = number if rows is None else int(rows[number])
            raise UserError(
                f"{name}: {excerpt(first.names[number])} has the label {_label(result, row)}, but in "
                f"{first_name} {_label(first, number)}: dump both tests with the same labels"
            )
    return rows


def _require_the_same_classes(result: Evaluation, first: Evaluation, name: str, first_name: str) -> None:
    counts = [test.probabilities.shape[1] for test in (result, first)]
    if counts[0] != counts[1]:
        raise UserError(
            f"{name} has {plural(counts[0], 'class', 'classes')}, but {first_name} {counts[1]:,}: "
            "only tests with the same classes can be fused"
        )
    if result.multi_label != first.multi_label:
        kinds = ["is" if test.multi_label else "is not" for test in (result, first)]
        raise UserError(f"{name} {kinds[0]} multi-label, but {first_name} {kinds[1]}: they cannot be fused")
    if result.classes and first.classes:
        for k, (own, other) in enumerate(zip(result.classes, first.classes, strict=True)):
            if own != other:
                raise UserError(
                    f"{name}: class {k} is '{excerpt(own)}', but in {first_name} '{excerpt(other)}': "
                    "only tests with the same classes in the same order can be fused"
                )


def _require_the_same_videos(result: Evaluation, first: Evaluation, name: str, first_name: str) -> None:
    own, others = Counter(result.names), Counter(first.names)
    for missing, where, there in (
        (others - own, name, first_name),
        (own - others, first_name, name),
    ):
        if missing:
            video, unreadable = next(iter(missing)), (result if where == name else first).broken
            why = ", which could not be read in that test" if video in unreadable else ""
            raise UserError(
                f"{where} does not have {plural(missing.total(), 'video')} of {there}, such as "
                f"{excerpt(video)}{why}: only tests of the same videos can be fused"
            )


def _blocks_of(*matrices: np.ndarray) -> Iterator[slice]:
    """Yield slices of matrices of the same shape and type; the memory of all is released before the next."""
    for rows, *_ in zip(*map(row_blocks, matrices), strict=True):
        yield rows


def _sorted_rows(names: Sequence[str]) -> list[int]:
    return sorted(range(len(names)), key=names.__getitem__)


def _label(test: Evaluation, row: int) -> str:
    if not test.multi_label:
        return f"'{test.class_name(int(test.labels[row]))}'"
    return "'" + ";".join(test.class_name(int(k)) for k in np.flatnonzero(test.labels[row])) + "'"
