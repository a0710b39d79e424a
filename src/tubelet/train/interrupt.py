"""Stopping a run in good order: SIGTERM (a scheduler's) and Ctrl-C."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(SystemExit):
    """A run stopped by a signal after saving; the exit code is the shell's, 128 + signal.

    Attributes:
        step: optimizer steps done and saved.
    """

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)
        self.step = step
        self.name = signal.Signals(number).name

    def __str__(self) -> str:
        return f"stopped by {self.name} after step {self.step}; saved: give the same command again to go on"


class CatchSignals:
    """Within it SIGTERM and the first SIGINT only set `caught`; the former handlers come back at the end.

    A second SIGINT acts at once, as without it. Outside the main thread, where Python allows no handlers,
    it does nothing.

    Attributes:
        caught: number of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._former[number] = signal.signal(number, self._catch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.caught = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._former[signal.SIGINT])
