import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.test_machine import STEP, started
from tests.train.toy import ToyTask, log_lines
from tubelet.data.dataset import Batch
from tubelet.errors import UserError
from tubelet.train.checkpoint import CheckpointStore
from tubelet.train.runtime import Runtime, RuntimeConfig


def assert_same_run(first: Path, second: Path, tolerance: float = 1e-5) -> None:
    """The same losses, the same weights, averages and optimizer state."""
    lines, others = log_lines(first), log_lines(second)
    assert [line["step"] for line in lines] == [line["step"] for line in others]
    for line, other in zip(lines, others, strict=True):
        assert line == pytest.approx(other, abs=tolerance, rel=tolerance)
    state, other_state = CheckpointStore(first).load_last(), CheckpointStore(second).load_last()
    assert state is not None
    assert other_state is not None
    for part in ("model", "ema"):
        assert state[part].keys() == other_state[part].keys()
        for name, value in state[part].items():
            torch.testing.assert_close(value, other_state[part][name], atol=tolerance, rtol=tolerance)
    moments, other_moments = state["optimizer"]["state"], other_state["optimizer"]["state"]
    assert moments.keys() == other_moments.keys() == dict(ToyTask().named_parameters()).keys()
    for name in moments:
        torch.testing.assert_close(moments[name], other_moments[name], atol=tolerance, rtol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_as_one_does(runs: Path, parallel: str) -> None:
    assert_same_run(runs / "one", runs / parallel)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_accumulate_as_one_does(runs: Path, parallel: str) -> None:
    one, two = (CheckpointStore(runs / f"{name}_accumulate").load_last() for name in ("one", parallel))
    assert one is not None
    assert two is not None
    for name, value in one["model"].items():
        torch.testing.assert_close(value, two["model"][name], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["to_fsdp", "from_fsdp"])
def test_a_run_moves_between_one_process_and_shards(runs: Path, change: str) -> None:
    assert_same_run(runs / "one", runs / change)


@pytest.mark.slow
def test_all_processes_stop_after_a_signal_to_one(runs: Path) -> None:
    output = (runs / "output").read_text()
    for rank in (0, 1):
        assert f"rank {rank}: stopped by SIGTERM after step 5; saved" in output


@pytest.mark.slow
def test_all_processes_refuse_a_loss_of_one(runs: Path) -> None:
    refusals = [line for line in (runs / "output").read_text().splitlines() if "the loss is nan" in line]
    assert len(refusals) == 2
    for line in refusals:
        assert line.count(".mp4") == 4  # the batch of the one process that met it
        assert "videos/4.mp4" in line
    state = CheckpointStore(runs / "poisoned").load_last()
    assert state is not None
    assert state["progress"]["step"] == 3


@pytest.mark.slow
def test_all_processes_stop_for_what_the_main_one_cannot_write(runs: Path) -> None:
    output = (runs / "output").read_text()
    for rank in (0, 1):
        for folder in ("no_last", "no_best/best"):
            assert f"rank {rank}: cannot write to {runs / folder}: " in output


def test_what_only_the_main_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    with Runtime(RuntimeConfig(device="cpu")) as runtime:
        runtime.on_main(lambda: done.append("main"))
        assert done == ["main"]
        for error in (UserError("a full disk"), OSError(28, "no room"), RuntimeError("a bug")):
            with pytest.raises(type(error)) as raised:
                runtime.on_main(partial(throw, error))
            assert raised.value is error
        monkeypatch.setattr(runtime, "is_main", False)
        monkeypatch.setattr(runtime, "gather", lambda _: [UserError("a full disk"), None])
        with pytest.raises(UserError, match="a full disk"):
            runtime.on_main(lambda: done.append("another"))
        assert done == ["main"]


def throw(error: Exception) -> None:
    raise error


@pytest.mark.slow
def test_a_process_exits_normally_when_another_fails_at_the_end() -> None:
    code = """
from tubelet.train.runtime import Runtime, RuntimeConfig
with Runtime(RuntimeConfig(device="cpu", precision="fp32", threads=1)) as runtime:
    runtime.barrier()
    if runtime.is_main:
        raise ValueError("of one process")
"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    position = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | position | {"RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    (_, failed), (_, left) = (process.communicate(timeout=3600) for process in processes)
    assert [process.returncode for process in processes] == [1, 0], left
    assert failed.endswith("ValueError: of one process\n")
    assert "Traceback" not in left


def test_a_single_process() -> None:
    with Runtime(RuntimeConfig(device="cpu")) as runtime:
        assert (runtime.rank, runtime.world, runtime.local_rank, runtime.is_main) == (0, 1, 0, True)
        task = ToyTask()
        assert runtime.prepare(task) is task
        assert runtime.mean({"a": torch.tensor(2.0), "b": torch.tensor([3.0])}) == {"a": 2.0, "b": 3.0}
        assert runtime.any(True)
        assert runtime.any_of(False, torch.tensor(True)) == [False, True]
        assert runtime.gather("x") == ["x"]
        values = torch.arange(3)
        total = runtime.sum(values)
        assert total.tolist() == [0, 1, 2]
        assert total.data_ptr() != values.data_ptr()
        runtime.barrier()


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", "avx2"])
def test_bf16_is_used_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    linear = nn.Linear(2, 2)
    auto = torch.bfloat16 if "bf16" in capability else torch.float32
    for precision, dtype in (("auto", auto), ("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with Runtime(RuntimeConfig(device="cpu", precision=precision)) as runtime, runtime.autocast():  # type: ignore[arg-type]
            assert linear(torch.ones(2)).dtype is dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_a_device_that_is_not_available() -> None:
    with pytest.raises(UserError, match=r"device cuda is not available: .*cpu"):
        Runtime(RuntimeConfig(device="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_copied_ahead_are_whole_and_in_order() -> None:
    def batch(number: int) -> Batch:
        each = torch.full((4,), number)
        video = torch.full((4, 16, 3, 64, 64), number, dtype=torch.uint8)
        return Batch(video, each, each, each, names=[], failures={}).pin_memory()

    with Runtime(RuntimeConfig(device="cuda")) as runtime:
        busy, found = torch.rand(2048, 2048, device=runtime.device), []
        for here in runtime.prefetch(batch(number) for number in range(50)):
            for _ in range(5):  # the next copy is done long before this batch is read
                busy = (busy @ busy).softmax(-1)
            found.append(torch.stack([here.video.amin(), here.video.amax(), here.label.amax()]))
        assert torch.stack(found).tolist() == [[number] * 3 for number in range(50)]


@pytest.mark.parametrize("gpus", [1, 8])
def test_a_slurm_task_may_see_only_its_own_gpu(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    started(monkeypatch, STEP | {"SLURM_STEP_NUM_TASKS": "8", "MASTER_ADDR": "a"})
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "1")
    with_gpus(monkeypatch, gpus)
    assert Runtime(RuntimeConfig(precision="fp32")).device == torch.device("cuda", 0 if gpus == 1 else 1)


def test_more_processes_of_torchrun_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a"})
    with_gpus(monkeypatch, 1)
    with pytest.raises(UserError, match="more processes than GPUs on this machine: process 2 finds 1"):
        Runtime(RuntimeConfig(precision="fp32"))


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


# PyTorch hides this warning itself, which warnings as errors forestall
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiling_does_not_change_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def compile_in_place(module: nn.Module, **options: Any) -> None:
        compiled.append(module)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_in_place)
    with Runtime(RuntimeConfig(device="cpu", precision="fp32", compile=True)) as runtime:
        task = ToyTask()
        names = list(task.state_dict())
        model = runtime.prepare(task)
        assert compiled == list(task.blocks)
        assert list(model.state_dict()) == names
        plain = ToyTask()
        assert torch.equal(task.predict(torch.ones(2, 4)), plain.predict(torch.ones(2, 4)))
