"""What a frozen encoder knows, measured on its features: nearest neighbors, linear and attentive probes.

The protocol:

- kNN: cosine similarity to all training videos. The k nearest vote with the weight exp(similarity / 0.07)
  (DINO, arXiv 2104.14294), or equally.
- linear: one linear layer on features of which each number is standardized by its mean and deviation over the
  training videos (as the BatchNorm of MAE's probe, arXiv 2111.06377).
- attentive: a learned query attends to the vectors of a video, then MLP and linear layer (V-JEPA, arXiv
  2404.08471). It starts with a LayerNorm, so that nothing is standardized.

Heads are trained with Adam without weight decay and a cosine schedule. One head for each learning rate is
trained in one pass over the same batches, and the rate is chosen on videos that are not in the test: the list
`val`, or else a fifth of the training videos of each class. With that rate a new head is trained on all
training videos for each seed. Where a video has more than one vector, kNN and linear probes take their mean.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from statistics import mean, stdev

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tubelet.errors import UserError, plural, require_above, require_at_least
from tubelet.models.heads import AttentiveHead, AttentiveHeadConfig
from tubelet.results.probe_task import READ_TOGETHER, ProbeSet, ProbeTask

_HELD_OUT = 5  # one of so many training videos of a class, where there is no list to choose the rate on
_HEAD_DIM = 64  # of the attentive probe, as in vision transformers


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How features are probed.

    Attributes:
        k: neighbors that vote.
        temperature: of the votes' weights.
        rates: learning rates to choose from.
        epochs: passes over the training videos.
        batch_size: videos of a step.
        shots: training videos of each class, drawn by each seed; None is all.
        seeds: how many seeds.
        attentive: whether to train an attentive probe, too.
    """

    k: int = 20
    temperature: float = 0.07
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
    epochs: int = 100
    batch_size: int = 256
    shots: int | None = None
    seeds: int = 3
    attentive: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, k=self.k, epochs=self.epochs, batch_size=self.batch_size)
        require_at_least(1, shots=self.shots, seeds=self.seeds)
        require_above(0, temperature=self.temperature, rates=min(self.rates))


@dataclass(frozen=True)
class ProbeResult:
    """The result of one probe.

    Attributes:
        name: of the probe.
        metric: `top-1` or `mAP`.
        scores: the metric for each seed, in [0, 1]; one if the seeds make no difference.
        rate: the chosen learning rate; None without training.
    """

    name: str
    metric: str
    scores: tuple[float, ...]
    rate: float | None = None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return mean(self.scores)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds."""
        return stdev(self.scores) if len(self.scores) > 1 else None


def probe(
    task: ProbeTask,
    config: ProbeConfig,
    device: torch.device | str = "cpu",
    progress: Callable[[float, float], None] | None = None,
) -> list[ProbeResult]:
    """Probe features by nearest neighbors, a linear layer and, if asked, attention.

    Args:
        task: the videos.
        config: how.
        device: where heads are trained.
        progress: called with (finished steps, all steps).

    Raises:
        UserError: a class has fewer videos than `shots`, or an attentive probe has one vector per video.
    """
    if config.attentive and task.train.vectors.ndim == 2:
        raise UserError(
            "an attentive probe needs more than one vector for each video: embed with --per token (or frame)"
        )
    sets = [_draw(task, config.shots, seed) for seed in range(config.seeds if config.shots else 1)]
    pooled = replace(task, test=task.test.means(), val=task.val and task.val.means())
    pooled_sets = [each.means() for each in sets]
    done, total = count(1), config.epochs * (1 + config.seeds) * (1 + config.attentive)

    def finish_epoch() -> None:
        if progress:
            progress(next(done), total)

    results = [
        _neighbors(pooled, pooled_sets, config, config.temperature),
        _neighbors(pooled, pooled_sets, config, None),
        _trained("linear", _linear_head, pooled, pooled_sets, config, device, finish_epoch),
    ]
    if config.attentive:
        results.append(_trained("attentive", _attentive_head, task, sets, config, device, finish_epoch))
    return results


def _draw(task: ProbeTask, shots: int | None, seed: int) -> ProbeSet:
    """Return the training videos, or `shots` of each class."""
    if shots is None:
        return task.train
    if task.multi_label:
        raise UserError("shots: videos with more than one class cannot be drawn by class")
    rng, classes = np.random.default_rng(seed), task.train.target.argmax(1).numpy()
    rows = []
    for number in np.unique(classes):
        of_class = np.flatnonzero(classes == number)
        if len(of_class) < shots:
            videos = plural(len(of_class), "training video")
            raise UserError(f"shots={shots}: class {task.classes[number]} has {videos}; use fewer shots")
        rows.append(rng.permutation(of_class)[:shots])
    return task.train.rows(np.sort(np.concatenate(rows)))


def _neighbors(
    task: ProbeTask, sets: Sequence[ProbeSet], config: ProbeConfig, temperature: float | None
) -> ProbeResult:
    k = min(config.k, len(sets[0]))
    scores = tuple(
        task.score(knn_scores(each, task.test.vectors, k, temperature), task.test.target) for each in sets
    )
    how = "plain votes" if temperature is None else f"votes at temperature {temperature:g}"
    return ProbeResult(f"kNN, {k} {how}", task.metric, scores)


def knn_scores(train: ProbeSet, test: np.ndarray, k: int, temperature: float | None) -> Tensor:
    """Return each class's votes (M, K) by the k training videos of the largest cosine similarity.

    Args:
        train: one vector (D,) for each video, in memory.
        test: float32 (M, D).
        k: neighbors.
        temperature: a vote weighs exp(similarity / temperature); None: all weigh the same.
    """
    known = functional.normalize(torch.from_numpy(train.vectors), dim=1)
    votes = []
    for rows in torch.from_numpy(test).split(READ_TOGETHER):
        similarity, nearest = (functional.normalize(rows, dim=1) @ known.T).topk(k, dim=1)
        if temperature is None:
            weights = torch.ones_like(similarity)
        else:  # the most similar weighs 1, which changes no order and cannot overflow
            weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes.append(torch.einsum("mk,mkc->mc", weights, train.target[nearest]))
    return torch.cat(votes)


MakeHead = Callable[[ProbeSet, int], nn.Module]
"""Makes a new head for the training videos and a number of classes."""


def _trained(
    name: str,
    make_head: MakeHead,
    task: ProbeTask,
    sets: Sequence[ProbeSet],
    config: ProbeConfig,
    device: torch.device | str,
    finish_epoch: Callable[[], None],
) -> ProbeResult:
    """Choose the learning rate on other videos than those of the test, and train with it for each seed."""
    fit, held_out = (sets[0], task.val) if task.val else _hold_out(sets[0])
    heads = train_heads(make_head, task, fit, config.rates, config, 0, device, finish_epoch)
    found = [task.score(_head_scores(head, held_out, device), held_out.target) for head in heads]
    rate = config.rates[int(np.argmax(found))]
    scores = []
    for seed in range(config.seeds):
        own = sets[seed % len(sets)]
        (head,) = train_heads(make_head, task, own, [rate], config, seed, device, finish_epoch)
        scores.append(task.score(_head_scores(head, task.test, device), task.test.target))
    return ProbeResult(name, task.metric, tuple(scores), rate)


def _hold_out(train: ProbeSet) -> tuple[ProbeSet, ProbeSet]:
    """Return four fifths of the videos of each class, and the others; all are both if that is too few."""
    order = np.random.default_rng(0).permutation(len(train))
    classes = train.target[order].argmax(1).numpy()
    ranks = np.empty(len(train), dtype=np.int64)  # of each video within its class
    for number in np.unique(classes):
        ranks[classes == number] = np.arange((classes == number).sum())
    is_held_out = ranks % _HELD_OUT == _HELD_OUT - 1
    if not is_held_out.any():
        return train, train
    return train.rows(np.sort(order[~is_held_out])), train.rows(np.sort(order[is_held_out]))


def train_heads(
    make_head: MakeHead,
    task: ProbeTask,
    train: ProbeSet,
    rates: Sequence[float],
    config: ProbeConfig,
    seed: int,
    device: torch.device | str,
    finish_epoch: Callable[[], None] = lambda: None,
) -> list[nn.Module]:
    """Train a head for each learning rate on the same batches, which are read once for all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = [make_head(train, train.target.shape[1]).to(device).train() for _ in rates]
    groups = [{"params": head.parameters(), "lr": rate} for head, rate in zip(heads, rates, strict=True)]
    optimizer = torch.optim.Adam(groups)
    steps = config.epochs * -(-len(train) // config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    rng = np.random.default_rng(seed)
    for _ in range(config.epochs):
        order = rng.permutation(len(train))
        for first in range(0, len(train), config.batch_size):
            rows = order[first : first + config.batch_size]
            vectors, target = train.read(rows).to(device), train.target[rows].to(device)
            torch.stack([task.loss(head(vectors), target) for head in heads]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        finish_epoch()
    return heads


@torch.no_grad()
def _head_scores(head: nn.Module, videos: ProbeSet, device: torch.device | str) -> Tensor:
    """Return the logits (n, K) of a trained head, on the CPU."""
    head.eval()
    every = np.arange(len(videos))
    blocks = (every[first : first + READ_TOGETHER] for first in range(0, len(videos), READ_TOGETHER))
    return torch.cat([head(videos.read(rows).to(device)).cpu() for rows in blocks])


class _Standardized(nn.Module):
    """A linear layer on features of mean 0 and deviation 1 over the training videos."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, train: ProbeSet, classes: int) -> None:
        super().__init__()
        vectors = torch.from_numpy(train.vectors)[train.index]
        self.register_buffer("mean", vectors.mean(0))
        self.register_buffer("deviation", vectors.std(0, correction=0).clamp_min(1e-6))
        self.classify = nn.Linear(vectors.shape[1], classes)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.classify((vectors - self.mean) / self.deviation)


def _linear_head(train: ProbeSet, classes: int) -> nn.Module:
    return _Standardized(train, classes)


def _attentive_head(train: ProbeSet, classes: int) -> nn.Module:
    dim = train.vectors.shape[-1]
    heads = dim // _HEAD_DIM if dim % _HEAD_DIM == 0 else 1
    return AttentiveHead(AttentiveHeadConfig(heads=heads), dim=dim, classes=classes)
