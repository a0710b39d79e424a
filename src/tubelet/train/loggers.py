"""Where the numbers go: a file, a terminal, TensorBoard. A logger has `log(step, values)` and `close()`."""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

import torch
from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from tubelet.errors import UserError
from tubelet.files import replacing
from tubelet.train.runtime import Runtime


class Logger(Protocol):
    """Anything that takes the numbers of a run."""

    def resume(self, step: int) -> None:
        """Called once before the first line: the run goes on after `step`; forget lines of later steps."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the values of optimizer step `step` (counted from 1)."""

    def close(self) -> None:
        """No more lines will come."""


class JsonLines:
    """One JSON object a line: `{"step": 10, "loss": 0.9, ...}`, appended as it comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def resume(self, step: int) -> None:
        """Drop the lines that the resumed run will write again, and one cut short by a kill."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        with replacing(self.path) as path:
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append one line.

        Raises:
            UserError: the disk is full, or the folder is gone.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; make room or mend the folder, then give "
                "the same command again: it goes on from the last checkpoint there"
            ) from error

    def close(self) -> None:
        """Nothing is open between lines."""


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class TensorBoard:
    """Curves for `tensorboard --logdir FOLDER`; needs the extra `track`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("TensorBoard is not installed: pip install 'tubelet[track]'") from error
        self._make_writer = SummaryWriter
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def resume(self, step: int) -> None:
        """Hide what an interrupted run wrote after `step`."""
        self._writer = self._make_writer(str(self._folder), purge_step=step + 1)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add a point to each curve."""
        if self._writer is None:
            self.resume(0)
        assert self._writer is not None
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()


class Console:
    """The run in one line that stays in place on a terminal; elsewhere a plain line now and then.

    Args:
        epochs: epochs of the whole run.
        terminal: where to write; the standard error output by default.
    """

    every_epochs, every_seconds = 0.1, 30.0  # how often a plain line comes, by whichever is sooner

    def __init__(self, epochs: int, terminal: Terminal | None = None) -> None:
        self.epochs = epochs
        self._terminal = terminal or Terminal(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=20), console=self._terminal, transient=True
        )
        self._task = self._progress.add_task("", total=epochs)
        self._first: tuple[float, float] | None = None
        self._said = (-1.0, 0.0)

    def resume(self, step: int) -> None:
        """Nothing to forget."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Show a line of training; validation results, which have no `lr`, stay on the screen."""
        now, epoch = time.monotonic(), values.get("epoch", 0.0)
        self._first = self._first or (epoch, now)
        if "lr" not in values:
            shown = (f"{name} {value:.4g}" for name, value in values.items() if name != "epoch")
            self._terminal.print(f"epoch {epoch:.4g}  " + "  ".join(shown), highlight=False)
            return
        text = _training_line(epoch, self.epochs, values, _time_left(self._first, (epoch, now), self.epochs))
        if self._terminal.is_terminal:
            self._progress.start()
            self._progress.update(self._task, completed=epoch, description=text)
            return
        said_epoch, said_time = self._said
        if epoch - said_epoch >= self.every_epochs or now - said_time >= self.every_seconds:
            self._said = (epoch, now)
            self._terminal.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress.live.is_started:
            self._progress.stop()


def _training_line(epoch: float, epochs: int, values: dict[str, float], left: str) -> str:
    return (
        f"epoch {epoch:.2f}/{epochs}  loss {values.get('loss', float('nan')):.4f}  "
        f"{values.get('clips_per_s', 0):.1f} clips/s  data wait {values.get('data_wait', 0):.0%}  "
        f"lr {values['lr']:.2e}  {left}"
    )


def _time_left(first: tuple[float, float], now: tuple[float, float], epochs: int) -> str:
    """The time left at the speed so far; `first` and `now` are (epoch, seconds)."""
    if now[0] >= epochs:
        return "done"
    if now[0] <= first[0]:
        return "time left unknown"
    seconds = (now[1] - first[1]) / (now[0] - first[0]) * (epochs - now[0])
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min left" if hours or minutes else "less than a minute left"


class Logs:
    """Several loggers as one; use it as a context manager.

    Args:
        loggers: where the numbers go; none at all is fine.
    """

    def __init__(self, *loggers: Logger) -> None:
        self.loggers = loggers

    def resume(self, step: int) -> None:
        """Tell each logger that the run goes on after `step`."""
        for logger in self.loggers:
            logger.resume(step)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Give each logger the values of a step."""
        for logger in self.loggers:
            logger.log(step, values)

    def close(self) -> None:
        """Close each logger."""
        for logger in self.loggers:
            logger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


T = TypeVar("T")


class Meter:
    """Sums values on the device, so that only a log line waits for it, and times the loader."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.restart()

    def restart(self) -> None:
        """Forget everything; the clock starts now."""
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._clips = 0
        self._waited = 0.0
        self._elapsed = 0.0
        self.resume()

    def pause(self) -> None:
        """Stop the clock, as between epochs; what was summed up stays."""
        self._elapsed += time.perf_counter() - self._started

    def resume(self) -> None:
        """The clock goes on."""
        self._started = time.perf_counter()

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with the time spent waiting for each counted as waiting for data."""
        iterator = iter(items)
        while True:
            asked = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - asked
            yield item

    def add(self, losses: dict[str, Tensor], clips: int) -> None:
        """Count one micro-batch of `clips` clips with its scalars."""
        for name, value in losses.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1
        self._clips += clips

    def read(self) -> dict[str, float]:
        """Means over micro-batches and processes, `clips_per_s` over all processes, `data_wait` (0 to 1).

        Starts anew; every process must call it.
        """
        self.pause()
        values = {name: total / self._count for name, total in self._sums.items()}
        speeds = {
            "clips_per_s": self._clips * self.runtime.world / self._elapsed,
            "data_wait": self._waited / self._elapsed,
        }
        device = self.runtime.device
        means = self.runtime.mean(values | {k: torch.tensor(v, device=device) for k, v in speeds.items()})
        self.restart()
        return means
