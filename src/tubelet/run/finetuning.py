"""Building a fine-tuning run from its recipe."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import CONFIG, read_architecture
from tubelet.data.manifest import Manifest, read_manifest
from tubelet.errors import Problems, UserError
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.layers import checkpoint_activations
from tubelet.recipe.schema import FinetuneRecipe
from tubelet.run.building import (
    Training,
    make_loader,
    model_errors,
    provenance,
    read_training_list,
    require_useful_masking,
)
from tubelet.run.evaluation import EvaluationConfig, evaluate_model
from tubelet.run.new_classifier import copy_head, freeze, make_classifier
from tubelet.tasks.classify import ClassifyTask
from tubelet.train.loop import Validate
from tubelet.train.runtime import Runtime


def build_finetuning(recipe: FinetuneRecipe, runtime: Runtime, begun: Path | None = None) -> Training:
    """Build the model, its clips, its task and its validation.

    Args:
        recipe: what to train.
        runtime: the processes and the device.
        begun: the folder of this run if it resumes from a checkpoint, so `init` is not needed.

    Raises:
        UserError: the settings do not fit each other, the data set or `init`.
    """
    own = read_architecture(begun) if begun and (begun / CONFIG).is_file() else None
    problems = Problems()
    manifest = problems.attempt(partial(_read_labeled, recipe))
    validation = problems.attempt(partial(_read_validation, recipe))
    start = problems.attempt(partial(load_model, recipe.init)) if recipe.init and own is None else None
    problems.raise_any()
    assert manifest is not None
    if validation and validation.multi_label and not manifest.multi_label:
        raise UserError(
            f"{validation.root}: {validation.split}.csv is multi-label, {manifest.split}.csv has one class "
            "for each video: both must be of one kind"
        )
    with model_errors():
        if isinstance(own, ClassifierConfig):
            model = VideoClassifier(own, drop_path=recipe.drop_path)
        else:
            model = make_classifier(recipe, start, len(manifest.classes))
            if recipe.keep_head and start is not None:
                copy_head(recipe, start, model, manifest.classes)
        _check_maskings(recipe, model)
        if recipe.freeze is not None:
            freeze(model, recipe.freeze)
    model.card = ModelCard(
        classes=manifest.classes,
        multi_label=manifest.multi_label,
        clip=recipe.data.clip,
        views=recipe.views,
        provenance=provenance(recipe),
    )
    if recipe.runtime.recompute:
        checkpoint_activations(model)
    frames_setting = "frames" if recipe.init else "encoder.frames"
    loader = make_loader(recipe, manifest, model.config.encoder, runtime, frames_setting)
    return Training(
        task=make_task(recipe, model, class_weights(recipe, manifest)),
        loader=loader,
        validate=_validation(recipe, model, validation, runtime) if validation else None,
        score="mAP" if manifest.multi_label else "top1",
        validated_on=validation.fingerprint if validation else "",
    )


def _check_maskings(recipe: FinetuneRecipe, model: VideoClassifier) -> None:
    """Raise a UserError if a masking of the run leaves no token, or needlessly all tokens, visible."""
    if recipe.masking is None:
        return
    if recipe.masking_start_ratio is None:
        require_useful_masking(recipe.masking, model.grid)
        return
    start = replace(recipe.masking, ratio=recipe.masking_start_ratio)
    both = {"masking.ratio": recipe.masking, "masking_start_ratio": start}
    for setting, masking in both.items():
        needs_masked = recipe.reconstruction is not None
        require_useful_masking(masking, model.grid, setting, may_mask_none=not needs_masked)


def make_task(
    recipe: FinetuneRecipe, model: VideoClassifier, weights: Sequence[float] | None = None
) -> ClassifyTask:
    """Return the task of a recipe, with the classes' weights in the loss."""
    return ClassifyTask(
        model,
        label_smoothing=recipe.label_smoothing,
        mixing=recipe.mixing,
        reconstruction_weight=recipe.reconstruction.weight if recipe.reconstruction else 0.0,
        masking_start_ratio=recipe.masking_start_ratio,
        class_weights=weights,
    )


def class_weights(recipe: FinetuneRecipe, manifest: Manifest) -> list[float] | None:
    """Return the factor of each class on the loss, as `recipe.class_weights` says.

    Raises:
        UserError: there are more or fewer weights than classes.
    """
    if recipe.class_weights is None:
        return None
    if recipe.class_weights != "balanced":
        if len(recipe.class_weights) != len(manifest.classes):
            raise UserError(
                f"class_weights: expected a number for each of the {len(manifest.classes)} classes of "
                f"{manifest.root}, found {len(recipe.class_weights)}"
            )
        return list(recipe.class_weights)
    counts = Counter(number for sample in manifest.samples for number in sample.classes)
    share = counts.total() / len(counts)
    return [share / counts[number] if counts[number] else 0.0 for number in range(len(manifest.classes))]


def _read_labeled(recipe: FinetuneRecipe) -> Manifest:
    manifest = read_training_list(recipe.data, labeled=True)
    if not manifest.classes:
        raise UserError(f"{manifest.root} has no classes.txt: fine-tuning needs class names and labels")
    manifest.require_labels()
    return manifest


def _read_validation(recipe: FinetuneRecipe) -> Manifest | None:
    root, split = recipe.data.root, recipe.data.val
    if not split or not root.is_dir():  # that there is no such folder, the training list reports
        return None
    try:
        manifest = read_manifest(root, split)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}. To fine-tune without validation: data.val=null") from None
    manifest.require_labels()
    return manifest


def _validation(
    recipe: FinetuneRecipe, model: VideoClassifier, manifest: Manifest, runtime: Runtime
) -> Validate:
    """Return the validation of the training loop: one view of each video."""
    config = EvaluationConfig(clip=recipe.data.clip, views=replace(recipe.views, clips=1, crops=1))

    def validate(task: nn.Module) -> dict[str, float]:
        result = evaluate_model(model, manifest, config, runtime, workers=recipe.data.workers)
        return result.metrics() | ({"broken": float(len(result.broken))} if result.broken else {})

    return validate
