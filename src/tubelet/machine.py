"""The machine this runs on: the cores that there are to share, and its processor's name."""

import os
import platform
from pathlib import Path


def available_cores() -> int:
    """The CPU cores that this program may use on this machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_per_process() -> int:
    """This process's share of them: torchrun and SLURM say how many processes run on a machine."""
    names = ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")
    processes = next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), 1)
    return max(1, available_cores() // processes)


def processor() -> str:
    """The processor's name, where the system tells it, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
