"""The README's commands run in the order in which they are listed, each on what those before it made."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tubelet.demo.story import run_demo

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SKIPPED = {  # beginning of a command -> why it is not run
    "make": "installs into the checkout",
    "pip": "installs",
    "tubelet prepare kinetics400 /raw": "needs the raw data set",
    "tubelet prepare synthetic": "the demo writes the same data set; 3,720 videos take minutes",
    "tubelet convert checkpoint.pth": "needs a checkpoint of another project",
}
SHORT = ("optim.epochs=1", "optim.warmup_epochs=0")  # the only change: trainings last one epoch


def blocks(language: str) -> list[str]:
    """The code blocks of a language; those of the shell have none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def commands() -> Iterator[str]:
    yield from (line for block in blocks("") for line in block.splitlines() if line)


def test_every_command_runs_or_says_why_not() -> None:
    assert all(command.split()[0] in ("make", "pip", "tubelet") for command in commands())
    unused = [start for start in SKIPPED if not any(command.startswith(start) for command in commands())]
    assert not unused, "no longer in the README"


@pytest.mark.slow
def test_commands_and_python_run_on_what_the_demo_made(
    tubelet: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_demo(Path("runs/demo"), quick=True)
    (snippet,) = blocks("python")
    exec(compile(snippet, "README.md", "exec"), {})
    assert Path("reconstruction.gif").stat().st_size
    for command in commands():
        if command.startswith(tuple(SKIPPED)):
            continue
        words = shlex.split(command, comments=True)[1:]
        code, _, err = tubelet(*words, *(SHORT if words[0] in ("pretrain", "finetune") else ()))
        assert code == 0, f"{command}\n{err}"
    assert Path("runs/own-huggingface/config.json").exists()
