"""Running a sweep: one arm after the other, each resumed where it was, and the table after each of them."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tubelet.checkpoints.load import load_model
from tubelet.errors import UserError, plural
from tubelet.files import FolderInUseError, write_json
from tubelet.machine import is_main_process
from tubelet.models.flops import gflops_per_view, parameter_count
from tubelet.progress import Bar
from tubelet.recipe.schema import EvaluateRecipe
from tubelet.run.evaluation import run_test
from tubelet.run.inference import require_classifier
from tubelet.run.run_record import RECIPE_FILE
from tubelet.run.tested_videos import choose_manifest
from tubelet.run.training import identity, run_recipe
from tubelet.settings import to_plain
from tubelet.sweep.plan import ArmRun, Pretraining
from tubelet.sweep.schema import Sweep
from tubelet.sweep.share import Share
from tubelet.sweep.table import write_tables

RESULT = "result.json"
_RETRY_S = 20.0


def run_sweep(name: str, sweep: Sweep, runs: Sequence[ArmRun], out: Path, share: Share) -> None:
    """Run the arms of a share that are not finished, and write the table of all arms after each.

    Args:
        name: of the sweep, for the table.
        sweep: the sweep.
        runs: all of its runs.
        out: folder of the sweep.
        share: which of the runs to run.

    Raises:
        UserError: one or more arms failed; the others have run.
    """
    own = share.select(runs)
    unfinished = [run for run in own if read_result(run) is None]
    _say(f"{out}: {plural(len(own), 'run')}, {len(own) - len(unfinished)} of them finished")
    failures: list[str] = []
    pretrained = _Pretrained()
    for number, run in enumerate(unfinished, start=1):
        _say(f"\n[{number}/{len(unfinished)}] {run.arm}, seed {run.seed}")
        try:
            if run.pretraining:
                pretrained.require(run.pretraining)
            training = run_recipe(run.recipe, run.folder)
            _test(run, training)
        except UserError as error:
            failures.append(f"{run.arm}, seed {run.seed}: {error}")
            _say(f"tubelet: {failures[-1]}", error=True)
        if is_main_process():
            write_tables(name, sweep, results_of(runs), out)
    if is_main_process():
        out.mkdir(parents=True, exist_ok=True)
        table = write_tables(name, sweep, results_of(runs), out)
        print(f"\n{table}\n{out / 'results.html'}")
    if failures:
        listed = "\n  ".join(failures)
        raise UserError(f"{len(failures)} of {plural(len(unfinished), 'run')} failed:\n  {listed}")


@dataclass
class _Pretrained:
    """Pre-trainings that have ended in this call: the error of each that failed."""

    errors: dict[Path, UserError | None] = field(default_factory=dict)

    def require(self, pretraining: Pretraining) -> None:
        """Run a pre-training, or wait while another process runs it."""
        folder = pretraining.folder
        if folder not in self.errors:
            try:
                _say(f"pre-training in {folder}")
                _run_or_wait(pretraining)
                self.errors[folder] = None
            except UserError as error:
                self.errors[folder] = error
        if (failed := self.errors[folder]) is not None:
            raise UserError(f"its pre-training in {folder} failed: {failed}")


def _run_or_wait(pretraining: Pretraining) -> None:
    waiting = False
    while True:
        try:
            run_recipe(pretraining.recipe, pretraining.folder)
            return
        except FolderInUseError:
            if not waiting:
                _say(f"another process pre-trains in {pretraining.folder}: waiting for its end")
            waiting = True
            time.sleep(_RETRY_S)


def _test(run: ArmRun, training: dict[str, float]) -> None:
    """Test the model of a run and write its result."""
    model = require_classifier(load_model(run.folder), str(run.folder))
    metrics, gflops = {}, {}
    for name, test in run.tests.items():
        manifest = choose_manifest(model, run.folder, root=test.data.root, split=test.data.split)
        with Bar("testing" + (f", {name}" if name else "")) as bar:
            progress = bar.show if is_main_process() else None
            result = run_test(test, model, manifest, out=run.folder / "evaluations", progress=progress)
        metrics[name] = result.metrics() | {"videos": len(result.names), "broken": len(result.broken)}
        gflops[name] = gflops_per_view(model, test.masking)
        _say(f"{run.arm}{f', {name}' if name else ''}, seed {run.seed}: {result.headline()}")
    if is_main_process():
        outcome = {"metrics": metrics, "gflops": gflops, "parameters": parameter_count(model)}
        write_json(run.folder / RESULT, _asked(run) | outcome | {"training": training})


def read_result(run: ArmRun) -> dict[str, Any] | None:
    """Return the content of a run's `result.json`; None if it is not finished or of other settings."""
    try:
        result = json.loads((run.folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    asked = _asked(run)
    return result if asked == {key: result.get(key) for key in asked} else None


def state_of(run: ArmRun) -> str:
    """Return `finished`, `started` or `new`."""
    if read_result(run) is not None:
        return "finished"
    return "started" if (run.folder / RECIPE_FILE).exists() else "new"


def results_of(runs: Sequence[ArmRun]) -> list[dict[str, Any]]:
    """Return the results of the runs that are finished."""
    return [result for run in runs if (result := read_result(run)) is not None]


def _asked(run: ArmRun) -> dict[str, Any]:
    """Return what a result depends on, as plain data."""
    tests = {name: _test_identity(test) for name, test in run.tests.items()}
    return {"arm": run.arm, "seed": run.seed, "recipe": identity(run.recipe), "tests": tests}


def _test_identity(test: EvaluateRecipe) -> dict[str, Any]:
    """Return what makes two tests the same: all but where they run."""
    plain = to_plain(test)
    root = test.data.root
    data = plain["data"] | {"root": str(root.resolve()) if root else None, "workers": None}
    runtime = {"precision": plain["runtime"]["precision"]}
    return plain | {"data": data, "runtime": runtime, "batch_size": None}


def _say(text: str, *, error: bool = False) -> None:
    if is_main_process():
        print(text, file=sys.stderr if error else sys.stdout, flush=True)
