"""A progress bar with the time that is left."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from tubelet.errors import excerpt

_MOST_CHARACTERS = 31  # of a description, so that a line fits 80 columns


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
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            _TimeLeft(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task(excerpt(what, _MOST_CHARACTERS), total=None)
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
            left = _left_of(self._progress.tasks[0])
            self._console.print(f"{self.what}: {done} of {total}{left and ', '}{left}", highlight=False)


class _TimeLeft(ProgressColumn):
    """The time that is left, in words."""

    def render(self, task: Task) -> Text:
        return Text(_left_of(task), no_wrap=True)


def _left_of(task: Task) -> str:
    return "" if task.time_remaining is None else time_left(task.time_remaining)


def time_left(seconds: float) -> str:
    """Return a remaining time in words, such as `11 min left`."""
    if seconds < 60:
        return "less than a minute left"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min left" if hours else f"{minutes} min left"
