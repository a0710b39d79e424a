"""Whole sweeps at toy size, on real videos."""

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from tubelet.files import FolderInUseError
from tubelet.recipe.schema import PretrainRecipe, Recipe
from tubelet.run import training
from tubelet.sweep import running
from tubelet.sweep.plan import ArmRun, plan_sweep
from tubelet.sweep.running import read_result, run_sweep, state_of
from tubelet.sweep.schema import Sweep, read_sweep
from tubelet.sweep.share import Share
from tubelet.train.loop import TrainingInterrupted

SWEEP = """
    recipe: FOLDER/mar.yaml
    settings: {optim.epochs: 1}
    pretrain: {recipe: FOLDER/pretrain.yaml, settings: {optim.epochs: 1}}
    seeds: [0, 1]
    arms:
      cell: {tests: {all: {masking: {kind: running_cell, ratio: 0}}, own: {}}}
      random: {settings: {masking: {kind: random, ratio: 0.5}}}
    published: {random: 71.5}
    """


@pytest.fixture
def file(trained: Path, tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(dedent(SWEEP.replace("FOLDER", str(trained))))
    return path


def planned(file: Path, out: Path) -> tuple[Sweep, list[ArmRun]]:
    sweep = read_sweep(str(file))
    return sweep, plan_sweep(sweep, out)


@pytest.mark.slow
def test_a_sweep_runs_each_arm_once_and_writes_its_table(
    file: Path, tmp_path: Path, tubelet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for number in (1, 2, 1):
        assert tubelet("sweep", file, "--out", out, "--share", f"{number}/2")[0] == 0
    _, runs = planned(file, out)
    assert [state_of(run) for run in runs] == ["finished"] * 4
    results = [json.loads((run.folder / "result.json").read_text()) for run in runs]
    assert [set(result["metrics"]) for result in results] == [{"all", "own"}, {""}] * 2
    assert results[0]["gflops"]["all"] > results[0]["gflops"]["own"]
    assert {result["metrics"]["own"]["videos"] for result in results[::2]} == {12}
    assert "reconstruction" in results[0]["training"]
    assert (out / "results.md").read_text().count("2 of 2") == 3
    assert {"results.csv", "results.html", "pretrain", "arms"} <= {path.name for path in out.iterdir()}

    def fail(*_: object) -> None:
        raise AssertionError("a finished run ran again")

    monkeypatch.setattr(running, "run_recipe", fail)
    code, printed, _ = tubelet("sweep", file, "--out", out)
    assert (code, "4 of them finished" in printed, "71.5" in printed) == (0, True, True)
    listed = tubelet("sweep", file, "--out", out, "--dry-run")[1].splitlines()
    assert listed[1] == "random, seed 0 (finished): masking={kind: random, ratio: 0.5}"


@pytest.mark.slow
def test_an_arm_that_fails_is_reported_and_the_others_run(
    file: Path, tmp_path: Path, tubelet: Callable[..., tuple[int, str, str]]
) -> None:
    text = file.read_text().replace("arms:\n", "arms:\n  bad: {settings: {masking.cell: [3, 3]}}\n")
    file.write_text(text.replace("seeds: [0, 1]", "seeds: [0]"))
    out = tmp_path / "out"
    code, printed, error = tubelet("sweep", file, "--out", out)
    assert code == 2
    assert "1 of 3 runs failed" in error
    assert "bad, seed 0" in error
    assert "| bad | 0 of 1 |" in printed
    _, runs = planned(file, out)
    assert [state_of(run) for run in runs] == ["new", "finished", "finished"]
    # A finished arm that the file changes afterwards is another run than that of its folder.
    file.write_text(text.replace("ratio: 0.5}", "ratio: 0.25}").replace("[0, 1]", "[0]"))
    code, _, error = tubelet("sweep", file, "--out", out)
    assert code == 2
    assert "masking.ratio: 0.5 -> 0.25" in error


@pytest.mark.slow
def test_a_pretraining_that_fails_is_tried_once(
    file: Path, tmp_path: Path, tubelet: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "out"
    code, printed, error = tubelet("sweep", file, "--out", out, "--seeds", 5, "pretrain.masking.ratio=0")
    assert code == 2
    assert printed.count("pre-training in") == 1
    assert error.count("its pre-training in") == 4  # each arm's, when it fails and at the end


@pytest.mark.slow
def test_a_signal_ends_the_sweep(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise TrainingInterrupted(3)

    monkeypatch.setattr(running, "run_recipe", interrupted)
    sweep, runs = planned(file, tmp_path / "out")
    with pytest.raises(TrainingInterrupted):
        run_sweep("x", sweep, runs, tmp_path / "out", Share())
    assert [read_result(run) for run in runs] == [None] * 4


@pytest.mark.slow
def test_a_task_waits_for_the_pretraining_of_another(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = iter([True, True, False])

    def run_recipe(recipe: Recipe, out: Path) -> dict[str, float]:
        if isinstance(recipe, PretrainRecipe) and next(busy):
            raise FolderInUseError(f"{out} is in use")
        return training.run_recipe(recipe, out)

    monkeypatch.setattr(running, "_RETRY_S", 0.01)
    monkeypatch.setattr(running, "run_recipe", run_recipe)
    sweep, runs = planned(file, tmp_path / "out")
    run_sweep("x", sweep, runs[:1], tmp_path / "out", Share())
    assert capsys.readouterr().out.count("waiting") == 1
    assert state_of(runs[0]) == "finished"
