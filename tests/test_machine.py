"""How many cores there are for a process, by what torchrun and SLURM say."""

import os

import pytest

from tubelet.machine import available_cores, cores_per_process

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
