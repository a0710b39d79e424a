"""Building a fine-tuning run from its recipe."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import CONFIG, Model, read_architecture
from tubelet.data.manifest import Manifest, read_manifest
from tubelet.errors import UserError
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.layers import checkpoint_activations
from tubelet.models.resize import resize_model
from tubelet.models.target import PixelTarget
from tubelet.recipe.schema import FinetuneRecipe, ReconstructionConfig
from tubelet.run.building import Training, make_loader, model_errors, provenance, require_useful_masking
from tubelet.run.evaluation import evaluate_model
from tubelet.settings import difference, to_plain
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
    manifest = read_manifest(recipe.data.root, recipe.data.train)
    validation = _read_validation(recipe.data.root, recipe.data.val, manifest) if recipe.data.val else None
    if not manifest.classes:
        raise UserError(f"{manifest.root} has no classes.txt: fine-tuning needs class names and labels")
    manifest.require_labels()
    own = read_architecture(begun) if begun and (begun / CONFIG).is_file() else None
    start = load_model(recipe.init) if recipe.init and own is None else None
    with model_errors():
        if isinstance(own, ClassifierConfig):
            model = VideoClassifier(own, drop_path=recipe.drop_path)
        else:
            model = make_classifier(recipe, start, len(manifest.classes))
        _check_maskings(recipe, model)
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
        task=make_task(recipe, model),
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


def make_task(recipe: FinetuneRecipe, model: VideoClassifier) -> ClassifyTask:
    """Return the task of a recipe."""
    return ClassifyTask(
        model,
        label_smoothing=recipe.label_smoothing,
        mixing=recipe.mixing,
        reconstruction_weight=recipe.reconstruction.weight if recipe.reconstruction else 0.0,
        masking_start_ratio=recipe.masking_start_ratio,
    )


def _read_validation(root: Path, split: str, train: Manifest) -> Manifest:
    try:
        manifest = read_manifest(root, split)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}. To fine-tune without validation: data.val=null") from None
    manifest.require_labels()
    if manifest.multi_label and not train.multi_label:
        raise UserError(
            f"{manifest.root}: {manifest.split}.csv is multi-label, {train.split}.csv has one class for each "
            "video: both must be of one kind"
        )
    return manifest


def _validation(
    recipe: FinetuneRecipe, model: VideoClassifier, manifest: Manifest, runtime: Runtime
) -> Validate:
    """Return the validation of the training loop: one view of each video."""

    def validate(task: nn.Module) -> dict[str, float]:
        result = evaluate_model(
            model,
            manifest,
            clip=recipe.data.clip,
            views=replace(recipe.views, clips=1, crops=1),
            runtime=runtime,
            workers=recipe.data.workers,
        )
        return result.metrics() | ({"broken": float(len(result.broken))} if result.broken else {})

    return validate


def make_classifier(recipe: FinetuneRecipe, start: Model | None, classes: int) -> VideoClassifier:
    """Return a classifier with a new head, on the encoder of `start` or, without it, on a new encoder.

    Args:
        recipe: encoder, head, masking and reconstruction.
        start: the model of `recipe.init`.
        classes: number of classes.

    Raises:
        UserError: the settings do not fit each other or `start`, or it cannot be resized as they say.
    """
    if start is not None:
        start = _resized(start, recipe)
    encoder = start.config.encoder if start else recipe.encoder
    if encoder is None or (start and recipe.encoder):
        raise UserError(
            "set either init=MODEL, to start from a pre-trained model, or encoder, to start from random "
            f"weights; found {'both: with init, set encoder=null' if encoder else 'neither'}"
        )
    _check_head(recipe, start)
    decoder, target = _decoder_and_target(recipe.reconstruction, start)
    config = ClassifierConfig(
        # A bridging head takes normalized tokens; a linear head has its own norm, after the mean.
        encoder=replace(encoder, final_norm=recipe.head.kind == "bridging"),
        classes=classes,
        head=recipe.head,
        masking=recipe.masking,
        decoder=decoder,
        target=target,
    )
    model = VideoClassifier(config, drop_path=recipe.drop_path)
    if start is not None:
        _copy_weights(start, model, recipe)
    return model


def _resized(start: Model, recipe: FinetuneRecipe) -> Model:
    sizes = {"frames": recipe.frames, "image_size": recipe.image_size}
    try:
        return resize_model(start, **sizes) if any(sizes.values()) else start
    except ValueError as error:
        wanted = ", ".join(f"{name}={size}" for name, size in sizes.items() if size)
        raise UserError(f"the model of init cannot be resized to {wanted}: {error}") from None


def _check_head(recipe: FinetuneRecipe, start: Model | None) -> None:
    """Raise a UserError if the head needs a last LayerNorm that the encoder of `start` does not have."""
    needs_norm = recipe.head.keep_norm if recipe.head.kind == "linear" else start is not None
    if needs_norm and not (start and start.config.encoder.final_norm):
        raise UserError(
            f"head.{'keep_norm=true' if recipe.head.kind == 'linear' else 'kind=bridging'} needs an init "
            "whose encoder ends in a LayerNorm: use a pre-trained model, not a classifier with a linear head"
        )


def _decoder_and_target(
    reconstruction: ReconstructionConfig | None, start: Model | None
) -> tuple[DecoderConfig | None, PixelTarget]:
    """Return the decoder of MAR's second loss, if any, and what it predicts."""
    if reconstruction is None:
        return None, PixelTarget()
    if reconstruction.decoder is not None:
        return reconstruction.decoder, reconstruction.target or PixelTarget()
    if start is None or start.decoder is None:
        raise UserError(
            "reconstruction.decoder is null, but init has no pre-trained decoder: set its architecture"
        )
    learned = start.config.target
    if reconstruction.target not in (None, learned):
        changed = "\n  ".join(difference(to_plain(learned), to_plain(reconstruction.target)))
        raise UserError(
            "reconstruction.decoder is null, but the pre-trained decoder predicts another target than "
            "reconstruction.target: remove reconstruction.target, or set a decoder (init -> recipe):\n  "
            + changed
        )
    return start.decoder.config, learned


def _copy_weights(start: Model, model: VideoClassifier, recipe: FinetuneRecipe) -> None:
    """Copy the pre-trained encoder and, where the recipe keeps them, its last norm and the decoder."""
    kept = model.encoder.state_dict().keys()
    weights = {name: value for name, value in start.encoder.state_dict().items() if name in kept}
    model.encoder.load_state_dict(weights)
    if recipe.head.kind == "linear" and recipe.head.keep_norm:
        model.head.norm.load_state_dict(start.encoder.norm.state_dict())
    if model.decoder and start.decoder and recipe.reconstruction and recipe.reconstruction.decoder is None:
        model.decoder.load_state_dict(start.decoder.state_dict())
