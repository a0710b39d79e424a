import json
import math
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.train import toy
from tests.train.toy import SIGKILL, SIGTERM, ToyLoader, ToyTask, launch, log_lines, train, validate
from tubelet.errors import UserError
from tubelet.train.checkpoint import CheckpointStore
from tubelet.train.loggers import MEASURED
from tubelet.train.loop import CatchSignals, TrainingInterrupted, mixed_seed, seed_step
from tubelet.train.loss_scale import LossScale

RANDOM: dict[str, Any] = {
    "dropout": 0.3,
    "accumulate": 2,
    "micro": 3,
}  # 26 videos: 8 micro-batches, 4 steps an epoch


def saved(folder: Path) -> dict[str, Any]:
    state = CheckpointStore(folder).load_last()
    assert state is not None
    return state


def assert_identical(first: Path, second: Path) -> None:
    """Bit for bit the same lines, weights, averages, moments and progress."""
    assert log_lines(first) == log_lines(second)
    one, two = saved(first), saved(second)
    for state in (one, two):
        for name in set(MEASURED) - {"time"}:  # only lines have a time
            del state["progress"]["metrics"][name]
    assert one["progress"] == two["progress"]
    for part in ("model", "ema"):
        assert all(torch.equal(value, two[part][name]) for name, value in one[part].items())
    for name, moments in one["optimizer"]["state"].items():
        assert all(torch.equal(value, two["optimizer"]["state"][name][key]) for key, value in moments.items())


def test_it_learns_and_logs(tmp_path: Path) -> None:
    metrics = train(tmp_path, micro=4, epochs=10)
    lines = log_lines(tmp_path)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 61))
    assert steps[0].keys() == {"step", "epoch", "loss", "error", "lr", "grad_norm"}
    assert [line["epoch"] for line in lines if "val/top1" in line] == list(range(1, 11))
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert metrics["loss"] == steps[-1]["loss"]
    assert metrics["best/top1"] == max(line["val/top1"] for line in lines if "val/top1" in line)
    # Warm-up over half an epoch: 3 of 6 steps, from 0 to 0.32 * 8 / 256
    assert [line["lr"] for line in steps[:4]] == pytest.approx([0, 0.01 / 3, 0.02 / 3, 0.01])
    assert json.loads((tmp_path / "best" / "metrics.json").read_text()) == {"top1": metrics["best/top1"]}


@pytest.mark.slow
def test_killed_in_mid_epoch_and_resumed(tmp_path: Path) -> None:
    train(tmp_path / "whole", every_seconds=0.0, **RANDOM)
    killed = launch(
        [{"folder": str(tmp_path / "killed"), "every_seconds": 0.0, "kill": [1, 5, SIGKILL, 0], **RANDOM}]
    )
    assert killed.returncode == -SIGKILL
    assert saved(tmp_path / "killed")["progress"]["step"] == 6  # 4 and 2: the fifth micro-batch was under way
    train(tmp_path / "killed", every_seconds=0.0, **RANDOM)
    assert_identical(tmp_path / "killed", tmp_path / "whole")


def test_killed_before_a_save_repeats_the_steps(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(number: int, frame: object) -> None:
        raise Killed

    train(tmp_path / "whole", **RANDOM)
    former = signal.signal(signal.SIGUSR1, die)
    try:
        with pytest.raises(Killed):
            train(tmp_path / "killed", kill=(2, 6, int(signal.SIGUSR1), 0), **RANDOM)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert saved(tmp_path / "killed")["progress"]["step"] == 8
    train(tmp_path / "killed", **RANDOM)
    assert_identical(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("position", [4, 6])  # in mid-epoch, and in the last step before validation
def test_sigterm_saves_and_resumes(tmp_path: Path, position: int, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "whole", **RANDOM)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted) as stop:
        train(tmp_path / "stopped", kill=(1, position, SIGTERM, 0), **RANDOM)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert stop.value.code == 143
    step = 4 + position // 2 + 1  # the step in progress is finished
    assert stop.value.step == saved(tmp_path / "stopped")["progress"]["step"] == step
    assert f"stopped by SIGTERM after step {step}; saved" in capsys.readouterr().err
    train(tmp_path / "stopped", **RANDOM)
    assert_identical(tmp_path / "stopped", tmp_path / "whole")


def test_sgd_resumes_with_its_momentum(tmp_path: Path) -> None:
    options = RANDOM | {"algorithm": "sgd"}
    train(tmp_path / "whole", **options)
    with pytest.raises(TrainingInterrupted):
        train(tmp_path / "stopped", kill=(1, 4, SIGTERM, 0), **options)
    moments = saved(tmp_path / "stopped")["optimizer"]["state"]
    assert all(parts.keys() == {"momentum_buffer"} for parts in moments.values())
    train(tmp_path / "stopped", **options)
    assert_identical(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.slow
def test_fp16_scales_the_loss_and_skips_steps_that_overflow(tmp_path: Path) -> None:
    train(tmp_path / "half", precision="fp16", epochs=10)
    train(tmp_path / "whole", epochs=10)
    half, whole = (
        [line for line in log_lines(tmp_path / name) if "loss" in line] for name in ("half", "whole")
    )
    skipped = [line for line in half if "grad_norm" not in line]
    scales = [65536.0, *(line["loss_scale"] for line in half)]
    assert [after < before for before, after in pairwise(scales)] == [
        "grad_norm" not in line for line in half
    ]
    assert 0 < len(skipped) < 10
    assert all(line["loss_scale"] == 65536 / 2 ** (k + 1) for k, line in enumerate(skipped))
    assert half[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=0.5)
    assert half[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-2)


def test_the_scale_of_the_loss_is_resumed(tmp_path: Path) -> None:
    options = RANDOM | {"precision": "fp16"}
    train(tmp_path / "whole", **options)
    with pytest.raises(TrainingInterrupted):
        train(tmp_path / "stopped", kill=(1, 4, SIGTERM, 0), **options)
    assert saved(tmp_path / "stopped")["progress"]["loss_scale"]["value"] < 65536
    train(tmp_path / "stopped", **options)
    assert_identical(tmp_path / "stopped", tmp_path / "whole")


def test_the_scale_grows_after_2000_steps_and_has_a_least_value() -> None:
    scale = LossScale(value=4.0)
    for _ in range(1999):
        scale.update(False)
    assert scale.value == 4
    scale.update(False)
    assert (scale.value, scale.steps) == (8, 0)
    for _ in range(13):
        scale.update(True)
    with pytest.raises(UserError, match="fp16"):
        scale.update(True)


def test_the_second_interrupt_acts_at_once() -> None:
    with CatchSignals() as signals:
        signal.raise_signal(signal.SIGINT)  # in this thread, so the handler has run
        assert signals.caught == signal.SIGINT
        assert TrainingInterrupted(3, signals.caught).code == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_resume_asks_only_for_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingInterrupted):
        train(tmp_path, kill=(1, 2, SIGTERM, 0), **RANDOM)
    asked: list[tuple[int, int]] = []
    batches = ToyLoader.batches

    def spy(loader: ToyLoader, epoch: int, start: int = 0) -> Any:
        asked.append((epoch, start))
        return batches(loader, epoch, start)

    monkeypatch.setattr(ToyLoader, "batches", spy)
    train(tmp_path, **RANDOM)
    assert asked == [(1, 4), (2, 0)]


def test_the_loader_may_stop_a_run_at_the_end_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[list[str]] = []

    def end(loader: ToyLoader, gather: Callable[[Any], list[Any]]) -> None:
        ended.append(gather("mine"))
        if len(ended) == 2:
            raise UserError("too many of them")

    monkeypatch.setattr(ToyLoader, "end_epoch", end)
    with pytest.raises(UserError, match="too many of them"):
        train(tmp_path)
    assert ended == [["mine"], ["mine"]]
    assert saved(tmp_path)["progress"]["epoch"] == 1


def test_the_loader_resumes_from_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resumed: list[dict[str, str]] = []
    monkeypatch.setattr(ToyLoader, "resume", lambda loader, state: resumed.append(state))
    with pytest.raises(TrainingInterrupted):
        train(tmp_path, kill=(0, 2, SIGTERM, 0))
    assert resumed == []
    train(tmp_path)
    assert resumed == [{"0": "[(0, 0), (0, 1), (0, 2)]"}]


def test_a_finished_run_returns_its_metrics(tmp_path: Path) -> None:
    first = train(tmp_path)
    before = log_lines(tmp_path), (tmp_path / "last.pt").stat().st_mtime_ns
    assert train(tmp_path) == first
    assert before == (log_lines(tmp_path), (tmp_path / "last.pt").stat().st_mtime_ns)


def test_accumulating_equals_the_doubled_batch(tmp_path: Path) -> None:
    train(tmp_path / "two", videos=24, micro=4, accumulate=2)
    train(tmp_path / "one", videos=24, micro=8, accumulate=1)
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    assert one["progress"]["step"] == two["progress"]["step"] == 9
    for line, other in zip(log_lines(tmp_path / "one"), log_lines(tmp_path / "two"), strict=True):
        assert line == pytest.approx(other, abs=1e-6, rel=1e-6)  # the norm of the gradient is among them
    for name, value in one["model"].items():
        torch.testing.assert_close(value, two["model"][name], atol=1e-6, rtol=0)


def test_the_rest_of_an_epoch_is_dropped(tmp_path: Path) -> None:
    train(tmp_path, videos=27, micro=5, accumulate=2, epochs=2)  # 5 micro-batches, of which 4 make 2 steps
    assert [line["step"] for line in log_lines(tmp_path) if "loss" in line] == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    before = (tmp_path / "last.pt").read_bytes()
    message = r"step \d+: the loss is nan, in a batch of .*videos/4.mp4.* last checkpoint is intact"
    with pytest.raises(UserError, match=message):
        train(tmp_path, epochs=2, poison=4)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_gradient_that_is_not_finite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Steep(ToyTask):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            return {"loss": (self.head.weight * 0).abs().sqrt().sum()}  # 0, but its slope is not

    monkeypatch.setattr(toy, "ToyTask", Steep)
    with pytest.raises(UserError, match=r"the loss is finite but.*gradient"):
        train(tmp_path)


@pytest.mark.parametrize("validated", [True, False])
def test_weights_that_the_last_step_makes_nan_are_not_saved(tmp_path: Path, validated: bool) -> None:
    options: dict[str, Any] = {} if validated else {"validate": None}
    with pytest.raises(UserError, match=r"after step 2 .*not finite"):
        train(tmp_path, epochs=1, videos=8, base_lr=1e45, **options)
    assert not (tmp_path / "last.pt").exists()
    assert not (tmp_path / "best").exists()


def test_too_few_videos(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"too few videos .*batch_size=8"):
        train(tmp_path, videos=7, micro=4, accumulate=2)


def test_other_videos_than_before_are_refused(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    with pytest.raises(UserError, match="run with 6 steps in an epoch, now there are 3"):
        train(tmp_path, epochs=2, videos=12)


def test_a_checkpoint_beyond_the_schedule_is_refused(tmp_path: Path) -> None:
    train(tmp_path, epochs=2)
    with pytest.raises(UserError, match="after step 12 of a run with 6 steps"):
        train(tmp_path, epochs=1)


def test_a_score_that_is_not_a_metric(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"score=top5 .*there are: top1"):
        train(tmp_path, score="top5", epochs=1)


def test_validation_sees_the_averaged_weights(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def watch(task: nn.Module) -> dict[str, float]:
        assert not torch.is_grad_enabled()
        seen.append(task.get_parameter("head.weight").detach().clone())
        return validate(task)

    train(tmp_path, validate=watch, every_epochs=2)
    assert len(seen) == 2  # after epoch 2, and after the last one
    assert torch.equal(seen[-1], saved(tmp_path)["ema"]["head.weight"])
    assert not torch.equal(seen[-1], ToyTask().head.weight)
    assert not torch.equal(seen[-1], saved(tmp_path)["model"]["head.weight"])


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    scores = iter([0.5, 0.75, math.nan])
    seen: list[torch.Tensor] = []

    def scored(task: nn.Module) -> dict[str, float]:
        seen.append(task.get_parameter("head.weight").detach().clone())
        return {"top1": next(scores)}

    metrics = train(tmp_path, validate=scored)
    assert metrics["best/top1"] == 0.75
    best = torch.load(tmp_path / "best" / "weights.pt", weights_only=True)
    assert torch.equal(best["head.weight"], seen[1])


def test_a_damaged_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    state = saved(tmp_path)
    for part in state:
        CheckpointStore(tmp_path).save_last({name: value for name, value in state.items() if name != part})
        with pytest.raises(UserError, match=rf"last\.pt is damaged .*\({part} is missing"):
            train(tmp_path, epochs=2)


def test_scores_of_two_validation_lists_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = iter([0.9, 0.3, 0.4])

    def scored(task: nn.Module) -> dict[str, float]:
        return {"top1": next(scores)}

    def best() -> float:
        return float(json.loads((tmp_path / "best" / "metrics.json").read_text())["top1"])

    train(tmp_path, validate=scored, validated_on="a" * 64, epochs=1)
    assert (best(), capsys.readouterr().err) == (0.9, "")
    train(tmp_path, validate=scored, validated_on="b" * 64, epochs=2)
    assert best() == 0.3
    assert "the validation list has other videos or labels than before" in capsys.readouterr().err
    metrics = train(tmp_path, validate=scored, validated_on="b" * 64, epochs=3)
    assert best() == metrics["best/top1"] == 0.4
    resumed = capsys.readouterr().err.splitlines()
    assert len(resumed) == 1
    assert f"resuming from {tmp_path / 'last.pt'} after step" in resumed[0]
    assert (
        train(tmp_path, validate=scored, validated_on="a" * 64, epochs=3) == metrics
    )  # finished, but says so
    assert "the validation list has other videos" in capsys.readouterr().err


def test_a_run_stops_once_its_folder_is_another_one(tmp_path: Path) -> None:
    in_place = iter([True] * 3 + [False] * 10)
    for every_seconds in (0.0, 300.0):
        store = CheckpointStore(tmp_path / "run", is_in_place=lambda: next(in_place))
        with pytest.raises(UserError, match="run was deleted, moved or replaced during the run"):
            train(tmp_path / "run", store=store, every_seconds=every_seconds)


def test_randomness_is_a_function_of_its_position() -> None:
    def draw(*position: int) -> float:
        seed_step(*position)
        return float(torch.rand(()))

    positions = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    assert [draw(*position) for position in positions] == [draw(*position) for position in positions]
    assert len({draw(*position) for position in positions}) == len(positions)
    assert mixed_seed(1, 2) != mixed_seed(2, 1)
    assert 0 <= mixed_seed(-1, 2**62) < 2**63
