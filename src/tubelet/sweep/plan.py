"""The runs of a sweep: each arm's recipe and tests, for each seed, checked before the first one starts."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tubelet.data.manifest import read_manifest
from tubelet.errors import Problems, UserError
from tubelet.recipe.loading import evaluate_recipe, load_recipe
from tubelet.recipe.schema import EvaluateRecipe, FinetuneRecipe, PretrainRecipe, Recipe
from tubelet.sweep.schema import PretrainStage, Settings, Sweep


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes to a whole sweep, each as "key=value"; what an arm changes stays changed.

    Attributes:
        finetune: changes to the arms' recipe.
        pretrain: changes to the recipe of the pre-training.
        test: changes to the tests.
    """

    finetune: tuple[str, ...] = ()
    pretrain: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: Iterable[str]) -> "Changes":
        """Return the changes of a command line: `pretrain.KEY=VALUE`, `test.KEY=VALUE`, `KEY=VALUE`."""
        words = tuple(words)
        pretrain, test = (
            tuple(word.removeprefix(stage) for word in words if word.startswith(stage))
            for stage in ("pretrain.", "test.")
        )
        return cls(
            finetune=tuple(word for word in words if not word.startswith(("pretrain.", "test."))),
            pretrain=pretrain,
            test=test,
        )


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A pre-training, which arms may share, and the folder of its run."""

    recipe: PretrainRecipe
    folder: Path


@dataclass(frozen=True, kw_only=True)
class ArmRun:
    """An arm with one seed.

    Attributes:
        arm: its name.
        seed: the seed.
        recipe: its fine-tuning.
        pretraining: what its init is made by, if the sweep does that.
        tests: the tests of its model, by name.
        folder: the folder of the run; `result.json` in it has the outcome of the tests.
    """

    arm: str
    seed: int
    recipe: FinetuneRecipe
    pretraining: Pretraining | None
    tests: dict[str, EvaluateRecipe]
    folder: Path


def plan_sweep(sweep: Sweep, out: Path, changes: Changes | None = None) -> list[ArmRun]:
    """Return the runs of a sweep in the folder `out`, all arms with the first seed first.

    Raises:
        UserError: a recipe or setting does not fit; all such problems are in one message.
    """
    changes = changes or Changes()
    arms = sweep.all_arms()
    names = _folder_names(arms)
    problems = Problems()
    runs = [
        problems.attempt(partial(_plan_arm, sweep, arm, seed, out, names, changes))
        for seed in sweep.seeds
        for arm in arms
    ]
    problems.raise_any()
    return [run for run in runs if run is not None]


def require_lists(runs: Sequence[ArmRun]) -> None:
    """Read all lists of videos that the runs need.

    Raises:
        UserError: some cannot be read; all of them are in one message.
    """
    needed = dict.fromkeys((root, split) for run in runs for root, split in _lists(run))
    problems = Problems()
    for root, split in needed:
        problems.attempt(partial(read_manifest, root, split))
    problems.raise_any()


def _lists(run: ArmRun) -> Iterator[tuple[Path, str]]:
    trainings: list[Recipe] = [run.recipe, *([run.pretraining.recipe] if run.pretraining else [])]
    for recipe in trainings:
        yield recipe.data.root, recipe.data.train
        yield from ((more.root, recipe.data.train) for more in recipe.data.more_roots)
    if run.recipe.data.val:
        yield run.recipe.data.root, run.recipe.data.val
    for test in run.tests.values():
        if test.data.root or test.data.split:
            yield test.data.root or run.recipe.data.root, test.data.split or "test"


def _plan_arm(
    sweep: Sweep, arm: str, seed: int, out: Path, names: dict[str, str], changes: Changes
) -> ArmRun:
    own = sweep.all_arms()[arm]
    settings = [*_overrides(sweep.settings), *changes.finetune, *_overrides(own.settings), f"seed={seed}"]
    try:
        pretraining = None
        if sweep.pretrain is not None and not any(each.startswith("init=") for each in settings):
            pretraining = _plan_pretraining(sweep.pretrain, own.pretrain, seed, out, changes)
            settings.append(f"init={json.dumps(str(pretraining.folder))}")
        elif own.pretrain or (changes.pretrain and sweep.pretrain is None):
            raise UserError("it changes a pre-training, but it has none: there is an init, or no pretrain")
        recipe = load_recipe(sweep.recipe, *settings)
        if not isinstance(recipe, FinetuneRecipe):
            raise UserError(f"recipe: {sweep.recipe} is a recipe of `tubelet {recipe.task}`")
        tests = {
            name: _plan_test(name, (*_overrides(sweep.test), *changes.test, *_overrides(test)), recipe)
            for name, test in sweep.tests_of(arm).items()
        }
    except UserError as error:
        raise UserError(f"arm '{arm}': {error}") from None
    folder = out / "arms" / names[arm] / f"seed{seed}"
    return ArmRun(arm=arm, seed=seed, recipe=recipe, pretraining=pretraining, tests=tests, folder=folder)


def _plan_pretraining(
    stage: PretrainStage, own: Settings, seed: int, out: Path, changes: Changes
) -> Pretraining:
    settings = (*_overrides(stage.settings), *changes.pretrain, *_overrides(own), f"seed={seed}")
    recipe = load_recipe(stage.recipe, *settings)
    if not isinstance(recipe, PretrainRecipe):
        raise UserError(f"pretrain.recipe: {stage.recipe} is a recipe of `tubelet {recipe.task}`")
    # By what it changes: arms that come or go later do not change which folder it is.
    changed = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]
    folder = out / "pretrain" / (f"changed-{changed}" if own else "shared") / f"seed{seed}"
    return Pretraining(recipe=recipe, folder=folder)


def _plan_test(name: str, overrides: Sequence[str], recipe: FinetuneRecipe) -> EvaluateRecipe:
    """Return a test, on the device of the training unless its settings say otherwise."""
    where: Settings = {
        "data.workers": recipe.data.workers,
        "runtime.device": recipe.runtime.device,
        "runtime.threads": recipe.runtime.threads,
    }
    return evaluate_recipe(*_overrides(where), *overrides, source=f"test '{name}'" if name else "test")


def _overrides(settings: Settings) -> Iterator[str]:
    """Yield settings of a YAML file as "key=value"."""
    yield from (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items())


def _folder_names(arms: Iterable[str]) -> dict[str, str]:
    """Return the name of each arm's folder: its words, joined by hyphens."""
    names = {arm: re.sub(r"[^\w.]+", "-", arm).strip("-.").lower() for arm in arms}
    owners: dict[str, str] = {}
    for arm, name in names.items():
        if not name or name in owners:
            other = f"as '{owners[name]}'" if name else "which is empty"
            raise UserError(f"arms: '{arm}' has the folder '{name}', {other}: give it another name")
        owners[name] = arm
    return names
