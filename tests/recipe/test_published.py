"""Every shipped recipe of a publication trains as its source does, and trains at all."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from tests.recipe.published_runs import CLASSES, DECODERS, ENCODERS, RUNS, VIDEOS, Run
from tubelet.checkpoints.catalogue import catalogue
from tubelet.checkpoints.families.mae_st import MAEST
from tubelet.checkpoints.families.mar import MAR
from tubelet.checkpoints.families.videomae import VideoMAE
from tubelet.checkpoints.model_folder import Model
from tubelet.checkpoints.tables import Constant
from tubelet.clips import Views
from tubelet.data.augment import Augment, MultiScaleCrop, RandomErasing, ResizedCrop
from tubelet.data.loader import TrainLoader
from tubelet.data.mixing import Mixing
from tubelet.data.protocols import PROTOCOLS
from tubelet.data.randaugment import RandAugment
from tubelet.masking import DualMasking, RandomMasking, RunningCellMasking, TubeMasking
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.classifier import VideoClassifier
from tubelet.models.heads import BridgingHeadConfig, LinearHeadConfig
from tubelet.models.sizes import SizeName
from tubelet.recipe.loading import load_recipe, recipe_names
from tubelet.recipe.schema import FinetuneRecipe, PretrainRecipe
from tubelet.run.finetuning import make_task
from tubelet.run.new_classifier import freeze, make_classifier
from tubelet.tasks.classify import ClassifyTask
from tubelet.tasks.pretrain import PretrainTask
from tubelet.train.optim import learning_rate, parameter_groups

TABLES = {"videomae": VideoMAE(), "videomaev2": VideoMAE(), "mae_st": MAEST(), "mar": MAR()}
PROBE = "videomae/finetune_ssv2_base_linear"

MILLIONS: dict[tuple[str, SizeName], int] = {
    ("videomae", "small"): 22, ("videomae", "base"): 87, ("videomae", "large"): 305,
    ("videomae", "huge"): 633, ("mae_st", "base"): 87, ("mae_st", "large"): 304, ("mae_st", "huge"): 632,
    ("mar", "base"): 94, ("mar", "large"): 311,
}  # fmt: skip
"""Published parameters of classifiers."""


load = cache(load_recipe)


def pretraining(name: str) -> PretrainRecipe:
    recipe = load(name)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def finetuning(name: str) -> FinetuneRecipe:
    recipe = load(name)
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


PRETRAININGS = [name for name in RUNS if "/pretrain_" in name]
FINETUNINGS = [name for name in RUNS if "/finetune_" in name]


@cache
def model_of(name: str) -> Model:
    """The full-size model of a recipe, without memory for its weights."""
    with torch.device("meta"):
        if name in PRETRAININGS:
            return MaskedAutoencoder(pretraining(name).model)
        recipe, run = finetuning(name), RUNS[name]
        assert run.init
        model = make_classifier(recipe, model_of(run.init), CLASSES[run.data])
        if recipe.freeze is not None:
            freeze(model, recipe.freeze)
        return model


def task_of(name: str) -> PretrainTask | ClassifyTask:
    model = model_of(name)
    if isinstance(model, VideoClassifier):
        return make_task(finetuning(name), model)
    return PretrainTask(model, pretraining(name).masking)


def test_every_shipped_recipe_of_a_publication_is_compared_with_it() -> None:
    shipped = {name for name in recipe_names() if not name.startswith(("demo/", "own/"))}
    assert RUNS.keys() == shipped
    assert len(RUNS) >= 55


# ------------------------------------------------------------------------------------------ optimizer


def upstream_names(name: str) -> dict[str, str]:
    """The names that a parameter, by our name, has in the source's code."""
    model = model_of(name)
    entries = [
        entry for entry in TABLES[RUNS[name].family].table(model.config) if not isinstance(entry, Constant)
    ]
    names = {
        ours: entry.theirs if isinstance(entry.theirs, str) else entry.theirs[0]
        for entry in entries
        for ours in ([entry.ours] if isinstance(entry.ours, str) else entry.ours)
    }
    assert names.keys() == dict(model.named_parameters()).keys()
    return names


@pytest.mark.slow
def test_every_parameter_has_the_rate_and_decay_of_its_source_at_every_stage() -> None:
    for name, run in RUNS.items():
        recipe, task, theirs = load(name), task_of(name), upstream_names(name)
        groups = {id(p): group for group in parameter_groups(task, recipe.optim) for p in group["params"]}
        trained = {ours: p for ours, p in task.model.named_parameters() if p.requires_grad}
        assert groups.keys() == {id(p) for p in trained.values()}, name
        steps, depth = run.steps_per_epoch, ENCODERS[run.size][1]
        total, warmup = run.epochs * steps, run.warmup * steps
        stages = {step: run.rate(step / steps) for step in (0, warmup, total // 2, 3 * total // 4, total - 1)}
        resolved = {step: learning_rate(recipe.optim, step, total, warmup) for step in stages}
        assert resolved == pytest.approx(stages, rel=1e-9, abs=1e-15), name
        for ours, parameter in trained.items():
            factor, decay = run.rule(theirs[ours], parameter.ndim == 1, run.layer_decay, depth)
            group = groups[id(parameter)]
            assert math.isclose(group["lr_scale"], factor, rel_tol=1e-9), (name, ours)
            assert group["weight_decay"] == decay * run.weight_decay, (name, ours)


def test_only_the_classifier_of_the_linear_probe_is_trained() -> None:
    trained = {name for name, parameter in model_of(PROBE).named_parameters() if parameter.requires_grad}
    assert trained == {"head.norm.weight", "head.norm.bias", "head.classify.weight", "head.classify.bias"}
    optim = load(PROBE).optim
    assert (optim.algorithm, optim.momentum, optim.weight_decay) == ("sgd", 0.9, 0)


def test_the_peak_of_mar_is_below_its_configured_rate() -> None:
    # As measured with MAR's code on Something-Something: 0.9620 of the rate at the end of the warm-up.
    optim = load_recipe("mar/finetune_ssv2_base_50").optim
    assert learning_rate(optim, 35, 280, 35) == pytest.approx(9.6198e-4, rel=1e-4)


def test_batches_steps_and_the_rest_of_the_optimization_are_those_of_the_source() -> None:
    for name, run in RUNS.items():
        optim = load(name).optim
        assert optim.batch_size == run.batch, name
        videos: Any = MagicMock()
        videos.__len__.return_value = VIDEOS[run.data]
        loader = TrainLoader(videos, batch=optim.batch_size // run.gpus, world=run.gpus)
        assert optim.epochs * len(loader) == run.epochs * (VIDEOS[run.data] // (run.gpus * run.per_gpu)), name
        assert optim.warmup_epochs == run.warmup, name
        assert (optim.algorithm == "sgd", optim.eps, optim.ema) == (name == PROBE, 1e-8, None), name
        assert name == PROBE or optim.betas == run.betas, name
        assert optim.clip_grad == run.clip_grad, name


# ---------------------------------------------------------------------------------------------- model


def blocks(dim: int, depth: int, hidden: int, biases: int) -> int:
    """Parameters of transformer blocks with biases of two (query, value) or three parts of the attention."""
    attention = 4 * dim**2 + (biases + 1) * dim
    return depth * (attention + 2 * dim * hidden + hidden + dim + 2 * 2 * dim)


def decoder(run: Run, name: str) -> int:
    assert run.decoder
    encoder_dim, _, _, side = ENCODERS[run.size]
    dim, depth, hidden = DECODERS[run.decoder]
    learned = run.family == "mae_st"
    values = 3 * side**2 * (1 if learned else 2)  # MAE-ST predicts every second frame
    count = encoder_dim * dim + dim + blocks(dim, depth, hidden, 3 if learned else 2) + 2 * dim
    if learned:
        tokens = 8 * 196
        positions = 1 + 8 + 196 + 1 if name.endswith("_mae_st") else 1 + tokens  # with a token of its own
        count += dim + positions * dim
    return count + dim * values + values


def parameters(run: Run, name: str) -> tuple[int, int]:
    """Parameters without and with the decoder, counted from the published sizes."""
    dim, depth, hidden, side = ENCODERS[run.size]
    learned = run.family == "mae_st"
    count = (2 * 3 * side**2 + 1) * dim + blocks(dim, depth, hidden, 3 if learned else 2)
    if learned:
        count += dim + (1 + 8 + 196) * dim  # class token; positions of it, of times and in the frame
    if run.init is None or run.family == "mar":
        count += 2 * dim  # the encoder's last LayerNorm
    classes = CLASSES.get(run.data, 0)
    if run.family == "mar":
        count += dim * 512 + blocks(512, 2, 2048, 3) + 2 * 512 + 512 * classes + classes
    elif run.init:
        count += 2 * dim + dim * classes + classes
    return count, count + (decoder(run, name) if run.decoder else 0)


@pytest.mark.slow
def test_models_have_the_published_size() -> None:
    for name, run in RUNS.items():
        model = model_of(name)
        without, whole = parameters(run, name)
        assert sum(p.numel() for p in model.parameters()) == whole, name
        published = MILLIONS.get(("videomae" if run.family == "videomaev2" else run.family, run.size))
        if run.data == "k400" and run.init and published:
            assert abs(without / 1e6 - published) < 1, name
        if name.startswith("videomae/pretrain_") and run.size == "base":
            assert whole == 94_210_944, name  # of the released file
        if run.size == "giant":
            assert round(without / 1e8) == 10, name  # "a billion parameters"


def test_a_run_starts_from_a_model_that_is_published_or_that_a_recipe_makes() -> None:
    made = {f"runs/{name.replace('/', '-')}": name for name in RUNS}
    missing = set()
    for name in FINETUNINGS:
        recipe, run = finetuning(name), RUNS[name]
        assert recipe.init
        entry = catalogue().get(recipe.init)
        if entry is not None:
            assert entry.size == run.size, name
        elif recipe.init in made:
            assert made[recipe.init] == run.init, name
        else:
            missing.add(name)
    assert missing == {"videomae/finetune_ssv2_large"}  # its pre-training is not published


# ----------------------------------------------------------------------------------------------- data


def augmentation(run: Run, name: str) -> Augment:
    """The random changes to a clip, as each source has them."""
    sided = run.data == "ssv2"
    if run.family == "mar":
        return Augment(
            randaugment=RandAugment(
                policy="rand-m9-mstd0.5-inc1", fill=(124, 116, 104), cropped=run.data in ("ssv2", "hmdb51")
            ),
            crop=ResizedCrop(scale=(0.08, 1), ratio=(0.75, 1.3333)),
            flip=0.5,
            flip_labels="swap" if sided else "keep",
            erasing=None if run.data == "hmdb51" else RandomErasing(probability=0.25, area=(0.02, 0.33)),
        )
    if run.family == "mae_st" and run.init:
        return Augment(
            randaugment=RandAugment(policy="rand-m7-mstd0.5-inc1"),
            crop=ResizedCrop(scale=(0.08, 1), ratio=(0.75, 1.3333)),
            flip=0.5,
            erasing=RandomErasing(probability=0.25, mean=(0.45,) * 3, std=(0.225,) * 3),
        )
    if run.family == "mae_st":
        return Augment(crop=ResizedCrop(scale=(0.5, 1), ratio=(0.75, 1.3333)), flip=0.5)
    if run.init is None or name == PROBE:
        return Augment(crop=MultiScaleCrop())
    return Augment(
        randaugment=RandAugment(policy="rand-m7-n4-mstd0.5-inc1"),
        crop=ResizedCrop(scale=(0.08, 1), ratio=(3 / 4, 4 / 3)),
        flip=0.0 if sided else 0.5,
        erasing=RandomErasing(probability=0.25),
    )


def test_clips_augmentation_and_results_are_those_of_the_source() -> None:
    for name, run in RUNS.items():
        recipe = load(name)
        data = recipe.data
        assert data.root == Path("data") / ("k710" if run.data == "hybrid" else run.data), name
        assert (data.clip, data.repeats, data.augmented_copies) == (run.clip, run.repeats, run.copies), name
        assert data.augment == augmentation(run, name), name
        assert recipe.published is not None, name
        assert recipe.published.top1 == run.top1, name
        assert recipe.published.source, name
        assert (recipe.runtime.precision == "fp32") == (run.family == "mae_st"), name


def test_v2_has_every_second_frame_of_something_something_and_every_fourth_of_the_rest() -> None:
    for size in ("base", "large", "huge", "giant"):
        data = pretraining(f"videomaev2/pretrain_hybrid_{size}").data
        strides = {data.root.name: data.clip, **{source.root.name: source.clip for source in data.more_roots}}
        assert strides.pop("ssv2") == RUNS["videomae/pretrain_ssv2_base"].clip
        assert set(strides) == {"k710", "ava", "webvid", "instagram"}
        assert set(strides.values()) == {data.clip, None}


def test_masks_of_pre_training_are_those_of_the_source() -> None:
    for name in PRETRAININGS:
        run, masking = RUNS[name], pretraining(name).masking
        if run.family == "videomaev2":
            assert masking == DualMasking(ratio=run.ratio, decoder_ratio=0.5), name
        else:
            assert masking == (RandomMasking if run.family == "mae_st" else TubeMasking)(ratio=run.ratio), (
                name
            )


def test_views_regularization_and_masks_of_fine_tuning_are_those_of_the_source() -> None:
    geometries = {"videomaev2": "videomae"}
    for name in FINETUNINGS:
        run, recipe = RUNS[name], finetuning(name)
        assert (recipe.views.clips, recipe.views.crops) == run.views, name
        assert recipe.views.geometry == geometries.get(run.family, run.family), name
        probe = name == PROBE
        assert recipe.drop_path == run.drop_path, name
        assert recipe.label_smoothing == (0 if probe else 0.1), name
        assert recipe.mixing == (None if probe else Mixing(mixup=0.8, cutmix=1.0)), name
        if run.family == "mar":
            assert recipe.head == BridgingHeadConfig(dim=512, depth=2, heads=4, dropout=run.dropout), name
            assert recipe.masking == RunningCellMasking(ratio=run.ratio), name
            assert recipe.reconstruction is not None, name
            assert recipe.reconstruction.weight == (0.1 if run.data == "ssv2" else 0.01), name
        elif not recipe.keep_head:
            assert isinstance(recipe.head, LinearHeadConfig), name
            keeps = run.family == "mae_st" or name.endswith("_giant_k710")
            assert (recipe.head.dropout, recipe.head.keep_norm) == (run.dropout, keeps), name


def test_ratios_of_masked_fine_tuning_fall_to_none() -> None:
    masked = finetuning("mae_st/finetune_k400_large_masked")
    assert masked.masking == RandomMasking(ratio=0)
    assert masked.masking_start_ratio == 0.5


def test_recipes_are_tested_by_the_protocols_of_their_families() -> None:
    compared = 0
    for name in FINETUNINGS:
        run, recipe = RUNS[name], finetuning(name)
        protocol = PROTOCOLS.get(f"{run.family}_{run.data}")
        if protocol is None:
            continue
        views = recipe.views.with_defaults_of(Views(scores="mean_probability"))
        clips = 10 if name.endswith("_mae_st") else protocol.views.clips  # mae_st's own number
        assert recipe.data.clip == protocol.clip, name
        assert views == replace(protocol.views, clips=clips), name
        assert (protocol.precision == "fp32") == (run.family in ("mae_st", "mar")), name
        compared += 1
    assert compared > 35


def test_classes_are_found_by_name_after_kinetics_710() -> None:
    for data in ("k400", "k600"):
        recipe = finetuning(f"videomaev2/finetune_{data}_giant_k710")
        assert recipe.keep_head
        assert recipe.init_classes == Path("label_map_k710.txt")
    assert [name for name in FINETUNINGS if finetuning(name).keep_head] == [
        "videomaev2/finetune_k400_giant_k710", "videomaev2/finetune_k600_giant_k710",
    ]  # fmt: skip
