"""Where this program runs: its place among the processes of a run, its cores, its processor."""

import atexit
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from tubelet.errors import UserError


def place() -> tuple[int, int, int]:
    """(rank, world, local rank) as torchrun or SLURM tells them; (0, 1, 0) for a program started alone.

    SLURM_NTASKS is of the whole job: in its batch script, too, which is one process.

    Raises:
        UserError: SLURM started several, and where they are to meet is not said.
    """
    for rank, world, local in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ):
        if "MASTER_ADDR" in os.environ and rank in os.environ and world in os.environ:
            return int(os.environ[rank]), int(os.environ[world]), int(os.environ.get(local, 0))
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        raise UserError("several SLURM tasks, but MASTER_ADDR is not set: export the first node's name as it")
    return 0, 1, 0


def is_main_process() -> bool:
    """Whether this is the process that prints and writes; needs no process group."""
    return place()[0] == 0


def leave(code: int) -> NoReturn:
    """End the program with an exit code; where torchrun or srun started it, without shutting Python down.

    Threads of the gloo backend may still hold tensors of the last exchange, and one that frees them while
    Python shuts down aborts the process (PyTorch's issue 190489).
    """
    if not {"WORLD_SIZE", "SLURM_STEP_NUM_TASKS"} & os.environ.keys():
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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


def version() -> str:
    """Return the version of the installed Tubelet."""
    return metadata.version("tubelet")


def processor() -> str:
    """The processor's name, where the system tells it, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
