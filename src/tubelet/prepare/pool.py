"""Work on many files in processes of their own, so that no file can stop the rest.

A decoder may crash or hang on a broken file. Each process works on one file at a time and is replaced where
it ends or takes too long; the file it had is then the one to blame.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Generic, TypeVar

from tubelet.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lost:
    """There is no result, and why."""

    reason: str


def work(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int,
    seconds: Callable[[Job], float] = lambda job: inf,
) -> Iterator[tuple[Job, Result | Lost]]:
    """Call `function` on each job; results come as they are finished.

    Args:
        function: of a module, so that other processes find it. A mistake in it ends the work.
        jobs: what to call it with.
        workers: processes; 0 works in this one, without protection.
        seconds: how long a job may take; one that takes longer is lost.

    Raises:
        UserError: the function raised it, or the processes do not start.
        RuntimeError: the function raised something else in another process; the message has it and the job.
    """
    if workers < 1:
        for job in jobs:
            yield job, function(job)
        return
    waiting = list(reversed(jobs))
    team: list[_Worker[Job, Result]] = []
    try:
        while waiting or any(worker.busy for worker in team):
            team = [worker for worker in team if not worker.ended]
            while waiting and len(team) < workers:
                team.append(_Worker(function))
            for worker in team:
                if waiting and not worker.busy and worker.give(waiting[-1], seconds(waiting[-1])):
                    waiting.pop()
            ready = wait([worker.connection for worker in team if worker.busy], timeout=0.5)
            for worker in [worker for worker in team if worker.connection in ready or worker.late]:
                yield worker.take()
    finally:
        for worker in team:
            worker.end()


class _Worker(Generic[Job, Result]):
    """One process and the job it has."""

    def __init__(self, function: Callable[[Job], Result]) -> None:
        context = get_context("spawn")  # forking a process that has threads is unsafe
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        with _interrupts_held():
            self._process.start()
        theirs.close()
        self._job: list[Job] = []
        self._seconds = self._end = inf
        self._started = False

    @property
    def busy(self) -> bool:
        return bool(self._job)

    @property
    def late(self) -> bool:
        return self.busy and time.monotonic() > self._end

    @property
    def ended(self) -> bool:
        return self.connection.closed

    def give(self, job: Job, seconds: float) -> bool:
        """Whether the process takes a job; one that ended after its last one does not."""
        try:
            self.connection.send(job)
        except ConnectionError:
            if self._started:
                self.end()
                return False
        grace = 0 if self._started else 60  # a new process imports first
        self._job, self._seconds, self._end = [job], seconds, time.monotonic() + seconds + grace
        return True

    def take(self) -> tuple[Job, Result | Lost]:
        """The job and its result. Where the process crashed or is late, it is ended."""
        (job,) = self._job
        self._job = []
        if not self.connection.poll():
            self.end()
            return job, Lost(f"took longer than {self._seconds:.0f} s")
        try:
            failed, result = self.connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(5)
            code = self._process.exitcode
            self.end()
            if not self._started and code == 1:  # Python's own failure, not a decoder's
                raise UserError("the worker processes do not start; --workers 0 works without them") from None
            return job, Lost(f"the decoder crashed on it (exit code {code})")
        if failed:
            raise UserError(result) if failed == "user" else RuntimeError(result)
        self._started = True
        return job, result

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process that starts here does not get Ctrl-C, not even while it imports: this one handles it."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # starting it, as the first process would, lets interrupts through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, function: Callable[[Job], Result]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be held back
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        while True:
            job = connection.recv()
            try:
                answer: tuple[str, object] = ("", function(job))
            except UserError as error:
                answer = ("user", str(error))
            except Exception as error:
                answer = ("program", f"{type(error).__name__}: {error} (working on {job})")
            connection.send(answer)
    except (EOFError, ConnectionError):
        pass  # the main process is gone


def _end_with_parent() -> None:
    """Stop in the middle of a job where the main process is gone: the next run may be writing the same."""
    parent = parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)
