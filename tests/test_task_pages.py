"""The commands and the Python of the pages about tasks run, on small models and videos."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_the_page_about_prediction_runs(
    tubelet: Callable[..., tuple[int, str, str]],
    trained: Path,
    motion: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = (DOCS / "prediction.md").read_text(encoding="utf-8")
    (tmp_path / "runs/demo").mkdir(parents=True)
    (tmp_path / "runs/demo/finetune_mar").symlink_to(trained / "mar")
    (tmp_path / "runs/demo/data").symlink_to(motion)
    monkeypatch.chdir(tmp_path)
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
