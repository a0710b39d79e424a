"""A folder is written by one `tubelet prepare` at a time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.prepare.commands import Prepare, listed
from tests.prepare.files import small

pytest.importorskip("fcntl")
WORDS = ["folder", "v", "--out", "data", "--encode", "--short-side", "32"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `tubelet prepare` in the middle of its work."""
    small(tmp_path / "v" / "0.mp4", count=40)
    for k in range(1, 30):
        (tmp_path / "v" / f"{k}.mp4").write_bytes((tmp_path / "v" / "0.mp4").read_bytes())
    command = [sys.executable, "-m", "tubelet", "prepare", *WORDS, "--workers", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    try:
        record = tmp_path / "data" / "prepare.jsonl"
        for _ in range(1200):
            if record.is_file() and record.read_text().count('{"encode"') >= 3:
                break
            assert process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_second_run_is_refused_and_the_first_goes_on(
    prepare: Prepare, tmp_path: Path, running: subprocess.Popen[bytes]
):
    os.kill(running.pid, signal.SIGSTOP)
    before = (tmp_path / "data" / "prepare.jsonl").read_bytes()
    code, _, err = prepare(*WORDS)
    assert code == 2
    assert "data is being written by another `tubelet prepare`; wait for it to end, or choose another" in err
    assert (tmp_path / "data" / "prepare.jsonl").read_bytes() == before
    os.kill(running.pid, signal.SIGCONT)
    assert running.wait(120) == 0
    assert len(listed(tmp_path / "data")) == 30


def test_a_run_that_was_killed_keeps_nobody_out(
    prepare: Prepare, tmp_path: Path, running: subprocess.Popen[bytes]
):
    os.kill(running.pid, signal.SIGKILL)  # and not its worker process
    running.wait()
    code, out, _ = prepare(*WORDS)
    assert (code, "cannot be encoded" in out) == (0, False)
    assert len(listed(tmp_path / "data")) == 30
