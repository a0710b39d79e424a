"""What a training run has written into its folder: settings, log, videos that could not be read."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tubelet.errors import UserError, did_you_mean
from tubelet.files import read_text
from tubelet.recipe.loading import load_recipe
from tubelet.recipe.schema import Recipe

RECIPE_FILE, LOG_FILE, FAILURES_FILE = "recipe.yaml", "log.jsonl", "failures.json"


@dataclass(frozen=True)
class RunRecord:
    """A training run, finished or not.

    Attributes:
        folder: of the run.
        recipe: its settings.
        recipe_text: the same as YAML.
        lines: what was logged, by name, oldest first; those that are damaged are left out.
        failures: the videos that could not be read, with the reason.
    """

    folder: Path
    recipe: Recipe
    recipe_text: str
    lines: Sequence[Mapping[str, Any]]
    failures: Mapping[str, str]

    @property
    def epoch(self) -> float:
        """Epochs of training that are logged."""
        return max((line["epoch"] for line in self.lines if "epoch" in line), default=0.0)

    @property
    def step(self) -> int:
        """Optimizer steps that are logged."""
        return max((int(line["step"]) for line in self.lines), default=0)

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is logged."""
        return self.epoch >= self.recipe.optim.epochs

    @property
    def times(self) -> tuple[datetime, datetime] | None:
        """When the first and the last line were written; None without lines."""
        stamps = [datetime.fromisoformat(line["time"]) for line in self.lines if "time" in line]
        return (min(stamps), max(stamps)) if stamps else None

    def values(self, name: str) -> list[tuple[float, float]]:
        """Return (epoch, value) of each line that has a finite value of this name."""
        found = ((line.get("epoch"), line.get(name)) for line in self.lines)
        return [
            (float(epoch), float(value))
            for epoch, value in found
            if isinstance(epoch, int | float) and isinstance(value, int | float) and math.isfinite(value)
        ]

    def names(self) -> list[str]:
        """Return the names of everything that was logged, in the order of their first lines."""
        return list(dict.fromkeys(name for line in self.lines for name in line))


def read_run(folder: Path) -> RunRecord:
    """Read the folder of a training run.

    Raises:
        UserError: it is not such a folder, or its recipe cannot be read.
    """
    if not folder.is_dir():
        near = [str(path) for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"{folder}: there is no such folder{did_you_mean(str(folder), near)}")
    if not (folder / RECIPE_FILE).is_file():
        raise UserError(
            f"{folder} is not a training run: expected the {RECIPE_FILE} and {LOG_FILE} that tubelet "
            "pretrain and tubelet finetune write"
        )
    text = read_text(folder / RECIPE_FILE, "the settings of a run")
    log, failures = folder / LOG_FILE, folder / FAILURES_FILE
    return RunRecord(
        folder,
        load_recipe(folder / RECIPE_FILE),
        text,
        _lines(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else [],
        _failures(failures) if failures.is_file() else {},
    )


def _lines(text: str) -> list[dict[str, Any]]:
    lines = []
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # the last line of a process that was killed
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int | float):
            lines.append(values)
    return lines


def _failures(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return {str(name): str(reason) for name, reason in found.items()} if isinstance(found, dict) else {}
