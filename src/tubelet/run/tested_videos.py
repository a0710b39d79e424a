"""The list of videos of a test: which one it is, and whether it fits the model."""

import math
from collections.abc import Mapping
from pathlib import Path

from tubelet.checkpoints.model_folder import Model
from tubelet.clips import AnyClip
from tubelet.data.manifest import Manifest, Sample, read_manifest
from tubelet.errors import UserError
from tubelet.models.classifier import VideoClassifier
from tubelet.models.encoder import EncoderConfig


def choose_manifest(
    model: Model, source: object = "the model", *, root: Path | None = None, split: str | None = None
) -> Manifest:
    """Return the list of videos to test a model on.

    Args:
        model: the model, whose card records the data set that it was trained on.
        source: what the user calls it, for messages.
        root: folder of the data set; None is the one that the model was trained on.
        split: the list; None is `test` or, if that is missing or has no labels, the list that training
            validated on.

    Raises:
        UserError: the model does not record its data set, or that is not found; or as `read_manifest`.
    """
    recipe = model.card.provenance.get("recipe")
    own = recipe.get("data", {}) if isinstance(recipe, Mapping) else {}
    if root is None:
        if "root" not in own:
            raise UserError(f"{source} does not record what it was trained on: add data.root=FOLDER")
        root = Path(own["root"])
        if not root.is_dir():
            raise UserError(f"{source} was trained on {root}, which is not found: add data.root=FOLDER")
    if split is not None:
        return read_manifest(root, split)
    for name in ("test", own.get("val") or "val"):
        if (root / f"{name}.csv").is_file():
            manifest = read_manifest(root, name)
            if any(sample.classes for sample in manifest.samples):
                return manifest
    return read_manifest(root, "test")


def require_frames(
    clip: AnyClip, encoder: EncoderConfig, other: str = "", *, setting: str = "data.clip.frames"
) -> None:
    """Raise a UserError if clips have another number of frames than the model takes.

    Args:
        clip: how clips are sampled.
        encoder: the model's encoder.
        other: another setting that can be changed instead, as the end of the message.
        setting: the setting of the clip's frames.
    """
    if clip.frames != encoder.frames:
        raise UserError(
            f"{setting} is {clip.frames}, but the model takes {encoder.frames} frames: set "
            f"{setting}={encoder.frames}{other}"
        )


def check_classes(model: VideoClassifier, manifest: Manifest) -> None:
    """Raise a UserError if a list has other classes than the model, or more per video."""
    listed, trained_on = f"{manifest.root / manifest.split}.csv", model.card.classes
    if len(manifest.classes) != model.config.classes:
        raise UserError(
            f"{listed}: its classes.txt has {len(manifest.classes)} classes, but the model has "
            f"{model.config.classes}: test it on the classes that it was trained on"
        )
    if trained_on and manifest.classes != trained_on:
        raise UserError(
            f"{listed}: the model was trained on other classes: its first are {', '.join(trained_on[:3])}; "
            f"those of classes.txt are {', '.join(manifest.classes[:3])}"
        )
    if manifest.multi_label and not model.card.multi_label:
        raise UserError(
            f"{listed} is multi-label, but the model was trained on one class per video, so that its "
            "probabilities exclude each other: fine-tune it on a multi-label list first"
        )


def seconds_of(sample: Sample) -> float:
    """Return how long a video or segment is, NaN if the list does not say."""
    if sample.frames is not None and sample.fps:
        return sample.frames / sample.fps
    return math.nan if sample.end is None else sample.end - (sample.start or 0.0)
