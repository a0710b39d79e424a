"""The commands and the Python of the pages about tasks run, on small models and videos."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NEEDS_KINETICS = "tubelet evaluate runs/mar data.root=data/k400"  # a command of evaluation.md


@pytest.fixture(autouse=True)
def demo(trained: Path, motion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small runs where the pages have those of the demo, below the current folder."""
    folder = tmp_path / "runs/demo"
    for run, name in (("pretrain", "pretrain"), ("finetune", "finetune_full"), ("mar", "finetune_mar")):
        shutil.copytree(trained / run, folder / name)
    (folder / "data").symlink_to(motion)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.slow
def test_the_page_about_prediction_runs(tubelet: Callable[..., tuple[int, str, str]]) -> None:
    page = (DOCS / "prediction.md").read_text(encoding="utf-8")
    commands = [line[4:] for line in page.splitlines() if re.match(r" {4}(.*\| )?(tubelet|find) ", line)]
    assert len(commands) == page.count("tubelet predict ") - page.count("`tubelet predict")
    for command in commands:
        if command.startswith("find"):
            script = command.replace("tubelet predict", f"{sys.executable} -m tubelet predict")
            run = subprocess.run(("bash", "-c", script), capture_output=True, text=True)
            code, out, err = run.returncode, run.stdout, run.stderr
        else:
            code, out, err = tubelet(*shlex.split(command.partition(" > ")[0])[1:])
        assert (code, bool(out)) == (0, True), f"{command}\n{err}"
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(compile(snippet, "prediction.md", "exec"), {})


@pytest.mark.slow
def test_the_page_about_features_runs(tubelet: Callable[..., tuple[int, str, str]], demo: Path) -> None:
    page = (DOCS / "features.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = [line for language, text in blocks if not language for line in text.splitlines()]
    assert len(commands) >= 9
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "tubelet"
        code, _, err = tubelet(*words[1:], *(("--shots", "1") if "--shots" in words else ()))
        assert code == 0, f"{command}\n{err}"
    (snippet,) = (text for language, text in blocks if language == "python")
    scope: dict[str, Any] = {}
    exec(compile(snippet, "features.md", "exec"), scope)
    assert scope["vector"].shape == (32,)
    assert scope["frames"].shape == (2, 32)
    assert (demo / "pretrain/report.html").is_file()


@pytest.mark.slow
def test_the_page_about_evaluation_runs(tubelet: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    commands = re.findall(
        r"^ {4}(tubelet .*)$", (DOCS / "evaluation.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    skipped = [command for command in commands if command.startswith(NEEDS_KINETICS)]
    assert len(commands) > len(skipped) > 0
    for command in commands:
        if command not in skipped:
            code, out, err = tubelet(*shlex.split(command)[1:])
            assert (code, out[:6]) == (0, "top-1 "), f"{command}\n{err}"
    names = "runs results.npz results.csv results.pkl full.npz fused.npz page.html fused.html"
    assert {path.name for path in tmp_path.iterdir()} == {*names.split()}
