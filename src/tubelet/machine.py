"""The machine this runs on: the cores that there are to share, and its processor's name."""

import os
import platform
import re
from pathlib import Path


def available_cores() -> int:
    """The CPU cores that this program may use on this machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_per_process() -> int:
    """This process's share of them, where torchrun or SLURM's `srun` started several on this machine."""
    cores = available_cores()
    if processes := _count("LOCAL_WORLD_SIZE"):
        return max(1, cores // processes)
    tasks = _count("SLURM_STEP_TASKS_PER_NODE")  # such as 8(x2); a batch script without srun is no step
    if not tasks:
        return cores
    share = _count("SLURM_CPUS_PER_TASK") or (_count("SLURM_CPUS_ON_NODE") or cores) // tasks
    return max(1, min(cores, share))  # a task that is bound to its share sees that alone


def _count(name: str) -> int:
    """The number that an environment variable begins with; 0 where there is none."""
    found = re.match(r"\d+", os.environ.get(name, ""))
    return int(found[0]) if found else 0


def processor() -> str:
    """The processor's name, where the system tells it, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
