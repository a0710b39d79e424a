"""A command that is stopped says so once, and ends with the code of the signal."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tubelet.cli import checkpoints


def test_a_command_whose_output_is_closed_says_so() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run((sys.executable, "-m", "tubelet", "zoo"), stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (run.returncode, run.stderr) == (141, b"tubelet: the output was closed\n")


def test_ctrl_c_is_one_message(
    tubelet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "aligned", interrupted)
    assert tubelet("zoo") == (130, "", "tubelet: stopped\n")
