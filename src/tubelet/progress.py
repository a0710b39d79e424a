"""A progress bar with the time that is left."""

import math
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from tubelet.errors import excerpt

LINE_EVERY_S = 10.0
"""Seconds after which a line is printed where there is no terminal."""
_MOST_CHARACTERS = 26  # of a description, so that a line fits 80 columns


class Bar:
    """A progress bar on a terminal; plain lines at intervals where there is no terminal.

    Args:
        what: a short description of the job.
        console: where to write; by default standard error.
        every_s: without a terminal, seconds after which a line is printed; None is LINE_EVERY_S.
        every: steps after which it is printed before that; the first step then has a line, too.
        after_s: expected seconds of the jobs that follow. If they are given, the time left includes them.
    """

    def __init__(
        self,
        what: str = "",
        *,
        console: Console | None = None,
        every_s: float | None = None,
        every: float = math.inf,
        after_s: float | None = None,
    ) -> None:
        self.what = what
        self.console = console or Console(stderr=True)
        self._progress = Progress(
            BarColumn(bar_width=12),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self.console,
            transient=True,
        )
        self._task = self._progress.add_task(what, total=None)
        self._every_s, self._every = LINE_EVERY_S if every_s is None else every_s, every
        self._after_s = after_s
        self._begun_at: float | None = None  # steps
        self._first: tuple[float, float] | None = None  # steps and time when the first new step was finished
        self._last_line = (-math.inf if every < math.inf else 0.0, time.monotonic())

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self.console.is_terminal:
            self._progress.stop()

    def show(self, done: float, total: float, text: str = "") -> None:
        """Report that `done` of `total` steps are finished, in another text if one is given."""
        now = time.monotonic()
        self._begun_at = done if self._begun_at is None else self._begun_at
        if self._first is None and done > self._begun_at:  # the first step also starts processes
            self._first = (done, now)
        text = text or f"{excerpt(self.what, _MOST_CHARACTERS)}: {done} of {total}"
        text = f"{text}  {_left(self._first, (done, now), total, self._after_s)}"
        if self.console.is_terminal:
            self._progress.start()
            self._progress.update(self._task, completed=done, total=total, description=text)
            return
        last_done, last_time = self._last_line
        if done - last_done >= self._every or now - last_time >= self._every_s:
            self._last_line = (done, now)
            self.console.print(text, highlight=False, soft_wrap=True)


def _left(
    first: tuple[float, float] | None, now: tuple[float, float], total: float, after_s: float | None
) -> str:
    """Return the remaining time at the speed since `first`; both are (steps, seconds)."""
    if now[0] >= total:
        return "done"
    if first is None or now[0] <= first[0]:
        return "time left unknown"
    left_s = (now[1] - first[1]) / (now[0] - first[0]) * (total - now[0])
    return time_left(left_s) if after_s is None else f"{time_left(left_s + after_s)} in all"


def time_left(seconds: float) -> str:
    """Return a remaining time in words, such as `11 min left`."""
    return f"{in_minutes(seconds)} left"


def in_minutes(seconds: float) -> str:
    """Return a duration in words, such as `1 h 05 min`."""
    if seconds < 60:
        return "less than a minute"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
