"""Worker processes that make batches; a video that takes one down is passed over, and the work goes on."""

import atexit
import multiprocessing
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from tubelet.data.crash_guard import HANG_LIMIT_S, CrashGuard
from tubelet.data.dataset import Batch, TrainDataset, ViewDataset, collate
from tubelet.errors import UserError

_HUNG = 1  # the exit status of a process that the watch ended
_CRASHED = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
_ADVICE = {
    signal.SIGKILL: "as the system does when memory runs out: lower data.workers or optim.batch_size",
    signal.SIGBUS: "as happens when shared memory is full: enlarge /dev/shm (docker run --shm-size=16g) or "
    "lower data.workers",
}


class Workers:
    """Makes batches of a data set's items.

    Where a video crashes its process, as decoders may on a broken file, or does not let go of it, all
    processes are begun again, the batches that were not delivered are made again, and that video is refused,
    like one that cannot be read.

    Args:
        dataset: the items; their `crash_guard` is replaced.
        count: how many processes; 0 makes the batches in this one, where nothing can be done about a crash.
        pin: use page-locked memory, for copies to a GPU.
        limit_s: seconds after which a process is ended that has one video in hand.
    """

    def __init__(
        self,
        dataset: TrainDataset | ViewDataset,
        count: int,
        *,
        pin: bool = False,
        limit_s: float = HANG_LIMIT_S,
    ) -> None:
        self._dataset = dataset
        self._count = count
        self._pin = pin
        self._order: list[list[Any]] = []
        dataset.crash_guard = CrashGuard(count, limit_s)
        self._loader = self._make()

    def batches(self, order: Sequence[Sequence[Any]]) -> Iterator[Batch]:
        """The batches of these items, one after the other.

        Raises:
            UserError: a process was killed.
            RuntimeError: one ended for another reason than a video.
            Exception: what the data set raises.
        """
        done = 0
        while done < len(order):
            self._order[:] = map(list, order[done:])
            before = multiprocessing.active_children()
            with _no_interruption():
                batches = iter(self._loader)
            processes = multiprocessing.active_children()
            for process in set(processes) - set(before):
                atexit.register(_kill, weakref.ref(process))
            try:
                for batch in batches:
                    yield batch
                    done += 1
            except RuntimeError:  # of PyTorch, when a process is gone
                if not self._bury(processes):
                    raise
                del batches
                self._loader = self._make()

    def _make(self) -> DataLoader[Batch]:
        return DataLoader(
            self._dataset,
            batch_sampler=_Order(self._order),
            num_workers=self._count,
            collate_fn=collate,
            worker_init_fn=_start_worker,
            pin_memory=self._pin,
            persistent_workers=self._count > 0,
        )

    def _bury(self, processes: Sequence[multiprocessing.process.BaseProcess]) -> bool:
        """Whether processes fell over the videos that they had in hand, which are refused from now on."""
        found = False
        for process in processes:
            status, index = process.exitcode, self._dataset.crash_guard.current_video(process.pid or 0)
            if not status or index is None:
                continue
            if -status in _ADVICE:
                name = signal.Signals(-status).name
                raise UserError(
                    f"a decoding process was ended with {name}, {_ADVICE[signal.Signals(-status)]}"
                )
            if status == _HUNG or -status in _CRASHED:
                did = "does not let go of" if status == _HUNG else "crashed"
                self._dataset.crash_guard.refused[index] = f"{did} the decoder"
                found = True
        return found


class _Order:
    """The batches to make next, as DataLoader wants them."""

    def __init__(self, order: list[list[Any]]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


@contextmanager
def _no_interruption() -> Iterator[None]:
    """Keep PyTorch from raising, when a process ends, in the midst of whatever then runs: we look in time."""
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGCHLD, handler)


def _kill(process: "weakref.ref[multiprocessing.process.BaseProcess]") -> None:
    if (alive := process()) is not None:
        alive.kill()


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)  # one core a worker
    # Terminals and schedulers signal the whole group, but the training process has a step to end and needs
    # its data. It ends this one, or that looks whether it is still there.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
