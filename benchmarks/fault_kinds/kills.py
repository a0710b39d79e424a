"""SIGKILL at random moments of commands that can be repeated, then the same command until its end."""

from functools import partial
from pathlib import Path

import numpy as np

from fault_kinds.commands import Command, WholeRun, commands, require_same, whole_run
from fault_kinds.trial import Case, LimitedProcesses, Once

_MAX_KILLS = 3


def cases(folder: Path, processes: LimitedProcesses) -> list[Case]:
    """Return a case for each command."""
    (folder / "whole").mkdir()
    return [
        Case(command.name, partial(_kill, command, Once(partial(whole_run, command, folder / "whole"))))
        for command in commands(folder)
    ]


def _kill(command: Command, whole: Once[WholeRun], rng: np.random.Generator, folder: Path) -> None:
    """Kill a command one to three times, then let it end: the results are those of an uninterrupted run.

    A kill hits only the process, as that by a system without memory does, or with it all that it started, as
    the end of a container does. The moment is random within the time of an uninterrupted run's work.
    """
    uninterrupted, out = whole(), folder / "out"
    command.set_up(out)
    for number in range(rng.integers(1, _MAX_KILLS + 1)):
        moment_s = rng.uniform(0, 1) * uninterrupted.seconds
        with_children = bool(rng.random() < 0.5)
        running = command.process(out, folder / f"killed-{number}")
        running.wait_for_work()
        if running.ended(moment_s):
            break
        running.kill(with_children=with_children)
    command.process(out, folder / "last").result().require_success()
    require_same(command.results(out), uninterrupted)
