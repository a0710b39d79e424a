"""A folder belongs to one command, which resumes and runs once at a time."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.prepare.commands import Prepare, listed
from tests.prepare.files import small
from tests.prepare.waiting import until


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


def test_another_source_is_refused_and_both_are_named(prepare: Prepare, made: Path):
    lists: list[str | int] = ["list", "train.txt", "val.txt"]
    cases: list[tuple[str, list[str | int]]] = [
        ("folder", ["folder", "v/a"]),
        ("folder", ["folder", "v", "--unlabeled"]),
        ("folder", ["folder", "v", "--split-seed", 1]),
        ("folder", lists),
        ("list", ["list", "train.txt"]),
        ("list", [*lists, "--root", "."]),
        ("list", [*lists, "--classes", "names.txt"]),
        ("list", [*lists, "--columns", "path,label"]),
        ("list", [*lists, "--format", "videomae"]),
        ("list", ["folder", "v"]),
    ]
    for out, words in cases:
        before = {path: path.read_bytes() for path in (made / out).iterdir()}
        code, _, err = prepare(*words, "--out", out)
        assert code == 2, words
        for command in (
            f"{made}/v" if out == "folder" else f"list {made}/train.txt {made}/val.txt",
            f"`tubelet prepare {words[0]} {made}/{words[1]}",
            "--out",
            f"remove {made / out}",
        ):
            assert command in err, words
        assert {path: path.read_bytes() for path in (made / out).iterdir()} == before, words


def test_the_same_source_may_grow_and_be_encoded(prepare: Prepare, made: Path):
    small(made / "v" / "b" / "new.mp4", seed=9, count=2)
    (made / "val.txt").write_text("v/a/2.mp4 0\nv/b/new.mp4 1\n")
    assert prepare("folder", "./v/", "--out", "folder", "--encode", "--short-side", 16)[0] == 0
    assert prepare("folder", made / "v", "--out", "folder", "--preview", "--split-seed", 0)[0] == 0
    code, _, err = prepare("list", "val.txt", "train.txt", "--out", "list", "--preview")
    assert (code, err) == (0, "")
    assert listed(made / "list", "val") == {"a/2.mp4": "class 0", "b/new.mp4": "class 1"}


def test_a_folder_without_lists_takes_another_source(prepare: Prepare, tmp_path: Path):
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "text.mp4").write_text("no video")
    small(tmp_path / "v" / "1.mp4")
    assert prepare("folder", "wrong", "--out", "data")[0] == 2
    assert prepare("folder", "v", "--out", "data")[0] == 0


def test_a_data_set_that_contains_its_videos_can_be_moved(prepare: Prepare, tmp_path: Path):
    for k in range(2):
        small(tmp_path / "data" / "ab"[k] / f"{k}.mp4", seed=k, count=2)
    assert prepare("folder", "data", "--out", "data")[0] == 0
    (tmp_path / "data").rename(tmp_path / "moved")
    assert prepare("folder", "moved", "--out", "moved")[0] == 0


def test_invalid_numbers_are_refused(tubelet, tmp_path: Path):
    small(tmp_path / "v" / "1.mp4")
    for option, number in (("--workers", -1), ("--split-seed", -1), ("--short-side", 8)):
        code, _, err = tubelet(
            "prepare", "folder", tmp_path / "v", "--out", tmp_path / "data", option, number
        )
        assert (code, option in err) == (2, True), option
        assert not (tmp_path / "data").exists()


RUNNING = ["folder", "v", "--out", "data", "--encode", "--short-side", "32"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `tubelet prepare` that has encoded some of its videos."""
    small(tmp_path / "v" / "0.mp4", count=40)
    for k in range(1, 30):
        (tmp_path / "v" / f"{k}.mp4").write_bytes((tmp_path / "v" / "0.mp4").read_bytes())
    command = [sys.executable, "-m", "tubelet", "prepare", *RUNNING, "--workers", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    try:
        journal = tmp_path / "data" / "prepare.jsonl"
        until(lambda: journal.is_file() and journal.read_text().count('{"encode"') >= 3)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_second_run_is_refused_and_the_first_continues(
    prepare: Prepare, tmp_path: Path, running: subprocess.Popen[bytes]
):
    os.kill(running.pid, signal.SIGSTOP)
    before = (tmp_path / "data" / "prepare.jsonl").read_bytes()
    code, _, err = prepare(*RUNNING)
    assert code == 2
    assert "data is in use" in err
    assert (tmp_path / "data" / "prepare.jsonl").read_bytes() == before
    os.kill(running.pid, signal.SIGCONT)
    assert running.wait() == 0
    assert len(listed(tmp_path / "data")) == 30


@pytest.mark.slow
def test_a_killed_run_does_not_keep_the_lock(
    prepare: Prepare, tmp_path: Path, running: subprocess.Popen[bytes]
):
    os.kill(running.pid, signal.SIGKILL)  # and not its worker process
    running.wait()
    code, out, _ = prepare(*RUNNING)
    assert (code, "cannot be encoded" in out) == (0, False)
    assert len(listed(tmp_path / "data")) == 30
