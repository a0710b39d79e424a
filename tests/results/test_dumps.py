"""Files of a test's probabilities, read by others: csv, pickle, and MMAction2's own functions."""

import csv
import importlib.util
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tubelet.errors import UserError
from tubelet.results import blocks
from tubelet.results.accuracy import Evaluation

CLASSES = ("run, fast", 'say "hi"', "sitzen; müde", "fall")


def evaluation_of(labels: np.ndarray) -> Evaluation:
    """A test with random probabilities of videos of four classes."""
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), len(labels)).astype(np.float32)
    names = [f"völlig/{k}.mp4#t=1,2.5" for k in range(len(labels))]
    return Evaluation(names, labels, probabilities, {"x.mp4": "x.mp4: no such file"}, classes=CLASSES)


@pytest.fixture
def single() -> Evaluation:
    return evaluation_of(np.random.default_rng(1).integers(4, size=40))


@pytest.fixture
def multi_label() -> Evaluation:
    return evaluation_of(np.random.default_rng(1).random((40, 4)) < 0.4)


def test_all_of_a_test_comes_back_from_an_npz(
    single: Evaluation, multi_label: Evaluation, tmp_path: Path
) -> None:
    for made in (
        replace(
            single, seconds=np.array([1.5, np.nan] * 20, np.float32), views_per_second=3.5, data_wait=0.25
        ),
        replace(multi_label, list_file="/data/test.csv", facts={"views": "clips 5, crops 3"}, classes=()),
    ):
        made.save(tmp_path / "x.npz")
        again = Evaluation.load(tmp_path / "x.npz")
        assert (again.names, again.classes, again.broken) == (made.names, made.classes, made.broken)
        assert (again.list_file, again.facts) == (made.list_file, made.facts)
        np.testing.assert_equal(
            (again.views_per_second, again.data_wait), (made.views_per_second, made.data_wait)
        )
        np.testing.assert_array_equal(again.probabilities, made.probabilities)
        np.testing.assert_array_equal(again.labels, made.labels)
        np.testing.assert_equal(again.seconds, made.seconds)
        with np.load(tmp_path / "x.npz") as arrays:
            np.testing.assert_array_equal(arrays["probabilities"], made.probabilities)


def test_a_csv_has_a_line_for_each_video_and_a_column_for_each_class(
    single: Evaluation, multi_label: Evaluation, tmp_path: Path
) -> None:
    for made in (single, multi_label):
        made.save(tmp_path / "x.csv")
        with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["video", "class", "predicted", *CLASSES]
        assert [row[0] for row in rows] == made.names
        assert [row[2] for row in rows] == [CLASSES[k] for k in made.probabilities.argmax(1)]
        np.testing.assert_array_equal(
            np.array([row[3:] for row in rows]).astype(np.float32), made.probabilities
        )
    assert [row[1] for row in rows] == [
        ";".join(np.array(CLASSES)[shown]) for shown in multi_label.labels
    ]  # fmt: skip


def load_pickle(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        return pickle.load(file)


def require_file(distribution: str, path: str) -> Path:
    """A file of an installed project that is not imported as a whole; the test is skipped without it."""
    try:
        found = Path(str(metadata.distribution(distribution).locate_file(path)))
    except metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed")
    return found


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("loaded_by_file", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores_and_labels(items: Sequence[dict[str, Any]]) -> tuple[list[np.ndarray], list[Any]]:
    """What MMAction2's AccMetric takes from the items of a dump."""
    labels = [item["gt_label"] for item in items]
    return (
        [item["pred_score"].cpu().numpy() for item in items],
        [label.item() if label.size(0) == 1 else label.cpu().numpy() for label in labels],
    )


def test_a_pickle_has_the_items_of_mmaction2(
    single: Evaluation, multi_label: Evaluation, tmp_path: Path
) -> None:
    for made in (single, multi_label):
        made.save(tmp_path / "x.pkl")
        items = load_pickle(tmp_path / "x.pkl")
        assert type(items) is list
        assert [item["video_id"] for item in items] == made.names
        for item, label, probabilities in zip(items, made.labels, made.probabilities, strict=True):
            assert type(item) is dict
            assert item["num_classes"] == 4
            assert item["pred_score"].dtype == torch.float32
            np.testing.assert_array_equal(item["pred_score"], probabilities)
            assert item["pred_label"].tolist() == [probabilities.argmax()]
            expected = label.astype(float).tolist() if made.multi_label else [label]
            assert item["gt_label"].tolist() == expected
            shown = np.flatnonzero(label) if made.multi_label else [label]
            assert item["class_names"] == [CLASSES[k] for k in shown]
        scores, labels = scores_and_labels(items)
        if not made.multi_label:  # an independent count
            hits = [(-score).argsort()[:2].tolist() for score in scores]
            assert made.top1 == np.mean([hit[0] == label for hit, label in zip(hits, labels, strict=True)])
            assert made.top(2) == np.mean([label in hit for hit, label in zip(hits, labels, strict=True)])


def test_mmaction2_reads_a_pickle_and_finds_the_same_numbers(
    single: Evaluation, multi_label: Evaluation, tmp_path: Path
) -> None:
    mmengine = pytest.importorskip("mmengine", reason="mmengine is not installed")
    theirs = module_of(require_file("mmaction2", "mmaction/evaluation/functional/accuracy.py"))
    for made in (single, multi_label):
        made.save(tmp_path / "x.pkl")
        scores, labels = scores_and_labels(mmengine.load(str(tmp_path / "x.pkl")))
        if made.multi_label:
            found = theirs.mean_average_precision(scores, labels)
            assert made.mean_average_precision() == pytest.approx(found)
        else:
            assert theirs.top_k_accuracy(scores, labels, (1, 2, 3)) == [made.top(k) for k in (1, 2, 3)]
            assert made.mean_class_accuracy == pytest.approx(theirs.mean_class_accuracy(scores, labels))
            predicted = np.argmax(scores, axis=1)
            np.testing.assert_array_equal(theirs.confusion_matrix(predicted, labels), made.confusion())


@pytest.mark.slow
def test_writing_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix is 1.6 MB; the names and labels are in memory before."""
    monkeypatch.setattr(blocks, "_ROW_BYTES", 2**15)
    count, rng = 1000, np.random.default_rng(0)
    probabilities = np.lib.format.open_memmap(tmp_path / "p.npy", "w+", np.float32, (count, 400))
    probabilities[:] = rng.random((count, 400), np.float32)
    names, labels = [f"{k}.mp4" for k in range(count)], rng.integers(400, size=count)
    made = Evaluation(names, labels, np.load(tmp_path / "p.npy", mmap_mode="r"), {})
    for suffix in (".npz", ".csv", ".pkl"):
        replace(made, names=["x"], labels=labels[:1], probabilities=probabilities[:1]).save(
            tmp_path / f"x{suffix}"
        )
        tracemalloc.start()
        made.save(tmp_path / f"x{suffix}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5e5, suffix
    assert len(load_pickle(tmp_path / "x.pkl")) == count


def test_other_suffixes_are_refused_before_anything_is_written(
    tubelet: Callable[..., tuple[int, str, str]], single: Evaluation, trained: Path, tmp_path: Path
) -> None:
    for name in ("x.json", "x", "x.npz.gz"):
        with pytest.raises(UserError, match=rf"{name}: .*\.npz, \.csv, \.pkl"):
            single.save(tmp_path / name)
    code, out, err = tubelet("evaluate", trained / "finetune", "--dump", tmp_path / "x.parquet")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "x.parquet" in err
    assert list(tmp_path.iterdir()) == []


def test_other_files_than_dumps_are_named(single: Evaluation, tmp_path: Path) -> None:
    single.save(tmp_path / "whole.npz")
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    flipped = bytearray(content)
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive:
        flipped[archive.getinfo("probabilities.npy").header_offset + 200] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped)
    (tmp_path / "folder.npz").mkdir()
    np.savez(tmp_path / "other.npz", features=np.ones(3))
    np.savez(tmp_path / "objects.npz", names=np.array([{}], dtype=object))
    replace(single, names=[], labels=single.labels[:0], probabilities=single.probabilities[:0]).save(
        tmp_path / "none.npz"
    )
    replace(single, names=single.names[:5]).save(tmp_path / "few names.npz")
    replace(single, labels=single.labels + 50).save(tmp_path / "label.npz")
    replace(single, probabilities=single.probabilities * np.float32("nan")).save(tmp_path / "nan.npz")
    doubles = single.probabilities.astype(np.float64)
    replace(single, probabilities=doubles).save(tmp_path / "doubles.npz")
    (tmp_path / "x.csv").write_text("video,class\n")
    for name, reason in (
        ("empty.npz", "it is empty"), ("cut.npz", "damaged"), ("flipped.npz", "damaged"),
        ("folder.npz", "directory"), ("other.npz", "something else"), ("objects.npz", "something else"),
        ("none.npz", "no videos"), ("few names.npz", "do not fit"), ("doubles.npz", "do not fit"),
        ("label.npz", "label outside"), ("nan.npz", "finite"), ("x.csv", r"\.npz"),
        ("missing.npz", "No such file"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=reason) as error:
            Evaluation.load(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name)), name
