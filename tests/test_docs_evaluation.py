"""The commands of docs/evaluation.md run in the order in which they are listed."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
SKIPPED = ("tubelet evaluate runs/mar data.root=data/k400",)  # needs Kinetics
COMMANDS = re.findall(r"^ {4}(tubelet .*)$", PAGE, re.MULTILINE)


@pytest.mark.slow
def test_commands_run_on_runs_of_the_demos_names(
    tubelet: Callable[..., tuple[int, str, str]],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "mar", "runs/demo/finetune_mar")
    shutil.copytree(trained / "finetune", "runs/demo/finetune_full")
    skipped = [command for command in COMMANDS if command.startswith(SKIPPED)]
    assert len(COMMANDS) > len(skipped) > 0
    for command in COMMANDS:
        if command not in skipped:
            code, out, err = tubelet(*shlex.split(command)[1:])
            assert (code, out[:6]) == (0, "top-1 "), f"{command}\n{err}"
    names = "runs results.npz results.csv results.pkl full.npz fused.npz page.html fused.html"
    assert {path.name for path in tmp_path.iterdir()} == {*names.split()}
