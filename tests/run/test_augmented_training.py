"""Runs with all that fine-tuning's published recipes do to their clips."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tubelet.checkpoints.load import load_model
from tubelet.data.augment import mirrored_classes
from tubelet.demo.motion_clips import CLASSES
from tubelet.recipe.schema import Recipe
from tubelet.run.training import run_recipe

Load = Callable[..., Recipe]
FULL = (
    "data.augment={randaugment: {}, crop: {kind: resized, scale: [0.08, 1]}, flip: 0.5, flip_labels: swap,"
    " erasing: {}}",
    "data.repeats=2",
    "mixing={}",
    "optim.epochs=1",
    "log.every_steps=1",
)


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize(
    "clip", ["videomae", "videomae_segment", "fixed_duration", "mar_segment", "mmaction2"]
)
def test_published_clips_and_augmentation_train(tiny_recipe: Load, tmp_path: Path, clip: str):
    recipe = tiny_recipe("finetune", *FULL, f"data.clip={{kind: {clip}, frames: 4}}")
    metrics = run_recipe(recipe, tmp_path / "run")
    assert math.isfinite(metrics["loss"])
    assert load_model(tmp_path / "run").card.clip == recipe.data.clip


@pytest.mark.slow
def test_a_run_with_mixing_repeats_itself(tiny_recipe: Load, trained: Path, tmp_path: Path):
    for run in ("one", "two"):
        torch.manual_seed(len(run))
        run_recipe(tiny_recipe("mar", *FULL, init=trained / "pretrain"), tmp_path / run)
    one, two = (load_model(tmp_path / run).state_dict() for run in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    run_recipe(tiny_recipe("mar", *FULL, "mixing=null", init=trained / "pretrain"), tmp_path / "plain")
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    assert losses(tmp_path / "one")[0] != losses(tmp_path / "plain")[0]


def test_the_made_data_set_can_be_mirrored():
    assert None not in mirrored_classes(CLASSES)
