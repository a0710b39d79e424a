"""The commands and the Python of docs/features.md run in the order in which they are listed."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_commands_and_python_run(
    tubelet: Callable[..., tuple[int, str, str]],
    trained: Path,
    motion: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    demo = Path("runs/demo")
    demo.mkdir(parents=True)
    (demo / "pretrain").symlink_to(trained / "pretrain")
    (demo / "data").symlink_to(motion)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
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
    assert (trained / "pretrain/report.html").is_file()
