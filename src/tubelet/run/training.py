"""The verb of both pre-training and fine-tuning: run a recipe in a folder, to its end."""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch

from tubelet.checkpoints.model_folder import write_model
from tubelet.errors import UserError, plural
from tubelet.files import exclusive, held_open, replacing, write_json
from tubelet.models.card import ModelCard
from tubelet.recipe.loading import load_recipe, to_yaml
from tubelet.recipe.schema import FinetuneRecipe, Recipe
from tubelet.run.finetuning import build_finetuning
from tubelet.run.pretraining import build_pretraining
from tubelet.run.run_record import FAILURES_FILE, LOG_FILE, RECIPE_FILE
from tubelet.settings import difference, to_plain
from tubelet.train.checkpoint import CheckpointStore
from tubelet.train.loggers import Console, JsonLines, Logger, Logs, TensorBoard, WeightsAndBiases
from tubelet.train.loop import fit
from tubelet.train.runtime import Runtime

_FOLDER_ADVICE = (
    "Choose another folder with --out, or write the run's recipe.yaml again from its recipe and settings: "
    "`tubelet recipe show RECIPE [KEY=VALUE ...]` prints it"
)

_LONGER_RUN_ADVICE = (
    "\nThe learning rate of every step depends on optim.epochs, so a run cannot be made longer: to train its "
    "model further, start another run with init={run} and another --out"
)


def run_recipe(recipe: Recipe, out: Path | str, *, after_s: float | None = None) -> dict[str, float]:
    """Run a recipe to its end, from the last checkpoint in `out` if there is one.

    Writes into `out`: `recipe.yaml`, `log.jsonl`, `last.pt` to resume from, the model (`model.safetensors`,
    `config.json`) and, with validation, the best one in `best/`.

    Args:
        recipe: what to run.
        out: the run's folder; it is created if it does not exist.
        after_s: expected seconds of the jobs that follow. If they are given, the printed time left includes
            them.

    Returns:
        The newest value of everything logged.

    Raises:
        UserError: something that the user can fix, such as a folder with the run of another recipe.
    """
    out = Path(out)
    with Runtime(recipe.runtime) as runtime, RunFolder(out, recipe) as run_folder:
        runtime.on_main(run_folder.claim_existing)
        torch.manual_seed(recipe.seed)
        begun = out if (out / "last.pt").is_file() else None
        if isinstance(recipe, FinetuneRecipe):
            training = build_finetuning(recipe, runtime, begun)
        else:
            training = build_pretraining(recipe, runtime, begun)
        runtime.on_main(run_folder.begin)

        task, loader = training.task, training.loader
        store = CheckpointStore(
            out,
            export=lambda folder, weights, metrics: write_model(
                folder,
                task.model,
                task.model_weights(weights),
                _with_results(task.model.card, recipe, metrics),
            ),
            is_in_place=run_folder.is_in_place,
        )
        try:
            with Logs(*make_loggers(recipe, out, runtime, after_s)) as logs:
                metrics = fit(
                    task,
                    loader,
                    recipe.optim,
                    runtime,
                    store,
                    logs=logs,
                    save=recipe.save,
                    log=recipe.log,
                    seed=recipe.seed,
                    validate=training.validate,
                    score=training.score,
                    validated_on=training.validated_on,
                )
        finally:  # also if the run stops because of them
            if runtime.is_main and loader.failures and run_folder.is_in_place():
                write_json(out / FAILURES_FILE, loader.failures)
        if runtime.is_main and loader.failures:
            videos = plural(len(loader.failures), "video was", "videos were")
            print(f"{videos} unreadable and replaced: see {out / 'failures.json'}")
        elif runtime.is_main:
            (out / FAILURES_FILE).unlink(missing_ok=True)
    return metrics


def make_loggers(recipe: Recipe, out: Path, runtime: Runtime, after_s: float | None = None) -> list[Logger]:
    """Return the loggers of the main process.

    They are console, file, TensorBoard if it is installed, and W&B if the recipe asks for it.

    Raises:
        UserError: W&B is asked for and not installed, or cannot start.
    """
    if not runtime.is_main:
        return []
    console = Console(recipe.optim.epochs, after_s=after_s)
    loggers: list[Logger] = [console, JsonLines(out / LOG_FILE)]
    try:
        loggers.append(TensorBoard(out / "tensorboard"))
    except UserError as error:  # an optional dependency
        _report_once(f"{error}; log.jsonl has all numbers, too")
    if recipe.log.wandb:
        loggers.append(WeightsAndBiases(out, recipe.log.wandb, to_plain(recipe)))
    return loggers


def _with_results(card: ModelCard, recipe: Recipe, metrics: Mapping[str, float]) -> ModelCard:
    """Return a card that records the metrics of a validation."""
    if not metrics or not isinstance(recipe, FinetuneRecipe):
        return card
    data = {"data": recipe.data.root.resolve().name, "list": recipe.data.val}
    result = {**data, "metrics": dict(metrics), "how": "by Tubelet, at the end of an epoch of the training"}
    return replace(card, provenance={**card.provenance, "results": [result]})


@cache
def _report_once(message: str) -> None:
    print(message, file=sys.stderr)


class RunFolder:
    """The folder of a run, as a context manager. Once it is claimed, no other process can train in it.

    Args:
        path: the folder.
        recipe: what is going to run in it.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.recipe = recipe
        self._lock = ExitStack()
        self._claimed = False
        self._is_same: Callable[[], bool] = lambda: True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def claim_existing(self) -> None:
        """Lock the folder, if it exists, and check that the recipe can start or resume in it.

        Raises:
            UserError: another process uses the folder, or it has the run of another recipe.
        """
        if not self.path.is_dir():
            return
        self._lock.enter_context(exclusive(self.path))
        self._is_same = self._lock.enter_context(held_open(self.path))
        self._claimed = True
        if (self.path / RECIPE_FILE).exists():
            self._require_same_recipe()
        elif (self.path / "last.pt").exists():
            raise UserError(f"{self.path} has a run without recipe.yaml. {_FOLDER_ADVICE}")

    def begin(self) -> None:
        """Make and claim the folder, if it is new, and write the recipe into it."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._claimed:
            self.claim_existing()
        if not (self.path / RECIPE_FILE).exists():
            with replacing(self.path / RECIPE_FILE) as temporary:
                temporary.write_text(to_yaml(self.recipe), encoding="utf-8")

    def is_in_place(self) -> bool:
        """Return whether the folder that `begin` claimed still has its path and its recipe."""
        return self._is_same() and (self.path / RECIPE_FILE).exists()

    def _require_same_recipe(self) -> None:
        try:
            old = identity(load_recipe(str(self.path / RECIPE_FILE)))
        except UserError as error:
            raise UserError(f"the run in {self.path} cannot be resumed: {error}\n{_FOLDER_ADVICE}") from None
        changed = difference(old, identity(self.recipe))
        if changed:
            listed = "\n  ".join(changed)
            longer = any(change.startswith("optim.epochs:") for change in changed)
            raise UserError(
                f"{self.path} has the run of another recipe; choose another folder with --out, or remove it. "
                f"The differences (old -> new):\n  {listed}"
                + (_LONGER_RUN_ADVICE.format(run=self.path) if longer else "")
            )


def _resolved(path: str) -> str:
    return str(Path(path).resolve())


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return what makes two runs the same, as plain data: not where they run and what they log."""
    settings = to_plain(recipe)
    init, data = settings["init"], settings["data"]
    more_roots = [source | {"root": _resolved(source["root"])} for source in data["more_roots"]]
    kept = settings | {
        "init": str(Path(init).resolve()) if init and Path(init).exists() else init,
        "data": data | {"root": _resolved(data["root"]), "more_roots": more_roots, "workers": None},
        "optim": settings["optim"] | {"accumulate": 1},  # the steps have the same videos
        "save": {"every_epochs": settings["save"]["every_epochs"]},
        "runtime": {"precision": settings["runtime"]["precision"]},
    }
    return {key: value for key, value in kept.items() if key not in ("log", "published")}
