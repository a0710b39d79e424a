"""The runs of a sweep: recipes, order, shared pre-trainings and shares of tasks."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tubelet.errors import UserError
from tubelet.masking import RandomMasking, RunningCellMasking
from tubelet.recipe.loading import load_recipe
from tubelet.sweep.plan import Changes, plan_sweep, require_lists
from tubelet.sweep.schema import Arm, PretrainStage, Sweep
from tubelet.sweep.share import Share

OUT = Path("out")


def sweep(**changes: Any) -> Sweep:
    arms = {"half": Arm(), "random, 75 %": Arm(settings={"masking": {"kind": "random", "ratio": "0.75"}})}
    return Sweep(**{"recipe": "demo/finetune_mar", "arms": arms, "seeds": (0, 1)} | changes)


def test_all_arms_have_a_run_with_the_first_seed_first() -> None:
    runs = plan_sweep(sweep(settings={"optim.epochs": "3"}), OUT)
    assert [(run.arm, run.seed) for run in runs] == [
        ("half", 0), ("random, 75 %", 0), ("half", 1), ("random, 75 %", 1),
    ]  # fmt: skip
    assert runs[2].recipe == load_recipe("demo/finetune_mar", "optim.epochs=3", "seed=1")
    assert runs[3].recipe.masking == RandomMasking(ratio=0.75)
    assert len({run.folder for run in runs}) == 4


def test_what_an_arm_changes_stays() -> None:
    changes = Changes.parse(["masking.ratio=0.25", "optim.epochs=2", "test.views.clips=5"])
    half, random = plan_sweep(sweep(seeds=(0,)), OUT, changes)
    assert half.recipe.masking == RunningCellMasking(ratio=0.25)
    assert random.recipe.masking == RandomMasking(ratio=0.75)
    assert random.recipe.optim.epochs == 2
    assert random.tests[""].views.clips == 5


def test_arms_share_the_pretraining_that_they_do_not_change() -> None:
    arms = {
        "a": Arm(),
        "b": Arm(settings={"masking.ratio": "0.25"}),
        "c": Arm(pretrain={"masking.ratio": "0.5"}),
        "d": Arm(pretrain={"masking.ratio": "0.5"}, settings={"optim.epochs": "2"}),
        "e": Arm(settings={"init": "model.pth"}),
    }
    stage = PretrainStage(recipe="demo/pretrain", settings={"optim.epochs": "4"})
    runs = plan_sweep(sweep(arms=arms, pretrain=stage), OUT, Changes.parse(["pretrain.data.root=there"]))
    folders = {(run.arm, run.seed): run.pretraining and run.pretraining.folder for run in runs}
    assert folders["a", 0] == folders["b", 0] != folders["a", 1]
    assert folders["c", 0] == folders["d", 0] != folders["a", 0]
    assert folders["e", 0] is None
    for run in runs:
        if run.pretraining:
            assert run.recipe.init == str(run.pretraining.folder)
            assert run.pretraining.recipe.seed == run.seed
            assert run.pretraining.recipe.optim.epochs == 4
            assert run.pretraining.recipe.data.root == Path("there")
            assert run.pretraining.recipe.masking.ratio == (0.5 if run.arm in "cd" else 0.9)
    later = {"first": Arm(pretrain={"masking.ratio": "0.5"}), **arms}
    for run in plan_sweep(sweep(arms=later, pretrain=stage), OUT):
        assert folders.get((run.arm, run.seed), folders["c", run.seed]) == (
            run.pretraining and run.pretraining.folder
        )
    own = plan_sweep(sweep(pretrain=stage), OUT, Changes.parse(["init=model.pth"]))
    assert {run.recipe.init for run in own} == {"model.pth"}


def test_a_test_has_its_own_settings_and_the_device_of_the_training() -> None:
    tests = {"all": {"masking": {"kind": "running_cell", "ratio": "0"}}, "own": {}}
    arms = {"a": Arm(tests=tests)}
    runs = plan_sweep(
        sweep(arms=arms, settings={"runtime.device": "cpu"}, test={"protocol": "mar_ssv2"}), OUT
    )
    every, own = runs[0].tests.values()
    assert every.masking == RunningCellMasking(ratio=0)
    assert own.masking is None
    assert own.protocol == every.protocol == "mar_ssv2"
    assert own.runtime.device == "cpu"


def test_all_mistakes_are_found_at_once_with_their_arm() -> None:
    arms = {
        "good": Arm(),
        "typo": Arm(settings={"masking.ration": "0.5"}),
        "range": Arm(settings={"masking.ratio": "2"}),
        "test": Arm(tests={"t": {"masking.ratio": "x"}}),
        "pretrain": Arm(pretrain={"optim.epochs": "1"}),
    }
    with pytest.raises(UserError) as error:
        plan_sweep(sweep(arms=arms, seeds=(0,)), OUT)
    message = str(error.value)
    assert "arm 'good'" not in message
    for arm, words in (
        ("typo", "masking.ration"),
        ("range", "masking"),
        ("test", "test 't'"),
        ("pretrain", ""),
    ):
        assert f"arm '{arm}'" in message
        assert words in message
    for wrong in (
        sweep(recipe="demo/pretrain"),
        sweep(pretrain=PretrainStage(recipe="demo/finetune_mar")),
        sweep(arms={"50 %": Arm(), "50%": Arm()}),
        sweep(arms={"%": Arm()}),
    ):
        with pytest.raises(UserError):
            plan_sweep(wrong, OUT)


def test_lists_that_are_missing_are_found_before_the_first_run(motion: Path, tmp_path: Path) -> None:
    require_lists(plan_sweep(sweep(settings={"data.root": str(motion)}), OUT))
    settings = {"data.root": str(motion), "data.val": "valid"}
    runs = plan_sweep(sweep(settings=settings, test={"data.root": str(tmp_path)}), OUT)
    with pytest.raises(UserError) as error:
        require_lists(runs)
    assert "valid" in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_shares_have_every_run_once() -> None:
    runs = plan_sweep(sweep(seeds=(0, 1, 2)), OUT)
    for of in (1, 2, 4, 8):
        selected = [run.folder for number in range(of) for run in Share(number + 1, of).select(runs)]
        assert Counter(selected) == Counter(run.folder for run in runs)
    assert Share.parse("3/8") == Share(3, 8)
    for wrong in ("", "3", "0/8", "9/8", "a/b", "1/2/3"):
        with pytest.raises(UserError, match="share"):
            Share.parse(wrong)


def test_a_task_of_a_slurm_array_has_its_share() -> None:
    def share(task: int, count: int, least: int, step: int = 1) -> Share:
        names = {"ID": task, "COUNT": count, "MIN": least, "STEP": step}
        return Share.of_slurm({f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in names.items()})

    assert Share.of_slurm({}) == Share(1, 1)
    assert [share(task, 4, 0) for task in range(4)] == [Share(k, 4) for k in (1, 2, 3, 4)]
    assert [share(task, 3, 5, 10) for task in (5, 15, 25)] == [Share(k, 3) for k in (1, 2, 3)]
    for wrong in ((9, 3, 1, 1), (4, 3, 1, 2)):
        with pytest.raises(UserError, match="SLURM_ARRAY_TASK_ID"):
            share(*wrong)
