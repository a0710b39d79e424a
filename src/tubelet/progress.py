"""A progress bar with the time that is left."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """A progress bar on a terminal; a plain line every ten seconds where there is no terminal.

    Args:
        what: a short description of the job.
    """

    every_seconds = 10.0

    def __init__(self, what: str) -> None:
        self.what = what
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task(what, total=None)
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def show(self, done: int, total: int) -> None:
        """Report that `done` of `total` steps are finished."""
        self._progress.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= self.every_seconds:
            self._last_line = now
            self._console.print(f"{self.what}: {done} of {total}", highlight=False)
