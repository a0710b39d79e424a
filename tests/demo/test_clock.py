"""The demo's expected time."""

from pathlib import Path

import pytest

from tubelet.demo import clock
from tubelet.demo.clock import Clock, planned_seconds
from tubelet.demo.motion_videos import SyntheticConfig
from tubelet.recipe.loading import load_recipe
from tubelet.recipe.schema import FinetuneRecipe
from tubelet.train.runtime import Runtime, RuntimeConfig

RUNS = ("pretrain", "finetune_mar", "finetune_full", "finetune_scratch")


def test_finished_steps_correct_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tubelet.demo.clock.time.monotonic", lambda: now[0])
    plan = Clock({"a": 10.0, "b": 20.0, "c": 30.0})
    assert plan.left_s == 60
    with plan.step("a"):
        assert plan.left_s == 50
        now[0] += 15.0  # a slower machine than expected
    assert plan.left_s == 75
    with plan.step("b"):
        now[0] += 30.0
    assert plan.left_s == 45


def test_what_is_finished_is_not_planned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "seconds_per_clip", lambda *_: 0.01)
    data = SyntheticConfig(train=100, val=10, test=10)
    recipes = {run: load_recipe(f"demo/{run}") for run in RUNS}

    def plan() -> dict[str, float]:
        return planned_seconds(tmp_path, data, recipes, 6, RuntimeConfig(device="cpu"))

    whole = plan()
    assert list(whole) == ["data", *RUNS, "tests", "report"]
    assert all(seconds > 0 for seconds in whole.values())
    run = tmp_path / "pretrain"
    run.mkdir()
    epochs = recipes["pretrain"].optim.epochs
    (run / "log.jsonl").write_text(f'{{"epoch": {epochs / 2}}}\n')
    assert whole["pretrain"] / 2 < plan()["pretrain"] < whole["pretrain"]
    (run / "log.jsonl").write_text(f'{{"epoch": {float(epochs)}}}\n')
    with (run / "log.jsonl").open("a") as log:
        log.write('{"epoch": 9')  # cut short by a kill
    assert plan()["pretrain"] == 0
    videos = tmp_path / "data" / "videos" / "train"
    videos.mkdir(parents=True)
    for number in range(120):
        (videos / f"{number}.mp4").touch()
    assert plan() == whole | {"data": 0, "pretrain": 0}


@pytest.mark.slow
def test_the_speed_is_measured() -> None:
    recipe = load_recipe("demo/finetune_scratch")
    assert isinstance(recipe, FinetuneRecipe)
    with Runtime(RuntimeConfig(device="cpu")) as runtime:
        assert 0 < clock.seconds_per_clip(recipe, 12, runtime) < float("inf")
