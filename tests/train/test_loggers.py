import io
import json
import re
import sys
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console as Terminal

from tubelet.errors import UserError
from tubelet.train.loggers import Console, JsonLines, Logs, TensorBoard, WeightsAndBiases


def test_json_lines_after_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "run" / "log.jsonl"
    log = JsonLines(path)
    log.resume(0)
    for step in (1, 2, 3):
        log.log(step, {"loss": step / 2})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')  # cut short by a kill
    log = JsonLines(path)
    log.resume(2)
    log.log(3, {"loss": 9.0})
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    times = [datetime.fromisoformat(line.pop("time")) for line in lines]
    assert times == sorted(times)
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 9.0}]


def test_json_lines_after_damage(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 0.5}\n\xff\xfe\x00\n')
    JsonLines(path).resume(1)
    assert path.read_text() == '{"step": 1, "loss": 0.5}\n'


def test_json_lines_in_a_folder_that_was_removed(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "run" / "log.jsonl")
    (tmp_path / "run").rmdir()
    with pytest.raises(UserError, match=r"log\.jsonl cannot be written: No such file or directory"):
        log.log(1, {"loss": 0.5})


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(2, Terminal(file=out, force_terminal=terminal, width=150)), out


def training_line(epoch: float) -> dict[str, float]:
    return {"epoch": epoch, "loss": 0.25, "clips_per_s": 80.0, "data_wait": 0.125, "lr": 1e-3}


def test_plain_lines_without_a_terminal() -> None:
    log, out = console(terminal=False)
    for step in range(1, 101):
        log.log(step, training_line(step / 100))
    log.log(100, {"epoch": 1.0, "val/top1": 0.5})
    log.close()
    lines = out.getvalue().splitlines()
    assert (
        lines[0] == "epoch 0.01/2  loss 0.2500  80.0 clips/s  data wait 12%  lr 1.00e-03  time left unknown"
    )
    assert 9 <= len(lines) <= 12
    assert lines[-1] == "epoch 1  val/top1 0.5"


def test_a_finished_run_has_no_time_left() -> None:
    log, out = console(terminal=False)
    log.log(1, training_line(2.0))
    assert out.getvalue().endswith("  done\n")


def test_one_line_on_a_terminal() -> None:
    log, out = console(terminal=True)
    for step in range(1, 11):
        log.log(step, training_line(step / 10))
    log.log(10, {"epoch": 1.0, "val/top1": 0.5})
    log.close()
    assert "less than a minute left" in out.getvalue()
    assert "val/top1 0.5" in out.getvalue()


def test_the_line_on_a_terminal_fits_and_moves_with_every_step() -> None:
    out = io.StringIO()
    log = Console(1600, Terminal(file=out, force_terminal=True, width=80))
    log.log(10, training_line(1234.5) | {"clips_per_s": 12345.0})
    for step in range(3):
        log.advance(1234.75 + step)
        log._bar._progress.refresh()
    log.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n").splitlines()
    assert max(map(len, shown)) <= 80
    for step in range(3):
        assert any(f"epoch {1234.75 + step:.2f}/1600" in line and "loss 0.2500" in line for line in shown)
    assert all(line.startswith("━") and "left" in line for line in shown if "epoch" in line)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # those of its own dependencies
def test_tensorboard_writes_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = TensorBoard(tmp_path)
    log.resume(0)
    log.log(1, {"loss": 0.5})
    log.close()
    assert any(path.stat().st_size > 0 for path in tmp_path.glob("events.*"))


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'tubelet\[track\]'"):
        TensorBoard(tmp_path)


@pytest.mark.slow
def test_wandb_continues_the_curves_of_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("WANDB_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    for step in (1, 2):
        log = WeightsAndBiases(tmp_path / "run", "project", {"seed": 3})
        log.resume(step - 1)
        log.log(step, {"loss": 0.5})
        log.close()
    identity = (tmp_path / "run" / "wandb" / "id.txt").read_text()
    written = [path.name for path in (tmp_path / "run" / "wandb").rglob("*.wandb")]
    assert written == [f"run-{identity}.wandb"] * 2


def test_wandb_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"log\.wandb.*pip install 'tubelet\[track\]'"):
        WeightsAndBiases(tmp_path, "project", {})


def test_logs_bundles_and_closes() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def resume(self, step: int) -> None:
            self.calls.append(step)

        def log(self, step: int, values: dict[str, float]) -> None:
            self.calls.append((step, values))

        def advance(self, epoch: float) -> None:
            self.calls.append(epoch)

        def close(self) -> None:
            self.calls.append("closed")

    first, second = Recorder(), Recorder()
    with Logs(first, second) as logs:
        logs.resume(4)
        logs.log(5, {"loss": 1.0})
        logs.advance(0.5)
    assert first.calls == second.calls == [4, (5, {"loss": 1.0}), 0.5, "closed"]
