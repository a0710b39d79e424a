"""Call a function on many files in worker processes, so that no file can stop the rest.

A decoder may crash or hang on a broken file. A worker has one file at a time and is replaced if it crashes or
takes too long; that file then has no result, and the others do.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite
from multiprocessing import get_context, parent_process, resource_tracker
from threading import Thread
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

from tubelet.errors import UserError
from tubelet.machine import allowed_workers

CHECK_S = 1.0  # how often a pool without a new result is asked whether it is broken

T = TypeVar("T")
Result = TypeVar("Result")


@dataclass(frozen=True)
class JobFailed:
    """A job without a result: its worker crashed or took too long, or its file could not be fetched."""

    reason: str


def run_jobs(
    function: Callable[[T], Result],
    jobs: Sequence[T],
    *,
    workers: int,
    limit_s: Callable[[T], float] = lambda job: inf,
) -> Iterator[tuple[T, Result | JobFailed]]:
    """Call `function` on each job and yield the jobs with their results, in the order in which they finish.

    Args:
        function: defined in a module, so that other processes can import it.
        jobs: the arguments.
        workers: number of processes; 0, or any number in a daemonic process, calls the function in this
            process, without protection.
        limit_s: seconds that a job may take.

    Raises:
        UserError: the function raised it, or the processes do not start.
        RuntimeError: the function raised another error in a worker; the message contains it and the job.
    """
    workers = allowed_workers(workers)
    if workers < 1:
        for job in jobs:
            yield job, function(job)
        return
    waiting = list(reversed(jobs))
    while waiting:
        yield from _run_pool(function, waiting, workers, limit_s)


def _run_pool(
    function: Callable[[T], Result], waiting: list[T], workers: int, limit_s: Callable[[T], float]
) -> Iterator[tuple[T, Result | JobFailed]]:
    """Take jobs from the end of `waiting`; jobs that a broken pool did not begin are put back."""
    running: dict[Future[Result], T] = {}
    works = broken = False
    pool = _start_pool(function, workers)
    try:
        while (waiting or running) and not broken:
            while waiting and len(running) < workers:  # a job is sent only when a worker is free
                limit = limit_s(waiting[-1])
                try:
                    future: Future[Result] = pool.schedule(
                        _call, (function, waiting[-1]), timeout=limit if isfinite(limit) else None
                    )
                except RuntimeError:  # broken since the last result
                    broken = True
                    break
                running[future] = waiting.pop()
            done = wait(running, CHECK_S, return_when=FIRST_COMPLETED).done
            if not done and not pool.active:  # a job that was sent while the pool broke never ends
                broken = True
            for future in done:
                job = running.pop(future)
                try:
                    result: Result | JobFailed = future.result()
                except BrokenProcessPool:
                    broken = True
                    waiting.append(job)
                    continue
                except ProcessExpired as error:
                    result = JobFailed(f"the decoder crashed (exit code {error.exitcode})")
                except TimeoutError:
                    result = JobFailed(f"took longer than {limit_s(job):.0f} s")
                works = True
                yield job, result
    finally:
        pool.stop()
        pool.join()
    waiting.extend(running.values())
    if broken and not works:
        raise UserError("the worker processes do not start; --workers 0 works without them")


def _start_pool(function: Callable[[T], Result], workers: int) -> ProcessPool:
    """Start processes that do not receive Ctrl-C, which this process handles, not even while they import."""
    pool = ProcessPool(
        workers,
        initializer=_exit_with_parent,
        initargs=(function,),  # to import its module before the first job's time begins
        context=get_context("spawn"),  # forking a process that has threads is unsafe
    )
    with _interrupts_blocked():
        assert pool.active  # this starts the processes, and the thread that replaces them
    return pool


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in this thread; the threads and processes that it starts inherit that."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # if the first worker started it, that would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call(function: Callable[[T], Result], job: T) -> Result:
    """Call the function in a worker; its errors become errors that any process can unpickle."""
    try:
        return function(job)
    except UserError as error:
        raise UserError(str(error)) from None
    except Exception as error:
        raise RuntimeError(f"{type(error).__name__}: {error} (working on {job})") from error


def _exit_with_parent(_: Callable[[T], Result]) -> None:
    """Exit, also in the middle of a job, when the main process is gone: the next run may write the same."""

    def watch() -> None:
        parent = parent_process()
        assert parent is not None  # this is a worker
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
