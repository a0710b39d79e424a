"""A folder holds one data set: what it was made from goes on, and nothing else is mixed in."""

import json
from pathlib import Path

import pytest

from tests.prepare.commands import Prepare, listed
from tests.prepare.files import small


@pytest.fixture
def made(prepare: Prepare, tmp_path: Path) -> Path:
    """A data set of class folders and of a list."""
    for k in range(6):
        small(tmp_path / "v" / "ab"[k % 2] / f"{k}.mp4", seed=k, count=2)
    (tmp_path / "train.txt").write_text("v/a/0.mp4 0\nv/b/1.mp4 1\n")
    (tmp_path / "val.txt").write_text("v/a/2.mp4 0\n")
    (tmp_path / "names.txt").write_text("x\ny\n")
    assert prepare("folder", "v", "--out", "folder")[0] == 0
    assert prepare("list", "train.txt", "val.txt", "--out", "list")[0] == 0
    return tmp_path


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("folder", ["folder", "v/a"]),
        ("folder", ["folder", "v", "--unlabelled"]),
        ("folder", ["folder", "v", "--split-seed", 1]),
        ("folder", ["list", "train.txt", "val.txt"]),
        ("list", ["list", "train.txt"]),
        ("list", ["list", "train.txt", "val.txt", "--root", "."]),
        ("list", ["list", "train.txt", "val.txt", "--classes", "names.txt"]),
        ("list", ["list", "train.txt", "val.txt", "--columns", "path,label"]),
        ("list", ["folder", "v"]),
    ],
)
def test_another_source_is_refused_and_both_are_named(
    prepare: Prepare, made: Path, out: str, words: list[str | int]
):
    before = {path: path.read_bytes() for path in (made / out).iterdir()}
    code, _, err = prepare(*words, "--out", out)
    assert code == 2
    was = f"{made}/v" if out == "folder" else f"list {made}/train.txt {made}/val.txt"
    assert was in err
    assert f"and this is `tubelet prepare {words[0]} {made}/{words[1]}" in err
    assert f"another folder with --out, or remove {made / out}" in err
    assert {path: path.read_bytes() for path in (made / out).iterdir()} == before


def test_the_same_source_may_grow_and_be_encoded(prepare: Prepare, made: Path):
    small(made / "v" / "b" / "new.mp4", seed=9, count=2)
    (made / "val.txt").write_text("v/a/2.mp4 0\nv/b/new.mp4 1\n")
    assert prepare("folder", "./v/", "--out", "folder", "--encode", "--short-side", 16)[0] == 0
    assert prepare("folder", made / "v", "--out", "folder", "--preview", "--split-seed", 0)[0] == 0
    code, _, err = prepare("list", "val.txt", "train.txt", "--out", "list", "--preview")
    assert (code, err) == (0, "")
    assert listed(made / "list", "val") == {"a/2.mp4": "class 0", "b/new.mp4": "class 1"}


def test_a_folder_of_an_older_version_goes_on_and_is_bound_then(prepare: Prepare, made: Path):
    record = made / "folder" / "prepare.jsonl"
    lines = [line for line in record.read_text().splitlines() if "origin" not in json.loads(line)]
    record.write_text("\n".join(lines) + "\n")
    assert prepare("folder", "v", "--split-seed", 3, "--out", "folder")[0] == 0
    assert prepare("folder", "v", "--out", "folder")[0] == 2


def test_a_folder_without_lists_takes_another_source(prepare: Prepare, tmp_path: Path):
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "text.mp4").write_text("no video")
    small(tmp_path / "v" / "1.mp4")
    assert prepare("folder", "wrong", "--out", "data")[0] == 2
    assert prepare("folder", "v", "--out", "data")[0] == 0


def test_a_data_set_that_holds_its_videos_may_be_moved(prepare: Prepare, tmp_path: Path):
    for k in range(2):
        small(tmp_path / "data" / "ab"[k] / f"{k}.mp4", seed=k, count=2)
    assert prepare("folder", "data", "--out", "data")[0] == 0
    (tmp_path / "data").rename(tmp_path / "moved")
    assert prepare("folder", "moved", "--out", "moved")[0] == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--workers", -1], "--workers"),
        (["--split-seed", -1], "--split-seed"),
        (["--short-side", 8], "short side"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(tubelet, tmp_path: Path, words: list[str | int], named: str):
    small(tmp_path / "v" / "1.mp4")
    code, _, err = tubelet("prepare", "folder", tmp_path / "v", "--out", tmp_path / "data", *words)
    assert code == 2
    assert named in err
    assert not (tmp_path / "data").exists()
