"""The nearest videos to another one, by their features."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.results.test_features import made
from tubelet.results.features import read_features
from tubelet.run.searching import search

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def embedded(tubelet: Command, trained: Path, motion: Path, tmp_path: Path) -> Path:
    out = tmp_path / "features.npz"
    assert tubelet("embed", trained / "pretrain", motion, "-o", out, "views.clips=2")[0] == 0
    return out


def test_the_most_similar_rows_come_first() -> None:
    for features in (made(count=9), made(count=9, rows=3)):
        vectors = np.asarray(features.vectors, dtype=np.float64).reshape(9, -1, 4).mean(1)
        query = vectors[4]
        cosine = [float(v @ query) / np.sqrt(float(v @ v) * float(query @ query)) for v in vectors]
        expected = sorted(range(9), key=lambda k: -cosine[k])
        found = search(features, np.asarray(features.vectors[4]), top=20)
        assert [each.name for each in found] == [features.names[k] for k in expected]
        np.testing.assert_allclose(
            [each.similarity for each in found], [cosine[k] for k in expected], atol=1e-5
        )
        assert found[0].classes == (features.classes[int(features.labels[4])],)
        assert next(each for each in found if each.name == features.names[8]).classes == ()  # without a label
        others = search(features, features.vectors[4], top=3, skip=4)
        assert [each.name for each in others] == [features.names[k] for k in expected[1:4]]


def test_names_cannot_change_a_terminal(tubelet: Command, tmp_path: Path) -> None:
    features = made(count=3)
    replace(features, names=["a.mp4", "b\x1b[31m.mp4", "c\nd.mp4"]).save(tmp_path / "f.npz")
    code, out, _ = tubelet("search", tmp_path / "f.npz", "a.mp4")
    assert (code, len(out.splitlines())) == (0, 3)
    assert r"b\x1b[31m.mp4" in out
    assert r"c\nd.mp4" in out


def test_a_file_is_embedded_by_the_same_rule_and_a_row_is_found_by_its_name(
    tubelet: Command, motion: Path, embedded: Path
) -> None:
    name = "videos/test/00005.mp4"
    code, out, err = tubelet("search", embedded, motion / name, "--top", 3, "--format", "jsonl")
    assert (code, err) == (0, "")
    by_file = [json.loads(line) for line in out.splitlines()]
    assert by_file[0]["video"] == name
    assert by_file[0]["similarity"] == pytest.approx(1, abs=1e-5)
    _, out, _ = tubelet("search", embedded, name, "--top", 2, "--format", "jsonl")
    by_name = [json.loads(line) for line in out.splitlines()]
    assert [row["video"] for row in by_name] == [row["video"] for row in by_file[1:]]
    _, table, _ = tubelet("search", embedded, name, "--top", 2)
    lines = table.splitlines()
    assert lines[0].split() == ["similarity", "video", "class"]
    assert lines[1].split()[1] == by_name[0]["video"]
    features = read_features(embedded)
    label = int(features.labels[features.names.index(by_name[0]["video"])])
    assert lines[1].endswith(features.classes[label])


def test_another_model_a_moved_one_and_what_is_not_a_video_are_one_message(
    tubelet: Command, trained: Path, motion: Path, embedded: Path, tmp_path: Path
) -> None:
    video = motion / "videos/test/00005.mp4"
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video")
    for words, named in (
        ((video, "--model", trained / "finetune"), "other weights"),
        ((video, "--model", tmp_path / "gone"), "gone"),
        ((broken,), "broken.mp4"),
        (("videos/test/0005.mp4",), "did you mean"),
    ):
        code, out, err = tubelet("search", embedded, *words)
        assert (code, out) == (2, ""), words
        assert err.count("\n") == 1, err
        assert named in err
    moved = shutil.copytree(trained / "pretrain", tmp_path / "moved")
    assert tubelet("search", embedded, video, "--model", moved, "--top", 1)[0] == 0
