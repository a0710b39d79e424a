"""The machine: the rank of this process, its cores, its processor."""

import atexit
import hashlib
import logging
import os
import platform
import re
import sys
from functools import cache
from importlib import metadata
from multiprocessing import current_process
from pathlib import Path
from typing import NoReturn

from tubelet.errors import UserError

MAX_PROCESSES = 2**12
"""The largest number of worker processes, or of threads of a process, that settings accept."""
_log = logging.getLogger("tubelet")


def process_rank() -> tuple[int, int, int]:
    """Return (rank, world, local rank) as set by torchrun or SLURM; (0, 1, 0) for a single process.

    SLURM_NTASKS is not used: it counts the whole job, also in a batch script, which is one process.

    Raises:
        UserError: SLURM started more than one task without MASTER_ADDR.
    """
    for rank, world, local in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ):
        if "MASTER_ADDR" in os.environ and rank in os.environ and world in os.environ:
            return int(os.environ[rank]), int(os.environ[world]), int(os.environ.get(local, 0))
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        raise UserError(
            "several SLURM tasks, but MASTER_ADDR is not set: set MASTER_ADDR to the first node's name"
        )
    return 0, 1, 0


def is_main_process() -> bool:
    """Return whether this is the process that prints and writes (rank 0); needs no process group."""
    return process_rank()[0] == 0


def is_first_to_report(message: str) -> bool:
    """Return whether no other process of this job on this machine has reported this message.

    The processes of torchrun note it in the job's temporary folder; without torchrun each is the first.
    """
    own_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # FOLDER/attempt_0/RANK/error.json
    if not own_file:
        return True
    digest = hashlib.sha256(message.encode()).hexdigest()[:16]
    try:
        (Path(own_file).parents[1] / f"tubelet_{digest}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


def exit_process(code: int) -> NoReturn:
    """Exit with a code; under torchrun or srun without Python's own shutdown.

    A thread of the gloo backend may still hold tensors of the last exchange; if it frees them while Python
    shuts down, the process aborts (PyTorch issue 190489).
    """
    if not {"WORLD_SIZE", "SLURM_STEP_NUM_TASKS"} & os.environ.keys():
        sys.exit(code)
    atexit._run_exitfuncs()  # private, but os._exit would skip these functions
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the machine's memory in bytes; 8 GiB where the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return 8 * 2**30


def cores_per_process() -> int:
    """Return the cores for this process when torchrun or `srun` started more than one on this machine."""
    cores = available_cores()
    if processes := _count("LOCAL_WORLD_SIZE"):
        return max(1, cores // processes)
    tasks = _count("SLURM_STEP_TASKS_PER_NODE")  # such as 8(x2); not set in a batch script without srun
    if not tasks:
        return cores
    share = _count("SLURM_CPUS_PER_TASK") or (_count("SLURM_CPUS_ON_NODE") or cores) // tasks
    return max(1, min(cores, share))  # a task that is bound to its share sees only that share


def allowed_workers(workers: int) -> int:
    """Return how many of the wanted worker processes may be started: 0, with a notice, if this is daemonic.

    Python does not let a daemonic process have children. Task queues such as Celery, and the processes of a
    `multiprocessing.Pool`, run their functions in one.
    """
    if workers and current_process().daemon:
        _report_daemonic()
        return 0
    return workers


@cache
def _report_daemonic() -> None:
    _log.warning(
        "this process is daemonic and may not start worker processes: it reads the videos itself (workers=0)"
    )


def _count(name: str) -> int:
    """Return the number at the start of an environment variable, 0 without one."""
    found = re.match(r"\d+", os.environ.get(name, ""))
    return int(found[0]) if found else 0


def version() -> str:
    """Return the version of the installed Tubelet."""
    return metadata.version("tubelet")


def processor() -> str:
    """Return the name of the processor, or its architecture if the system does not report a name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
