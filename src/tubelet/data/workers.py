"""Worker processes that make batches, and continue without a video that crashes or hangs one of them."""

import atexit
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from tubelet.data.crash_guard import HANG_LIMIT_S, CrashGuard
from tubelet.data.dataset import Batch, SampleViews, TrainDataset, ViewDataset, collate
from tubelet.data.windows import WindowViews
from tubelet.errors import UserError
from tubelet.machine import allowed_workers

LONG_WAIT = 0.1
"""Share of the time spent waiting for batches from which on it is worth doing something about it."""
_HUNG_SIGNAL = getattr(signal, "SIGALRM", None)  # of the crash guard; not on Windows
_CRASH_SIGNALS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
# Signals that are not about a video, with what to do.
_ADVICE = {
    signal.SIGKILL: "usually because memory ran out: lower data.workers or optim.batch_size",
    signal.SIGBUS: "usually because shared memory is full: enlarge /dev/shm (docker run --shm-size=16g) or "
    "lower data.workers",
}


class Workers:
    """Makes batches of a data set's items in worker processes.

    If a video crashes its process, as decoders may on a broken file, or hangs it, all processes are started
    again, the batches that were not delivered are made again, and the video is refused like one that cannot
    be read.

    Args:
        dataset: the items; its `crash_guard` is replaced.
        num_workers: worker processes; 0, or any number in a daemonic process, makes the batches in this
            process, which a crash then ends.
        for_gpu: whether the model computes on a GPU. If so, batches are in page-locked memory, from which
            copies are fast. If not, the processes have the lowest priority: they share the cores with the
            model's threads, all of which wait for the slowest.
        limit_s: seconds after which a process that decodes one video is ended.
    """

    def __init__(
        self,
        dataset: TrainDataset | ViewDataset | SampleViews | WindowViews,
        num_workers: int,
        *,
        for_gpu: bool = False,
        limit_s: float = HANG_LIMIT_S,
    ) -> None:
        self._dataset = dataset
        self._num_workers = allowed_workers(num_workers)
        self._for_gpu = for_gpu
        self._order: list[list[Any]] = []
        dataset.crash_guard = CrashGuard(self._num_workers, limit_s)
        self._loader = self._make_loader()

    def batches(self, order: Sequence[Sequence[Any]]) -> Iterator[Batch]:
        """Yield a batch for each list of items.

        Raises:
            UserError: a process was killed.
            RuntimeError: a process ended for another reason than a video.
            Exception: the data set raised it.
        """
        done = 0
        while done < len(order):
            self._order[:] = map(list, order[done:])
            before = multiprocessing.active_children()
            with _keep_child_handler():
                batches = iter(self._loader)
            processes = multiprocessing.active_children()
            for process in set(processes) - set(before):
                atexit.register(_kill, weakref.ref(process))
            try:
                for batch in batches:
                    yield batch if self._for_gpu else _without_shared_memory(batch)  # pinned ones are copies
                    done += 1
            except RuntimeError:  # PyTorch's, when a process has ended
                if not self._refuse_videos(processes):
                    raise
                del batches
                self._loader = self._make_loader()

    def _make_loader(self) -> DataLoader[Batch]:
        return DataLoader(
            self._dataset,
            batch_sampler=_Order(self._order),
            num_workers=self._num_workers,
            collate_fn=collate,
            worker_init_fn=_start_worker if self._for_gpu else _start_background_worker,
            pin_memory=self._for_gpu,
            persistent_workers=self._num_workers > 0,
        )

    def _refuse_videos(self, processes: Sequence[multiprocessing.process.BaseProcess]) -> bool:
        """Refuse the videos that crashed or hung these processes; return whether there were any."""
        guard, found = self._dataset.crash_guard, False
        for process in processes:
            code, index = process.exitcode, guard.current_video(process.pid or 0)
            if not code or index is None:
                continue
            if -code in _ADVICE:
                ended_by = signal.Signals(-code)
                raise UserError(f"a decoding process was ended with {ended_by.name}, {_ADVICE[ended_by]}")
            if -code == _HUNG_SIGNAL:
                guard.refused[index] = f"decoding hung for {guard.limit_s:g} s"
                found = True
            elif -code in _CRASH_SIGNALS:
                guard.refused[index] = "decoding crashed"
                found = True
        return found


class _Order:
    """The batches to make next, as a batch sampler of DataLoader."""

    def __init__(self, order: list[list[Any]]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


@contextmanager
def _keep_child_handler() -> Iterator[None]:
    """Keep the signal handler for ended processes: PyTorch's raises in the middle of any code."""
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGCHLD, handler)


def _without_shared_memory(batch: Batch) -> Batch:
    """Return the batch with copies of all but its video.

    Each tensor from a worker process, or a view of it, keeps a file descriptor open as long as it exists, and
    a process may have only about a thousand.
    """
    return replace(batch, label=batch.label.clone(), seed=batch.seed.clone(), index=batch.index.clone())


def _kill(process: "weakref.ref[multiprocessing.process.BaseProcess]") -> None:
    if (alive := process()) is not None:
        alive.kill()


def _start_background_worker(number: int) -> None:
    _start_worker(number)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(19)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Terminals and schedulers signal the whole process group, but the training process still needs data to
    # finish its step. It ends this process afterwards.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
