"""Trials: a case and its outcome, calls in processes with limits, and the `tubelet` command."""

import io
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Generic, TypeVar
from unittest.mock import patch

import numpy as np
from pebble import ProcessExpired, ProcessPool

T = TypeVar("T")
MAX_BYTES = 2 << 30
"""Memory that a call may take beyond what its process had before."""
COMMAND_LIMIT_S = 600.0
"""A guard against hangs: tiny work, but the machine may be shared."""
_GUARD_BYTES = 6 << 30  # of all data of a process, so that a call cannot take the whole machine


class Failure(Exception):  # noqa: N818 - the outcome of a trial, not an error of this program
    """The fault was not survived; the message says what went wrong."""


class Unavailable(Exception):  # noqa: N818
    """This machine cannot run the kind; the message says why."""


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: what is damaged.
        run: tries it once in an empty folder, with all random choices from the generator; raises Failure.
    """

    name: str
    run: Callable[[np.random.Generator, Path], None]


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """Return one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def require(survived: bool, problem: str) -> None:
    """Raise a Failure unless `survived`."""
    if not survived:
        raise Failure(problem)


class LimitedProcesses:
    """Processes that call functions, each call with a time limit and a memory limit of MAX_BYTES.

    Args:
        count: calls at the same time.
    """

    def __init__(self, count: int) -> None:
        self._pool = ProcessPool(count, initializer=_begin_process, context=get_context("spawn"))

    def call(self, function: Callable[..., T], *arguments: Any, limit_s: float) -> T:
        """Return the function's result.

        Raises:
            Failure: it took too long or too much memory, crashed, or raised anything.
        """
        future = self._pool.schedule(_call, (function, arguments), timeout=limit_s)
        try:
            result, grown = future.result()
        except Failure:
            raise
        except TimeoutError:
            raise Failure(f"no answer within {limit_s:.0f} s") from None
        except ProcessExpired as error:
            code = error.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise Failure(f"the process crashed ({how})") from None
        except MemoryError:
            raise Failure("took all memory (MemoryError)") from None
        except Exception as error:
            raise Failure(f"{type(error).__name__}: {first_line(error)}") from error
        require(grown <= MAX_BYTES, f"took {grown / 2**30:.1f} GB of memory")
        return result

    def close(self) -> None:
        """End the processes."""
        self._pool.stop()
        self._pool.join()


def first_line(error: object) -> str:
    """Return the first line of a message, shortened."""
    return (str(error).splitlines() or [""])[0][:200]


def _begin_process() -> None:
    import torch

    import tubelet.cli.main
    import tubelet.run.training  # noqa: F401

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (_GUARD_BYTES, resource.RLIM_INFINITY))


def _call(function: Callable[..., T], arguments: tuple[Any, ...]) -> tuple[T, int]:
    with suppress(OSError):  # Linux: forget the peak of earlier calls
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak_bytes()
    result = function(*arguments)
    return result, _peak_bytes() - before


def _peak_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


@dataclass(frozen=True)
class Finished:
    """A command that has ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def require_success(self) -> None:
        """Raise a Failure unless the exit code is 0."""
        require(self.code == 0, f"exit code {self.code}: {self._last_line()}")

    def require_one_message(self) -> None:
        """Raise a Failure unless the command ended with exit code 2 and one message for the user."""
        require("Traceback" not in self.err, f"a traceback: {self._last_line()}")
        require(self.code == 2, f"exit code {self.code}: {self._last_line()}")
        messages = self.err.count("\ntubelet: ") + self.err.startswith("tubelet: ")
        is_usage = "Usage: " in self.err  # typer's own message about a wrong argument
        require(messages == 1 or is_usage, f"{messages} messages: {self._last_line()}")
        require(len(self.err) < 10_000, f"a message of {len(self.err):,} characters")

    def _last_line(self) -> str:
        return (self.err.strip().splitlines() or ["no message"])[-1][:200]


def tubelet_here(words: Sequence[str], encoding: str = "utf-8") -> Finished:
    """Run the command in this process, which is faster than a new one, on a terminal with this encoding."""
    from tubelet.cli.main import main

    code, out, err = 0, io.TextIOWrapper(io.BytesIO(), encoding), io.TextIOWrapper(io.BytesIO(), encoding)
    err.reconfigure(errors="backslashreplace")  # as Python's own
    with patch.object(sys, "argv", ["tubelet", *words]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
    return Finished(code, _text_of(out), _text_of(err))


def _text_of(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


class TubeletProcess:
    """The command in its own process group, so that the processes it starts can be ended with it.

    Args:
        words: after `tubelet`.
        log: a file for what it prints; standard error goes to another one beside it.
        start: Python code that runs the command, by default its own.
    """

    def __init__(self, words: Sequence[str], log: Path, start: str = "") -> None:
        self._out, self._err = log.with_suffix(".out"), log.with_suffix(".err")
        program = ["-c", start] if start else ["-m", "tubelet"]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *program, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def kill(self, *, with_children: bool) -> None:
        """Send SIGKILL to the process, or to its whole group."""
        with suppress(ProcessLookupError):
            if with_children:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()

    def ended(self, within_s: float) -> bool:
        """Wait for the end and return whether it came in time."""
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def result(self) -> Finished:
        """Return the outcome once it has ended.

        Raises:
            Failure: it hangs.
        """
        ended = self.ended(COMMAND_LIMIT_S)
        self.kill(with_children=True)  # what a crash may have left
        require(ended, f"no end within {COMMAND_LIMIT_S:.0f} s")
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in (self._out, self._err))
        return Finished(self.process.returncode, out, err)


class Once(Generic[T]):
    """The value of a function that is called at most once, by the first thread that needs it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._values: list[T] = []

    def __call__(self) -> T:
        with self._lock:
            if not self._values:
                self._values.append(self._function())
        return self._values[0]
