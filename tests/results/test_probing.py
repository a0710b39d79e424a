"""Probes of frozen features, compared with brute force and with the optimum."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tubelet.errors import UserError
from tubelet.results import probing
from tubelet.results.features import Features
from tubelet.results.probe_task import ProbeSet, ProbeTask, probe_task
from tubelet.results.probing import ProbeConfig, knn_scores, probe, train_heads

Command = Callable[..., tuple[int, str, str]]
HEADER: dict[str, Any] = {
    "model": "x.pth", "weights": "0123456789abcdef", "per": "video", "layer": 12, "depth": 12, "pool": "mean",
    "norm": True, "image_size": 224,
}  # fmt: skip


def features(
    vectors: np.ndarray, labels: np.ndarray, splits: list[str] | str = "", *, classes: int = 3, **header: Any
) -> Features:
    count = len(vectors)
    return Features(
        vectors=vectors.astype(np.float32),
        names=[f"{k}.mp4" for k in range(count)],
        labels=labels,
        classes=tuple(f"class {k}" for k in range(classes)),
        splits=[splits] * count if isinstance(splits, str) else splits,
        start=np.full(count, np.nan),
        end=np.full(count, np.nan),
        header=HEADER | header,
        broken={},
    )


def blobs(count: int, seed: int, *, spread: float = 1.0, dim: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Normal clouds around the centers of three classes, which overlap; dimensions of other scales."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    centers = np.random.default_rng(99).standard_normal((3, dim))
    vectors = centers[labels] + spread * rng.standard_normal((count, dim))
    return vectors * np.logspace(-2, 2, dim) + 5, labels


def of(vectors: np.ndarray, labels: np.ndarray) -> ProbeSet:
    target = functional.one_hot(torch.from_numpy(labels), 3).float()
    return ProbeSet(vectors.astype(np.float32), np.arange(len(vectors)), target)


def test_neighbors_vote_as_brute_force() -> None:
    (known, labels), (asked, _) = blobs(300, 0), blobs(40, 1)
    train = of(known, labels)
    for k, temperature in ((1, None), (20, 0.07), (20, None), (7, 0.5), (300, 0.07)):
        votes = knn_scores(train, asked.astype(np.float32), k, temperature).double().numpy()
        for row, vector in enumerate(asked):
            similar = [
                float(vector @ other / math.sqrt(float(vector @ vector) * float(other @ other)))
                for other in known
            ]
            nearest = sorted(range(300), key=lambda n: -similar[n])[:k]
            expected = np.zeros(3)
            for n in nearest:
                expected[labels[n]] += 1 if temperature is None else math.exp(similar[n] / temperature)
            np.testing.assert_allclose(votes[row] / votes[row].sum(), expected / expected.sum(), atol=1e-4)


@pytest.mark.slow
def test_the_linear_probe_reaches_the_optimum_of_the_convex_problem() -> None:
    train = of(*blobs(200, 0))
    vectors = torch.from_numpy(train.vectors).double()
    standard = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    weight = torch.zeros(9, 3, dtype=torch.float64, requires_grad=True)
    lbfgs = torch.optim.LBFGS([weight], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        lbfgs.zero_grad()
        found = functional.cross_entropy(standard @ weight[:8] + weight[8], train.target.double())
        found.backward()
        return found

    lbfgs.step(loss)
    best = float(loss().detach())
    task = ProbeTask(train, train, None, False, ("a", "b", "c"), HEADER)
    config = ProbeConfig(epochs=600)
    heads = train_heads(probing._linear_head, task, train, [0.1, 1e-6], config, 0, "cpu")
    with torch.no_grad():
        reached = [float(task.loss(head(torch.from_numpy(train.vectors)), train.target)) for head in heads]
    assert best > 0.05  # the classes overlap, so that there is an optimum
    assert best <= reached[0] + 1e-6
    assert reached[0] == pytest.approx(best, abs=1e-3)
    assert reached[1] > best + 0.1


def test_each_rate_learns_as_if_it_were_the_only_one() -> None:
    train = of(*blobs(60, 0))
    task = ProbeTask(train, train, None, False, ("a", "b", "c"), HEADER)
    config = ProbeConfig(epochs=5, batch_size=16)
    both = train_heads(probing._linear_head, task, train, [0.1, 0.001], config, 3, "cpu")
    (single,) = train_heads(probing._linear_head, task, train, [0.1], config, 3, "cpu")
    for name, value in single.state_dict().items():
        torch.testing.assert_close(both[0].state_dict()[name], value)


@pytest.mark.slow
def test_attention_finds_what_the_mean_does_not_show() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 2
    vectors = rng.standard_normal((240, 6, 8)) * 0.1
    vectors[:, 0] += 3 * np.eye(8)[labels]
    vectors[:, 1] -= 3 * np.eye(8)[labels]  # the mean is that of the noise
    splits = ["train"] * 160 + ["test"] * 80
    task = probe_task([features(vectors, labels, splits, classes=2, per="token")], ["f.npz"])
    config = ProbeConfig(epochs=30, batch_size=32, seeds=1, attentive=True, rates=(1e-3, 1e-2))
    scores = {result.name: result.mean for result in probe(task, config)}
    assert scores["attentive"] > 0.9
    assert scores["linear"] < 0.75


def test_the_rate_is_not_chosen_on_the_test() -> None:
    vectors, labels = blobs(150, 0)
    splits = ["train"] * 90 + ["val"] * 30 + ["test"] * 30
    shuffled = labels.copy()
    shuffled[120:] = (labels[120:] + 1) % 3
    config = ProbeConfig(epochs=10, batch_size=32, seeds=2)
    for kept in (slice(None), np.r_[:90, 120:150]):  # with the list val, and with held-out training videos
        found = [
            probe(
                probe_task([features(vectors[kept], each[kept], list(np.array(splits)[kept]))], ["f"]), config
            )
            for each in (labels, shuffled)
        ]
        assert found[0][2].rate == found[1][2].rate
        assert found[0][2].mean > 0.6 > found[1][2].mean
        assert len(found[0][2].scores) == 2
        assert found[0][0].spread is None


def test_few_shots_are_drawn_from_each_class_by_each_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    task = probe_task([features(*blobs(90, 0)), features(*blobs(30, 1))], ["a", "b"])
    drawn: list[ProbeSet] = []
    train = probing._trained

    def seen(name: str, make_head: probing.MakeHead, task: ProbeTask, *rest: Any) -> Any:
        drawn.extend(rest[0])
        return train(name, make_head, task, *rest)

    monkeypatch.setattr(probing, "_trained", seen)
    (weighted, *_, linear) = probe(task, ProbeConfig(epochs=3, shots=5, k=7))
    assert len(weighted.scores) == len(linear.scores) == len(drawn) == 3
    for each in drawn:
        assert each.target.sum(0).tolist() == [5, 5, 5]
    assert len({tuple(each.vectors[each.index].ravel().tolist()) for each in drawn}) == 3
    with pytest.raises(UserError, match=r"shots=50: class class \d"):
        probe(task, ProbeConfig(shots=50))


def test_multi_label_features_are_scored_by_average_precision() -> None:
    vectors, labels = blobs(200, 0, spread=0.3)
    rows = np.stack([labels == 0, labels != 1, labels == 2], axis=1)
    task = probe_task([features(vectors[:150], rows[:150]), features(vectors[150:], rows[150:])], ["a", "b"])
    results = probe(task, ProbeConfig(epochs=40, batch_size=32, seeds=1))
    assert {result.metric for result in results} == {"mAP"}
    assert results[-1].mean > 0.95


def test_videos_that_show_none_of_the_classes_count_in_a_multi_label_probe() -> None:
    vectors, labels = blobs(200, 0, spread=0.3)
    rows = np.stack([labels == 0, labels == 1], axis=1)  # a third of them shows neither
    task = probe_task([features(vectors, rows, ["train"] * 150 + ["test"] * 50, classes=2)], ["a"])
    assert (len(task.train), len(task.test)) == (150, 50)
    assert not task.test.target.any(1).all()
    assert probe(task, ProbeConfig(epochs=40, batch_size=32, seeds=1))[-1].mean > 0.9


def test_features_that_are_not_finite_are_refused() -> None:
    vectors, labels = blobs(60, 0)
    vectors[50] = np.nan
    task = probe_task([features(vectors, labels, ["train"] * 40 + ["test"] * 20)], ["a"])
    with pytest.raises(UserError, match="not finite"):
        probe(task, ProbeConfig(epochs=1))


def test_the_protocol_counts_the_classes_that_are_trained_on() -> None:
    vectors, labels = blobs(90, 0)
    task = probe_task([features(vectors, labels % 2, ["train"] * 60 + ["test"] * 30)], ["a"])
    assert "train: 60 videos of 2 classes" in task.protocol(None)
    assert "train: 5 of each of 2 classes, drawn by each seed from 60 videos" in task.protocol(5)


def test_training_on_tested_videos_is_refused(tubelet: Command, tmp_path: Path) -> None:
    vectors, labels = blobs(60, 0)
    features(vectors, labels).save(tmp_path / "all.npz")
    features(vectors[:20], labels[:20]).save(tmp_path / "test.npz")
    code, out, err = tubelet("probe", tmp_path / "all.npz", tmp_path / "test.npz")
    assert (code, out) == (2, "")
    assert "all.npz has 20 of the 20 videos of " in err
    assert "0.mp4" in err
    features(vectors[20:40], labels[20:40]).save(tmp_path / "test.npz")  # the same names in another folder
    assert tubelet("probe", tmp_path / "all.npz", tmp_path / "test.npz", "--epochs", 1)[0] == 0


def test_probe_prints_the_protocol_and_a_table(tubelet: Command, tmp_path: Path) -> None:
    vectors, labels = blobs(120, 0)
    labels[5] = -1  # one without a label
    splits = ["train"] * 60 + ["val"] * 30 + ["test"] * 30
    features(vectors, labels, splits).save(tmp_path / "all.npz")
    code, out, err = tubelet("probe", tmp_path / "all.npz", "--epochs", 5)
    assert (code, err) == (0, "")
    for part in ("x.pth", "block 12 of 12", "59 videos of 3 classes", "test: 30 videos", "30 videos of val"):
        assert part in out
    lines = out.splitlines()
    assert lines[-4].split() == ["probe", "top-1", "spread", "rate"]
    assert [line.split()[0] for line in lines[-3:]] == ["kNN,", "kNN,", "linear"]
    code, out, _ = tubelet("probe", tmp_path / "all.npz", "--epochs", 5, "--format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["metric"] for row in rows] == ["top-1"] * 3
    assert f"{100 * rows[2]['mean']:.2f}" in lines[-1]
    assert len(rows[2]["scores"]) == 3


def test_bad_input_is_one_message(tubelet: Command, tmp_path: Path) -> None:
    vectors, labels = blobs(30, 0)
    train, none = features(vectors, labels), np.full(30, -1)
    for name, made in (
        ("train", train),
        ("one", features(vectors + 1, np.ones(30, np.int64))),
        ("unlabeled", features(vectors, none)),
        ("empty", features(vectors[:0], none[:0])),
        ("other", features(vectors, labels, weights="fedcba")),
        ("layer", features(vectors, labels, layer=3)),
        ("classes", replace(train, classes=("x", "y", "z"))),
    ):
        made.save(tmp_path / f"{name}.npz")
    for names, named in (
        (("train", "gone"), "gone.npz"), (("train", "empty"), "empty.npz"), (("one", "train"), "one class"),
        (("train", "other"), "weights"), (("train", "layer"), "layer"), (("train", "classes"), "classes"),
        (("train",), "second file"), (("train", "unlabeled"), "unlabeled.npz has no labels"),
        (("train",) * 3, "3"),
    ):  # fmt: skip
        code, out, err = tubelet("probe", *(tmp_path / f"{name}.npz" for name in names))
        assert (code, out) == (2, ""), names
        assert err.count("\n") == 1
        assert named in err, names
    for option in (("--attentive",), ("--shots", "0"), ("--epochs", "0")):
        code, _, err = tubelet("probe", tmp_path / "train.npz", tmp_path / "train.npz", *option)
        assert code == 2, option
        assert err.count("\n") == 1
