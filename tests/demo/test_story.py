"""The quick demo."""

import json
import re
from pathlib import Path

import pytest

from tubelet.demo.story import run_demo
from tubelet.errors import UserError


@pytest.mark.slow
def test_the_demo_runs_resumes_and_stops_when_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    report = run_demo(out, quick=True)
    page = report.read_text()
    first = capsys.readouterr().out
    assert str(report.resolve()) in first
    for run in ("pretrain", "finetune_mar", "finetune_full", "finetune_scratch"):
        assert (out / run / "model.safetensors").exists()
    for ratio in ("0%", "25%", "50%", "75%"):
        assert f"MAR, {ratio} masked at test" in page
    assert len(re.findall("data:image/webp", page)) == 20  # 12 reconstructions, 8 clips

    run_demo(out, quick=True)
    assert "already finished" in capsys.readouterr().out

    report.unlink()  # as if interrupted before the last step: nothing is trained or tested again
    weights = (out / "pretrain" / "last.pt").stat().st_mtime
    tested = (out / "tests" / "finetune_full.npz").stat().st_mtime
    run_demo(out, quick=True)
    assert (out / "pretrain" / "last.pt").stat().st_mtime == weights
    assert (out / "tests" / "finetune_full.npz").stat().st_mtime == tested
    assert report.exists()

    with pytest.raises(UserError, match=r"(?s)other settings.*data\.train: 96 -> "):
        run_demo(out)
    assert json.loads((out / "demo.json").read_text())["data"]["train"] == 96
