"""Loggers of a run's numbers: a file, the terminal, TensorBoard, W&B; and the meter that averages them."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar
from uuid import uuid4

import torch
from rich.console import Console as Terminal
from torch import Tensor

from tubelet.errors import UserError, require_at_least
from tubelet.files import replacing
from tubelet.progress import Bar
from tubelet.train.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """When and where to log; the terminal, `log.jsonl` and TensorBoard (if it is installed) in any case.

    Attributes:
        every_steps: optimizer steps between lines of the log.
        wandb: a project of Weights & Biases to log to as well; empty: none.
    """

    every_steps: int = 10
    wandb: str = ""

    def __post_init__(self) -> None:
        require_at_least(1, every_steps=self.every_steps)


class Logger(Protocol):
    """The interface of all loggers."""

    def resume(self, step: int) -> None:
        """Drop the lines of later steps than `step`, where the run resumes; called before the first line."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the values of optimizer step `step` (from 1)."""

    def advance(self, epoch: float) -> None:
        """Note how far the training is, after each step; whole numbers are the ends of epochs."""

    def close(self) -> None:
        """Finish after the last line."""


MEASURED = ("time", "clips_per_s", "data_wait", "memory_gb")
"""Logged values that differ between equal runs."""


class JsonLines:
    """A file with one JSON object per line: `{"step": 10, "time": "2026-01-31T12:00:00+00:00", ...}`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def resume(self, step: int) -> None:
        """Drop the lines that the resumed run will write again, and an incomplete last line."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        with replacing(self.path) as path:
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append one line.

        Raises:
            UserError: the disk is full, or the folder does not exist.
        """
        with _writing(self.path), self.path.open("a", encoding="utf-8") as file:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            file.write(json.dumps({"step": step, "time": now, **values}) + "\n")

    def advance(self, epoch: float) -> None:
        """Do nothing: only logged values are written."""

    def close(self) -> None:
        """Do nothing: the file is only open while a line is written."""


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}. Free space or repair the folder, then run the same "
            "command again: it resumes from the last checkpoint"
        ) from error


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class TensorBoard:
    """Event files for `tensorboard --logdir FOLDER`; needs the extra `track`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("TensorBoard is not installed: pip install 'tubelet[track]'") from error
        self._make_writer = SummaryWriter
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def resume(self, step: int) -> None:
        """Hide the points of an interrupted run after `step`."""
        with _writing(self._folder):
            self._writer = self._make_writer(str(self._folder), purge_step=step + 1)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add a point to each curve, and write them.

        Raises:
            UserError: the disk is full, or the folder does not exist.
        """
        if self._writer is None:
            self.resume(0)
        assert self._writer is not None
        with _writing(self._folder):
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def advance(self, epoch: float) -> None:
        """Do nothing: only logged values are written."""

    def close(self) -> None:
        """Close the event file; its points are written, so an error is without consequence."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()


class WeightsAndBiases:
    """A run of a project of Weights & Biases.

    It needs the extra `track`, and `wandb login` or `WANDB_MODE=offline`.

    Args:
        folder: the run's folder. Its name is the run's; `wandb/id.txt` in it identifies the run, so that a
            resumed training continues its curves. What it logs again has the same values.
        project: the project.
        settings: shown as the run's configuration.

    Raises:
        UserError: it is not installed, or cannot start.
    """

    def __init__(self, folder: Path, project: str, settings: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError("log.wandb: W&B is not installed: pip install 'tubelet[track]'") from error
        name = folder / "wandb" / "id.txt"
        with _writing(name):
            name.parent.mkdir(parents=True, exist_ok=True)
            if not name.exists():
                name.write_text(uuid4().hex, encoding="utf-8")
            identity = name.read_text(encoding="utf-8").strip()
        try:
            self._run = wandb.init(
                project=project, id=identity, name=folder.name, dir=folder, config=settings, resume="allow"
            )
        except wandb.Error as error:
            raise UserError(
                f"log.wandb: W&B cannot start: {error}. Run `wandb login`, set WANDB_MODE=offline, or leave "
                "log.wandb out"
            ) from error
        self._run.define_metric("*", step_metric="step")  # W&B's own steps cannot go back

    def resume(self, step: int) -> None:
        """Do nothing: points that are logged again are the same."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add a point to each curve; W&B sends it when it can."""
        self._run.log({"step": step, **values})

    def advance(self, epoch: float) -> None:
        """Do nothing: only logged values are sent."""

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class Console:
    """A progress line on a terminal; without a terminal, plain lines at larger intervals.

    Args:
        epochs: epochs of the whole run.
        terminal: where to write; by default standard error.
        after_s: expected seconds of the jobs that follow, as in `Bar`.
    """

    def __init__(
        self, epochs: int, terminal: Terminal | None = None, *, after_s: float | None = None
    ) -> None:
        self.epochs = epochs
        self._bar = Bar(console=terminal, every_s=30.0, every=0.1, after_s=after_s)
        self._values: dict[str, float] = {}

    def resume(self, step: int) -> None:
        """Do nothing: printed lines stay."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Update the progress line; validation results, which have no `lr`, get a line that stays."""
        epoch = values.get("epoch", 0.0)
        if "lr" in values:
            self._values = values
            self._show(epoch)
            return
        parts = (f"{name} {value:.4g}" for name, value in values.items() if name != "epoch")
        line = f"epoch {epoch:.4g}  " + "  ".join(parts)
        self._bar.console.print(line, highlight=False, soft_wrap=True)

    def advance(self, epoch: float) -> None:
        """Renew the progress line of a terminal with the newest logged values."""
        if self._bar.console.is_terminal:
            self._show(epoch)

    def _show(self, epoch: float) -> None:
        line = _short_training_line if self._bar.console.is_terminal else _training_line
        self._bar.show(epoch, self.epochs, line(epoch, self.epochs, self._values))

    def close(self) -> None:
        """Remove the progress line."""
        self._bar.close()


def _training_line(epoch: float, epochs: int, values: dict[str, float]) -> str:
    return (
        f"epoch {epoch:.2f}/{epochs}  loss {values.get('loss', float('nan')):.4f}  "
        f"{values.get('clips_per_s', 0):.1f} clips/s  data wait {values.get('data_wait', 0):.0%}  "
        f"lr {values['lr']:.2e}"
    )


def _short_training_line(epoch: float, epochs: int, values: dict[str, float]) -> str:
    """Return what fits a terminal of 80 columns beside the bar."""
    parts = [f"epoch {epoch:.2f}/{epochs}"]
    if "loss" in values:
        parts.append(f"loss {values['loss']:.4f}")
    if "clips_per_s" in values:
        parts.append(f"{values['clips_per_s']:.0f} clips/s")
    return "  ".join(parts)


class Logs:
    """Any number of loggers as one context manager.

    Args:
        loggers: the loggers; there may be none.
    """

    def __init__(self, *loggers: Logger) -> None:
        self.loggers = loggers

    def resume(self, step: int) -> None:
        """Drop the lines of steps after `step` in each logger."""
        for logger in self.loggers:
            logger.resume(step)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the values of a step in each logger."""
        for logger in self.loggers:
            logger.log(step, values)

    def advance(self, epoch: float) -> None:
        """Note in each logger how far the training is."""
        for logger in self.loggers:
            logger.advance(epoch)

    def close(self) -> None:
        """Close each logger."""
        for logger in self.loggers:
            logger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


T = TypeVar("T")


class Meter:
    """Sums of values, kept on the device so that only log lines synchronize, and the loading time."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.restart()

    def restart(self) -> None:
        """Reset all sums and start the clock."""
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._clips = 0
        self._waited = 0.0
        self._elapsed = 0.0
        self.resume()

    def pause(self) -> None:
        """Stop the clock between epochs and keep the sums."""
        self._elapsed += time.perf_counter() - self._started

    def resume(self) -> None:
        """Start the clock again."""
        self._started = time.perf_counter()

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items and count the time until each one as waiting for data."""
        iterator = iter(items)
        while True:
            started = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - started
            yield item

    def add(self, losses: dict[str, Tensor], clips: int) -> None:
        """Add the scalars of a micro-batch of `clips` clips."""
        for name, value in losses.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1
        self._clips += clips

    def read(self) -> dict[str, float]:
        """Return means over micro-batches and processes, the total `clips_per_s` and `data_wait` (0 to 1).

        It then resets the sums; every process must call it.
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
