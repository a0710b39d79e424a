"""The cores that there are to share."""

import os
import re


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
