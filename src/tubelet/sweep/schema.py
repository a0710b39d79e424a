"""A sweep file: arms that change a few settings of a recipe, their seeds, tests and published numbers."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tubelet.errors import UserError, did_you_mean, require_at_least
from tubelet.recipe.shipped import shipped_names, yaml_settings, yaml_text
from tubelet.settings import parse

Settings = dict[str, Any]
"""Settings by their dotted names, such as `masking.ratio`; a whole group replaces the recipe's."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one arm changes.

    Attributes:
        settings: settings of the fine-tuning.
        pretrain: settings of the pre-training.
        tests: its tests; null are those of the sweep.
    """

    settings: Settings = field(default_factory=dict)
    pretrain: Settings = field(default_factory=dict)
    tests: dict[str, Settings] | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainStage:
    """The pre-training before the arms.

    Attributes:
        recipe: a recipe of `tubelet pretrain`.
        settings: changes to it.
    """

    recipe: str
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A recipe x arms x seeds, and a table of their results.

    Attributes:
        recipe: a recipe of `tubelet finetune` that all arms change.
        settings: changes to it in all arms.
        pretrain: a pre-training whose model is the arms' init: one run for each seed, shared by the arms that
            do not change it. An arm with its own setting `init` does not use it.
        seeds: each arm runs once with each of these as `seed`.
        arms: what each arm changes, by its name.
        grid: more arms, one for each combination of its axes. An axis is a setting with a list of values, or
            a name with values that each have a name and their settings.
        test: settings of `tubelet evaluate` for all tests; without data.root and data.split they are on the
            data of the training, list test, else val.
        tests: tests of each model, by name, with their settings; without names there is one test.
        metric: what the table compares: top1, top5 or mAP, in percent.
        published: the published metric of a row of the table: `ARM`, or `ARM, TEST` if it has more tests.
        source: where the numbers are published.
    """

    recipe: str
    settings: Settings = field(default_factory=dict)
    pretrain: PretrainStage | None = None
    seeds: tuple[int, ...] = (0,)
    arms: dict[str, Arm] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    test: Settings = field(default_factory=dict)
    tests: dict[str, Settings] = field(default_factory=dict)
    metric: Literal["top1", "top5", "mAP"] = "top1"
    published: dict[str, float] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds must be one or more different numbers, found {list(self.seeds)}")
        for seed in self.seeds:
            require_at_least(0, seeds=seed)
        names = [*self.arms, *(name for name, _ in self._grid_arms())]
        if not names:
            raise UserError("arms is missing: a sweep needs arms, a grid or both")
        if len(set(names)) < len(names):
            raise UserError(f"an arm of the grid has the name of another one; the names: {', '.join(names)}")
        rows = [self.row(arm, test) for arm in names for test in self.tests_of(arm)]
        for row in self.published:
            if row not in rows:
                hint = did_you_mean(row, rows) or f"; the rows are: {' | '.join(rows)}"
                raise UserError(f"published: '{row}' is not a row of the table{hint}")

    def all_arms(self) -> dict[str, Arm]:
        """Return the arms by name, those of the grid last."""
        return self.arms | dict(self._grid_arms())

    def changes_of(self, arm: str) -> str:
        """Return what an arm changes as text; the settings of the pre-training begin with `pretrain.`."""
        own = self.all_arms()[arm]
        changes = own.settings | {f"pretrain.{key}": value for key, value in own.pretrain.items()}
        return " ".join(f"{key}={_as_text(value)}" for key, value in changes.items()) or "no change"

    def tests_of(self, arm: str) -> dict[str, Settings]:
        """Return the tests of an arm by name; without names there is one, whose name is empty."""
        own = self.all_arms()[arm].tests
        return (self.tests if own is None else own) or {"": {}}

    def row(self, arm: str, test: str) -> str:
        """Return the name of a row of the table."""
        return arm if len(self.tests_of(arm)) == 1 else f"{arm}, {test}"

    def _grid_arms(self) -> Iterator[tuple[str, Arm]]:
        axes = [list(_axis_values(axis, values)) for axis, values in self.grid.items()]
        for combination in itertools.product(*axes) if axes else ():
            settings: Settings = {}
            for _, changed in combination:
                settings |= changed
            yield ", ".join(name for name, _ in combination), Arm(settings=settings)


def _axis_values(axis: str, values: Any) -> Iterator[tuple[str, Settings]]:
    """Yield (name, settings) of each value of an axis of the grid."""
    if isinstance(values, list) and values:
        yield from ((f"{axis} {_as_text(value)}", {axis: value}) for value in values)
    elif isinstance(values, Mapping) and values and all(isinstance(each, dict) for each in values.values()):
        yield from ((f"{axis} {name}", changed) for name, changed in values.items())
    else:
        raise UserError(f"grid.{axis} must be a list of values, or names with their settings")


def _as_text(value: Any) -> str:
    """Return a value as one would write it in YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_as_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_text, value)) + "]"
    return "null" if value is None else str(value)


def read_sweep(name: str) -> Sweep:
    """Read a sweep.

    Args:
        name: a shipped sweep (`tubelet sweep list`) or a YAML file.

    Raises:
        UserError: the sweep is not found, or something in it is unknown, missing or wrong.
    """
    return parse(Sweep, yaml_settings("sweep", name), name)


def with_seeds(sweep: Sweep, seeds: str) -> Sweep:
    """Return a sweep with other seeds, such as "0,1,2"."""
    numbers = seeds.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise UserError(f"--seeds must be numbers such as 0,1,2, found '{seeds}'")
    return replace(sweep, seeds=tuple(map(int, numbers)))


def sweep_text(name: str) -> str:
    """Return the text of a sweep's file, with its comments.

    Raises:
        UserError: it is not found.
    """
    return yaml_text("sweep", name)


def sweep_names() -> list[str]:
    """Return the names of the shipped sweeps."""
    return shipped_names("sweep")
