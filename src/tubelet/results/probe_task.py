"""The labeled features of a probe: to train on, to choose the learning rate on, and to test on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tubelet.errors import UserError, excerpt, first_few, plural
from tubelet.results.features import Features
from tubelet.results.metrics import average_precision

READ_TOGETHER = 256
"""Videos whose features are in memory at a time."""
_SAME = ("weights", "per", "layer", "pool", "norm", "image_size")


@dataclass(frozen=True)
class ProbeSet:
    """Labeled features, which are read when they are needed.

    Attributes:
        vectors: float32 (N, D) or (N, R, D), maybe a memory-mapped file.
        index: int64 (n,), the rows of `vectors` that belong to the set.
        target: float32 (n, K), 1 for each class of a video.
    """

    vectors: np.ndarray
    index: np.ndarray
    target: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, rows: np.ndarray) -> "ProbeSet":
        """Return some of the videos, by their numbers in the set."""
        return ProbeSet(self.vectors, self.index[rows], self.target[rows])

    def read(self, rows: np.ndarray) -> Tensor:
        """Return the features of some of the videos, float32; raise a UserError if a number is not finite."""
        found = np.ascontiguousarray(self.vectors[self.index[rows]], dtype=np.float32)
        if not np.isfinite(found).all():
            raise UserError("the features have numbers that are not finite: embed the videos again")
        return torch.from_numpy(found)

    def means(self) -> "ProbeSet":
        """Return the same videos with one vector (D,) each, in memory: the mean of theirs."""
        every = np.arange(len(self))
        blocks = [self.read(every[k : k + READ_TOGETHER]) for k in range(0, len(self), READ_TOGETHER)]
        means = [block if block.ndim == 2 else block.mean(1) for block in blocks]
        return ProbeSet(torch.cat(means).numpy(), every, self.target)


@dataclass(frozen=True)
class ProbeTask:
    """The videos of a probe.

    Attributes:
        train: to train on.
        test: to test on.
        val: to choose the learning rate on; None holds out some of `train`.
        multi_label: whether a video may have more than one class.
        classes: their names.
        header: of the features.
    """

    train: ProbeSet
    test: ProbeSet
    val: ProbeSet | None
    multi_label: bool
    classes: Sequence[str]
    header: Mapping[str, Any]

    def protocol(self, shots: int | None) -> Iterator[str]:
        """Yield lines that say what is measured on what; docs/features.md has the rest."""
        about = self.header
        pool = "" if about["per"] == "token" else f"{about['pool']} of the tokens, "
        norm = "after" if about["norm"] else "before"
        yield f"model: {about['model']} (weights {about['weights'][:12]})"
        yield (
            f"features: block {about['layer']} of {about['depth']}, {pool}{norm} the last LayerNorm, one for "
            f"each {about['per']}; {self.train.vectors.shape[-1]} numbers"
        )
        videos, num_classes = plural(len(self.train), "video"), int(self.train.target.any(0).sum())
        drawn = f"{shots} of each of {num_classes} classes, drawn by each seed from " if shots else ""
        yield f"train: {drawn}{videos}" + ("" if shots else f" of {num_classes} classes")
        chosen = f"{plural(len(self.val), 'video')} of val" if self.val else "held-out training videos"
        yield f"test: {plural(len(self.test), 'video')}; learning rate chosen on {chosen}"

    @property
    def metric(self) -> str:
        """The name of the score."""
        return "mAP" if self.multi_label else "top-1"

    def score(self, scores: Tensor, target: Tensor) -> float:
        """Return the top-1 accuracy or mean average precision of scores (M, K), in [0, 1]."""
        if not self.multi_label:
            return float((scores.argmax(1) == target.argmax(1)).float().mean())
        columns = zip(scores.T.numpy(), target.T.bool().numpy(), strict=True)
        return float(np.mean([average_precision(found, own) for found, own in columns if own.any()]))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss that the score calls for."""
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, target)
        return functional.cross_entropy(logits, target)


def probe_task(files: Sequence[Features], names: Sequence[str]) -> ProbeTask:
    """Return the videos of a probe.

    Args:
        files: the features to train on and those to test on; or one file with the lists train and test.
        names: what the user calls the files, for messages.

    Raises:
        UserError: the features are of different models or classes, a list is missing or has no labels, videos
            to test on are also those to train on, or there is only one class.
    """
    own, other, val = _two_files(files, names) if len(files) > 1 else _lists_of(files[0], names[0])
    if int(own.target.any(0).sum()) < 2:
        raise UserError(f"{names[0]}: the training videos have one class; a probe needs at least two")
    return ProbeTask(own, other, val, files[0].labels.ndim == 2, files[0].classes, files[0].header)


def _lists_of(features: Features, name: str) -> tuple[ProbeSet, ProbeSet, ProbeSet | None]:
    train, val, test = (_labeled(features, split) for split in ("train", "val", "test"))
    tested = test or val
    if not train or not tested:
        found = ", ".join(sorted(set(filter(None, features.splits)))) or "no list"
        raise UserError(
            f"{name} needs labeled videos of the lists train and test (or val), found {found}: give a second "
            "file to test on"
        )
    return train, tested, val if test else None


def _two_files(files: Sequence[Features], names: Sequence[str]) -> tuple[ProbeSet, ProbeSet, None]:
    train, test = map(_labeled, files)
    if not train or not test:
        name = names[1] if train else names[0]
        raise UserError(f"{name} has no labels: embed a data set that has them (docs/features.md)")
    _require_same(files[0], files[1], names)
    _require_disjoint(files[0], files[1], names)
    return train, test, None


def _labeled(features: Features, split: str | None = None) -> ProbeSet | None:
    """Return the labeled videos (of a list); None if no video has a label.

    A video of a multi-label data set may show none of the classes.
    """
    chosen = np.ones(len(features), dtype=bool) if split is None else np.array(features.splits) == split
    if features.labels.ndim == 1:
        chosen &= features.labels >= 0
    index = np.flatnonzero(chosen)
    labels = torch.from_numpy(features.labels[index])
    if not len(index) or (labels.ndim == 2 and not labels.any()):
        return None
    target = labels if labels.ndim == 2 else functional.one_hot(labels, len(features.classes))
    return ProbeSet(features.vectors, index, target.float())


def _require_same(train: Features, test: Features, names: Sequence[str]) -> None:
    for key in _SAME:
        if train.header.get(key) != test.header.get(key):
            raise UserError(
                f"{names[0]} and {names[1]} have features of different models or settings: {key} is "
                f"{excerpt(str(train.header.get(key)), 12)} and {excerpt(str(test.header.get(key)), 12)}"
            )
    if train.classes != test.classes or train.labels.ndim != test.labels.ndim:
        raise UserError(
            f"{names[0]} and {names[1]} have other classes: the first are {first_few(train.classes, 3)} and "
            f"{first_few(test.classes, 3)}"
        )


def _require_disjoint(train: Features, test: Features, names: Sequence[str]) -> None:
    """Raise a UserError if a video is in both: the same name may also be that of another folder's video."""
    rows = {name: row for row, name in enumerate(train.names)}
    both = [
        name
        for row, name in enumerate(test.names)
        if name in rows and np.array_equal(train.vectors[rows[name]], test.vectors[row])
    ]
    if both:
        shared = f"{len(both):,} of the {plural(len(test), 'video')} of {names[1]}"
        raise UserError(
            f"{names[0]} has {shared}, the first {both[0]}: embed each list into its own file, with --split"
        )
