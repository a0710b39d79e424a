"""What torchrun, SLURM and the system say of where a program runs."""

import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from tubelet.errors import UserError
from tubelet.machine import (
    _report_daemonic,
    allowed_workers,
    available_cores,
    cores_per_process,
    is_first_to_report,
    process_rank,
    processor,
)

NAMES = (
    "LOCAL_WORLD_SIZE",
    "SLURM_CPUS_ON_NODE",
    "SLURM_CPUS_PER_TASK",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_TASKS_PER_NODE",
)
SRUN = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_CPUS_ON_NODE": "96"}


@pytest.mark.parametrize(
    ("environment", "cores", "share"),
    [
        ({}, 96, 96),
        ({"LOCAL_WORLD_SIZE": "8"}, 96, 12),
        ({"LOCAL_WORLD_SIZE": "8"}, 4, 1),
        ({"LOCAL_WORLD_SIZE": "0"}, 96, 96),
        (SRUN | {"SLURM_CPUS_PER_TASK": "12"}, 12, 12),  # bound to its share
        (SRUN | {"SLURM_CPUS_PER_TASK": "12"}, 96, 12),
        (SRUN | {"SLURM_CPUS_PER_TASK": "12"}, 1, 1),
        (SRUN | {"SLURM_CPUS_PER_TASK": "12", "SLURM_NTASKS_PER_NODE": "8"}, 12, 12),
        (SRUN, 96, 12),  # only --ntasks=16
        (SRUN, 12, 12),
        (SRUN | {"SLURM_CPUS_ON_NODE": "4"}, 4, 1),
        (SRUN | {"SLURM_CPUS_PER_TASK": "96", "LOCAL_WORLD_SIZE": "8"}, 96, 12),  # torchrun in each task
        ({"SLURM_NTASKS_PER_NODE": "8", "SLURM_NTASKS": "16"}, 96, 96),  # in the batch script: one process
    ],
)
def test_the_share_of_a_process(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], cores: int, share: int
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert available_cores() == cores
    assert cores_per_process() == share


@pytest.mark.parametrize(
    ("text", "name"),
    [("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: x\n", "Some CPU @ 2 GHz"),
     ("processor\t: 0\nBogoMIPS\t: 50.0\n", "aarch64"), (None, "aarch64")],
)  # fmt: skip
def test_the_processor_has_its_name_or_that_of_its_kind(
    text: str | None, name: str, monkeypatch: pytest.MonkeyPatch
):
    def read_text(path: Path, encoding: str) -> str:
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor() == name


STEP = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a"}, (3, 4, 1)),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "8", "MASTER_ADDR": "a"}, (5, 8, 1)),
        ({**BATCH, "MASTER_ADDR": "a"}, (0, 1, 0)),  # the script itself, without srun
        ({**BATCH, "SLURM_STEP_NUM_TASKS": "1", "MASTER_ADDR": "a"}, (0, 1, 0)),  # a shell of salloc
        (BATCH, (0, 1, 0)),
    ],
)
def test_rank_among_the_processes(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[int, int, int]
) -> None:
    started(monkeypatch, environment)
    assert process_rank() == expected


def test_several_tasks_need_the_address_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, STEP | {"SLURM_STEP_NUM_TASKS": "8"})
    with pytest.raises(UserError, match="several SLURM tasks, but MASTER_ADDR is not set"):
        process_rank()


def started(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """As if this process had been started with no other variables of torchrun and SLURM."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", *STEP, "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("launcher", ["", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_process_of_several_ends_before_python_shuts_down(launcher: str) -> None:
    code = """
import atexit, sys
from tubelet.machine import exit_process
class Last:
    def __del__(self):
        print("freed", flush=True)
last = Last()
atexit.register(print, "registered")
sys.stdout.write("written ")
exit_process(3)
"""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {launcher: "2"} if launcher else {}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 3, ended.stderr
    assert ended.stdout == "written registered\n" + ("" if launcher else "freed\n")


def test_a_daemonic_process_has_no_workers_and_says_so_once(
    daemonic: None, caplog: pytest.LogCaptureFixture
) -> None:
    _report_daemonic.cache_clear()
    with pytest.raises(AssertionError, match="daemonic"):
        get_context("spawn").Process().start()
    assert [allowed_workers(count) for count in (0, 2, 7)] == [0, 0, 0]
    (notice,) = [record.getMessage() for record in caplog.records]
    assert "workers=0" in notice


def test_another_process_has_the_workers_that_are_wanted(caplog: pytest.LogCaptureFixture) -> None:
    assert [allowed_workers(count) for count in (0, 2)] == [0, 2]
    assert not caplog.records


def test_a_message_of_all_processes_is_reported_by_the_first(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    assert [is_first_to_report("wrong"), is_first_to_report("wrong")] == [True, True]
    reported = []
    for rank in range(3):
        (tmp_path / "attempt_0" / str(rank)).mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "attempt_0" / str(rank) / "error.json"))
        reported.append((is_first_to_report("wrong"), is_first_to_report(f"wrong in {rank}")))
    assert reported == [(True, True), (False, True), (False, True)]
