"""Files of features: they come back as they were, and damage is one message."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from tubelet.errors import UserError
from tubelet.results.features import Features, read_features

HEADER = {
    "model": "x.pth", "weights": "0123", "per": "video", "layer": 12, "depth": 12, "pool": "mean",
    "norm": True,
}  # fmt: skip


def made(count: int = 5, rows: int | None = None, *, multi_label: bool = False) -> Features:
    """Random features of three classes; the last video has no label."""
    rng = np.random.default_rng(0)
    shape = (count, 4) if rows is None else (count, rows, 4)
    labels = np.arange(count) % 3
    labels[-1:] = -1
    return Features(
        vectors=rng.standard_normal(shape, dtype=np.float32),
        names=[f"ä {k}, b.mp4" for k in range(count)],
        labels=rng.random((count, 3)) > 0.5 if multi_label else labels,
        classes=("a", "b", "c"),
        splits=["train", *[""] * (count - 1)][:count],
        start=np.where(np.arange(count) > 2, np.arange(count) / 2, np.nan),
        end=np.full(count, np.nan),
        header=HEADER,
        broken={"x.mp4": "why"},
    )


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_features_come_back(suffix: str, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    for features in (made(), made(rows=3), made(multi_label=True), made(count=1)):
        path = tmp_path / f"features{suffix}"
        features.save(path)
        again = read_features(path)
        for field in fields(Features):
            ours, theirs = getattr(features, field.name), getattr(again, field.name)
            if isinstance(ours, np.ndarray):
                np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
                assert ours.dtype == theirs.dtype, field.name
            else:
                assert ours == theirs, field.name


def test_a_name_that_is_not_text_is_an_escape_in_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    replace(made(count=1), names=["\udcff.mp4"]).save(tmp_path / "f.parquet")
    assert read_features(tmp_path / "f.parquet").names == [r"\udcff.mp4"]


def test_features_that_were_saved_again_compressed_are_read(tmp_path: Path) -> None:
    features = made()
    features.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as saved:
        np.savez_compressed(tmp_path / "b.npz", **dict(saved))
    np.testing.assert_array_equal(read_features(tmp_path / "b.npz").vectors, features.vectors)


def test_a_file_that_is_missing_empty_or_not_of_features_is_one_message(tmp_path: Path) -> None:
    made().save(tmp_path / "whole.npz")
    (tmp_path / "text.npz").write_text("no features")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:700])
    (tmp_path / "nothing.npz").touch()
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with np.load(tmp_path / "whole.npz", allow_pickle=False) as saved:
        for name, damage in (
            ("uneven", {"labels": np.zeros(3, np.int64)}),
            ("label", {"labels": np.full(5, 3)}),
            ("wide", {"labels": np.zeros((5, 2), bool)}),
            ("header", {"header": np.array("{}")}),
            ("list", {"header": np.array("[]")}),
        ):
            np.savez(tmp_path / f"{name}.npz", **(dict(saved) | damage))
    made(count=0).save(tmp_path / "empty.npz")
    for name in (
        "gone",
        "text",
        "cut",
        "nothing",
        "other",
        "empty",
        "uneven",
        "label",
        "wide",
        "header",
        "list",
    ):
        with pytest.raises(UserError, match=rf"{name}\.npz"):
            read_features(tmp_path / f"{name}.npz")


def test_parquet_without_pyarrow_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pyarrow.*tubelet\[table\].*\.npz"):
        made().save(tmp_path / "f.parquet")
    with pytest.raises(UserError, match=r"f\.csv"):
        replace(made()).save(tmp_path / "f.csv")
    assert list(tmp_path.iterdir()) == []
