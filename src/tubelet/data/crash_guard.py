"""Which video each worker process has in hand, so that one that takes its worker down can be told."""

import faulthandler
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray
from pathlib import Path

from torch.utils.data import get_worker_info

from tubelet.video.sources import TIME_LIMIT, VideoError

LONGEST = 2 * TIME_LIMIT  # seconds; a decoder that does not come back by then never will


class Watch:
    """Shared by the processes that decode and the one that waits for them.

    Args:
        workers: how many processes decode.
        longest: seconds after which a process that has one video in hand is ended.

    Attributes:
        fallen: what the videos did, by number, that took their processes down.
    """

    def __init__(self, workers: int = 0, longest: float = LONGEST) -> None:
        self.fallen: dict[int, str] = {}
        self._longest = longest
        self._slots = RawArray("q", 2 * max(1, workers))  # of each worker its process, and its video from 1

    @contextmanager
    def over(self, index: int, path: Path | str) -> Iterator[None]:
        """Have video number `index` in hand.

        Raises:
            VideoError: it is one of the fallen.
        """
        if index in self.fallen:
            raise VideoError(f"{path}: {self.fallen[index]}")
        worker = get_worker_info()
        if worker is None:
            yield
            return
        place = 2 * worker.id
        self._slots[place : place + 2] = [os.getpid(), index + 1]
        # Ends the process even while a decoder does not return to Python.
        faulthandler.dump_traceback_later(self._longest, exit=True, file=2)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._slots[place + 1] = 0

    def in_hand(self, process: int) -> int | None:
        """The number of the video that a process has in hand, or had when it ended."""
        held = dict(zip(self._slots[::2], self._slots[1::2], strict=True))
        return held[process] - 1 if held.get(process) else None
