"""Every shipped recipe of a publication trains: two steps of a tiny model on real videos."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.published_runs import RUNS
from tubelet.checkpoints.model_folder import Model, write_model
from tubelet.data.manifest import read_manifest, write_manifest
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.heads import BridgingHeadConfig
from tubelet.recipe.loading import load_recipe
from tubelet.recipe.schema import DataSource, FinetuneRecipe, PretrainRecipe, Recipe
from tubelet.run.new_classifier import make_classifier
from tubelet.run.training import run_recipe
from tubelet.train.loggers import LogConfig

VIDEOS = 4
TINY: dict[str, Any] = {"depth": 2, "dim": 16, "heads": 2, "mlp_dim": 16}


@pytest.fixture(scope="session")
def few(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four videos, which are also those to validate on."""
    out = tmp_path_factory.mktemp("few")
    manifest = read_manifest(motion, "train")
    samples = [replace(s, path=str(manifest.locate(s))) for s in manifest.samples[:VIDEOS]]
    for split in ("train", "val"):
        write_manifest(out, split, samples, manifest.classes)
    return out


def tiny(name: str, root: Path) -> Recipe:
    """A recipe with a tiny model, clips of four frames, and two steps on the videos of a data set."""
    recipe = load_recipe(name)
    data = replace(recipe.data, root=root, clip=replace(recipe.data.clip, frames=4), workers=0)
    sources = [
        DataSource(root=root, clip=source.clip and replace(source.clip, frames=4))
        for source in data.more_roots
    ]
    data = replace(data, more_roots=tuple(sources))
    batch = VIDEOS * (1 + len(sources)) // 2
    optim = replace(recipe.optim, batch_size=batch, epochs=1, warmup_epochs=0.5)
    changes: dict[str, Any] = {"data": data, "optim": optim, "log": LogConfig(every_steps=1)}
    recipe = replace(recipe, **changes)
    if isinstance(recipe, PretrainRecipe):
        model = recipe.model
        encoder = replace(model.encoder, frames=4, image_size=32, patch_size=8, **TINY)
        target = replace(model.target, frames=model.target.frames and 2)
        model = replace(model, encoder=encoder, decoder=replace(model.decoder, **TINY), target=target)
        return replace(recipe, model=model)
    if isinstance(recipe.head, BridgingHeadConfig):
        return replace(recipe, head=replace(recipe.head, dim=16, heads=2, mlp_dim=16))
    return recipe


@pytest.fixture(scope="session")
def start(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make the tiny model, in a folder, that a recipe would train."""
    folders: dict[str, Path] = {}
    classes = read_manifest(few, "train").classes

    def model(name: str) -> Model:
        recipe, init = tiny(name, few), RUNS[name].init
        if isinstance(recipe, PretrainRecipe):
            return MaskedAutoencoder(recipe.model)
        assert init
        made = make_classifier(recipe, model(init), len(classes))
        made.card = ModelCard(classes=classes)
        return made

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("start")
            made = model(name)
            write_model(folders[name], made, made.state_dict())
        return folders[name]

    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_trains_its_toy_size(
    name: str, few: Path, start: Callable[[str], Path], tmp_path: Path
) -> None:
    recipe, init = tiny(name, few), RUNS[name].init
    if isinstance(recipe, FinetuneRecipe):
        assert init
        names = recipe.init_classes and few / "classes.txt"
        recipe = replace(recipe, init=str(start(init)), init_classes=names)
    run_recipe(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2
    assert all(0 < loss < 100 for loss in losses)
