"""A process's share of the cores, as torchrun and SLURM tell it, and the processor's name."""

import os
from pathlib import Path

import pytest

from tubelet.machine import available_cores, cores_per_process, processor

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
        (SRUN, 96, 12),  # --ntasks=16 alone
        (SRUN, 12, 12),
        (SRUN | {"SLURM_CPUS_ON_NODE": "4"}, 4, 1),
        (SRUN | {"SLURM_CPUS_PER_TASK": "96", "LOCAL_WORLD_SIZE": "8"}, 96, 12),  # torchrun in each task
        ({"SLURM_NTASKS_PER_NODE": "8", "SLURM_NTASKS": "16"}, 96, 96),  # in the batch script: alone
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
