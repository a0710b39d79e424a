"""What the builders of pre-training and fine-tuning have in common."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from tubelet.clips import AnyClip
from tubelet.data.dataset import TrainDataset
from tubelet.data.loader import TrainLoader, default_workers
from tubelet.data.manifest import JoinedManifest, Manifest, join_manifests, read_manifest
from tubelet.errors import Problems, UserError
from tubelet.machine import version
from tubelet.masking import Masking
from tubelet.models.encoder import EncoderConfig
from tubelet.patches import Size3
from tubelet.recipe.schema import DataConfig, Recipe
from tubelet.run.tested_videos import require_frames
from tubelet.settings import to_plain
from tubelet.tasks.classify import ClassifyTask
from tubelet.tasks.pretrain import PretrainTask
from tubelet.train.loop import Validate
from tubelet.train.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the training loop needs, built from a recipe.

    Attributes:
        task: what to train.
        loader: the clips of this process.
        validate: the validation after an epoch; None: without validation.
        score: its metric that selects the best weights.
        validated_on: identifies its videos and labels.
    """

    task: PretrainTask | ClassifyTask
    loader: TrainLoader
    validate: Validate | None = None
    score: str = "top1"
    validated_on: str = ""


@contextmanager
def model_errors() -> Iterator[None]:
    """Raise an error of a model's constructor as a UserError; PyTorch raises RuntimeErrors for huge sizes."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the model's settings do not fit each other: {error}") from error


def require_useful_masking(
    masking: Masking, grid: Size3, setting: str = "masking.ratio", *, may_mask_none: bool = False
) -> None:
    """Raise a UserError if a masking leaves no token visible or none masked, before the first step does."""
    mask = masking.from_noise(grid, torch.zeros(1, masking.noise_size(grid)))
    visible = mask.visible.shape[1]
    if not visible or (visible == grid.volume and not may_mask_none):
        raise UserError(
            f"{setting}={masking.ratio:g} leaves {'all' if visible else 'none'} of the clip's {grid.t} x "
            f"{grid.h} x {grid.w} tokens visible, as it is rounded to whole slots: choose another ratio"
        )


def provenance(recipe: Recipe) -> dict[str, Any]:
    """Return the versions and the recipe for a model's card."""
    return {"tubelet": version(), "torch": torch.__version__, "recipe": to_plain(recipe)}


def read_training_list(data: DataConfig, *, labeled: bool) -> Manifest:
    """Return the videos to train on, of all data sets.

    Args:
        data: the data sets.
        labeled: keep their labels, for which all must have the same classes.

    Raises:
        UserError: a list cannot be read, or the classes differ.
    """
    problems = Problems()
    roots = (data.root, *(source.root for source in data.more_roots))
    parts = [problems.attempt(partial(read_manifest, root, data.train)) for root in roots]
    problems.raise_any()
    found = [part for part in parts if part is not None]
    return join_manifests(found, labeled=labeled) if data.more_roots else found[0]


def make_loader(
    recipe: Recipe, manifest: Manifest, encoder: EncoderConfig, runtime: Runtime, frames_setting: str
) -> TrainLoader:
    """Return the training clips of this process.

    Args:
        recipe: its settings data, optim and seed.
        manifest: the videos.
        encoder: the size of the model's clips.
        runtime: the processes.
        frames_setting: the setting for the model's frames, for an error message.

    Raises:
        UserError: the batch size does not divide among the processes or exceeds the number of videos, or the
            clip does not fit the model.
    """
    data, optim = recipe.data, recipe.optim
    rules = (data.clip, *(source.clip or data.clip for source in data.more_roots))
    for rule in rules:
        require_frames(rule, encoder, f" or {frames_setting}={rule.frames}")
    parts = runtime.world * optim.accumulate
    if optim.batch_size % parts:
        raise UserError(
            f"optim.batch_size={optim.batch_size} does not divide among {runtime.world} processes x "
            f"{optim.accumulate} micro-batches; use a multiple of {parts}"
        )
    if optim.batch_size > len(manifest):
        raise UserError(
            f"optim.batch_size={optim.batch_size} is more than the {len(manifest)} videos of "
            f"{manifest.root / manifest.split}.csv; lower it"
        )
    if data.balanced:
        manifest.require_labels()
    dataset = TrainDataset(
        manifest,
        data.clip,
        data.augment,
        size=encoder.image_size,
        repeats=data.repeats,
        augmented_copies=data.augmented_copies,
        seed=recipe.seed,
        clips=_clip_of_each(manifest, rules),
    )
    return TrainLoader(
        dataset,
        batch=optim.batch_size // parts,
        rank=runtime.rank,
        world=runtime.world,
        workers=default_workers(runtime.device.type) if data.workers is None else data.workers,
        for_gpu=runtime.device.type == "cuda",
        max_failures=data.max_failures,
        balanced=data.balanced,
    )


def _clip_of_each(manifest: Manifest, rules: Sequence[AnyClip]) -> list[AnyClip] | None:
    """Return the rule of each video, or None if all videos have the first one."""
    if not isinstance(manifest, JoinedManifest):
        return None
    return [rule for part, rule in zip(manifest.parts, rules, strict=True) for _ in part.samples]
