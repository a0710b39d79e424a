"""Track which video each worker process decodes, so that a video that crashes its worker is identified."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray
from pathlib import Path

from torch.utils.data import get_worker_info

from tubelet.video.sources import TIME_LIMIT_S, VideoError

HANG_LIMIT_S = 2 * TIME_LIMIT_S
"""Seconds after which decoding one video counts as hung; it has timed out long before if it still runs."""


class CrashGuard:
    """Shared by the worker processes that decode and the process that waits for them.

    Args:
        num_workers: processes that decode.
        limit_s: seconds after which a process that decodes one video is ended.

    Attributes:
        limit_s: the limit.
        refused: by video number, what happened when a worker decoded it; it is not decoded again.
    """

    def __init__(self, num_workers: int = 0, limit_s: float = HANG_LIMIT_S) -> None:
        self.refused: dict[int, str] = {}
        self.limit_s = limit_s
        # For each worker its process ID, and the number of the video it decodes plus 1 (0: none).
        self._slots = RawArray("q", 2 * max(1, num_workers))

    @contextmanager
    def decoding(self, index: int, path: Path | str) -> Iterator[None]:
        """Register video number `index` as being decoded by this worker.

        Raises:
            VideoError: it is refused.
        """
        if index in self.refused:
            raise VideoError(f"{path}: {self.refused[index]}")
        worker = get_worker_info()
        if worker is None:
            yield
            return
        slot = 2 * worker.id
        self._slots[slot : slot + 2] = [os.getpid(), index + 1]
        _end_process_after(self.limit_s)
        try:
            yield
        finally:
            _end_process_after(0)
            self._slots[slot + 1] = 0

    def current_video(self, process: int) -> int | None:
        """Return the number of the video that a process decodes, or decoded when it ended."""
        videos = dict(zip(self._slots[::2], self._slots[1::2], strict=True))
        return videos[process] - 1 if videos.get(process) else None


def _end_process_after(seconds: float) -> None:
    """Let the system end this process at that time, even while a decoder does not return to Python; 0: never.

    Not by `faulthandler`: in a forked process its timer waits forever if the parent's was running.
    """
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
