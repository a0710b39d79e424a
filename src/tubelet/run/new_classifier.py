"""A new classifier: its architecture from a recipe, its weights from the model of `init`."""

import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from tubelet.checkpoints.model_folder import Model
from tubelet.data.manifest import read_names
from tubelet.errors import UserError, excerpt, plural
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.heads import AnyHeadConfig, LinearHead, LinearHeadConfig
from tubelet.models.layers import DropPath
from tubelet.models.resize import resize_model
from tubelet.models.target import PixelTarget
from tubelet.recipe.schema import FinetuneRecipe, ReconstructionConfig
from tubelet.settings import difference, to_plain

_LAST_LAYER = "classify."  # the parameters of a head's last layer
_ONLY_IN_TRAINING = ("dropout", "init_scale", "keep_norm")  # a head's answers do not depend on these settings


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
        encoder=replace(encoder, final_norm=recipe.head.takes_normalized_tokens),
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
    """Raise a UserError if the head needs a last LayerNorm that `start` does not have."""
    is_linear = isinstance(recipe.head, LinearHeadConfig)
    if _keeps_norm(recipe.head) and (start is None or _last_norm(start) is None):
        raise UserError(
            "head.keep_norm=true needs an init that ends in a LayerNorm: a pre-trained model or a classifier "
            "with a linear head"
        )
    if recipe.head.takes_normalized_tokens and start is not None and not start.config.encoder.final_norm:
        setting = "normalize=tokens" if is_linear else f"kind={recipe.head.kind}"
        raise UserError(
            f"head.{setting} needs an init whose encoder ends in a LayerNorm: use a pre-trained model, not a "
            "classifier with a linear head"
        )


def _keeps_norm(head: AnyHeadConfig) -> bool:
    return isinstance(head, LinearHeadConfig) and head.keep_norm


def _last_norm(start: Model) -> nn.LayerNorm | None:
    """Return the LayerNorm after the last block of a model: its encoder's, else that of its linear head."""
    if isinstance(start.encoder.norm, nn.LayerNorm):
        return start.encoder.norm
    head = start.head if isinstance(start, VideoClassifier) else None
    return head.norm if isinstance(head, LinearHead) else None


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
    if _keeps_norm(recipe.head):
        norm = _last_norm(start)
        assert norm is not None
        assert isinstance(model.head, LinearHead)
        model.head.norm.load_state_dict(norm.state_dict())
    if model.decoder and start.decoder and recipe.reconstruction and recipe.reconstruction.decoder is None:
        model.decoder.load_state_dict(start.decoder.state_dict())


def copy_head(recipe: FinetuneRecipe, start: Model, model: VideoClassifier, classes: Sequence[str]) -> None:
    """Copy the head of `start`, and of its last layer the rows of the classes.

    Args:
        recipe: its setting init_classes.
        start: the model of `recipe.init`.
        model: the new classifier; its weights are changed.
        classes: its class names.

    Raises:
        UserError: `start` has no such head, or not all of the classes.
    """
    if not isinstance(start, VideoClassifier) or not start.config.classes:
        raise UserError("keep_head=true needs an init with classes: a fine-tuned model")
    own, given = (
        {name: value for name, value in to_plain(head).items() if name not in _ONLY_IN_TRAINING}
        for head in (start.config.head, recipe.head)
    )
    if own != given:
        changed = "\n  ".join(difference(own, given))
        raise UserError(
            "keep_head=true, but the head of init has another architecture than head (init -> recipe):\n  "
            + changed
        )
    weights = start.head.state_dict()
    rows = torch.tensor(_rows(_names_of(recipe, start), classes, start.config.classes))
    model.head.load_state_dict(
        {name: value[rows] if name.startswith(_LAST_LAYER) else value for name, value in weights.items()}
    )


def _names_of(recipe: FinetuneRecipe, start: VideoClassifier) -> tuple[str, ...]:
    """Return the class names of init: those of the given file or of its card, or ()."""
    if recipe.init_classes is None:
        return start.card.classes
    names = read_names(recipe.init_classes)
    if len(names) != start.config.classes:
        raise UserError(
            f"init_classes={recipe.init_classes}: expected the names of init's {start.config.classes} "
            f"classes, found {len(names)}"
        )
    return names


def _rows(names: Sequence[str], wanted: Sequence[str], count: int) -> list[int]:
    """Return the index among `names` of each wanted class; without names, both must be equally many."""
    if not names:
        if count != len(wanted):
            raise UserError(
                f"keep_head=true: init has {count} classes without names, the data set has {len(wanted)}: "
                "set init_classes to a file with the names of init's classes, one a line"
            )
        return list(range(count))
    exact = {name: index for index, name in enumerate(names)}
    loose = {_loosely(name): index for name, index in exact.items()}
    missing = [name for name in wanted if name not in exact and _loosely(name) not in loose]
    if missing:
        listed = ", ".join(f"'{excerpt(name)}'" for name in missing[:3])
        raise UserError(
            f"keep_head=true: init has no class for {plural(len(missing), 'class', 'classes')} of the data "
            f"set, such as {listed}; its first are {', '.join(names[:3])}. Name them alike (init_classes "
            "gives the names of init's), or set keep_head=false"
        )
    return [exact[name] if name in exact else loose[_loosely(name)] for name in wanted]


def _loosely(name: str) -> str:
    """Return a class name without capitals and punctuation, which lists of one data set differ in."""
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()


def freeze(model: VideoClassifier, part: int | str) -> None:
    """Do not train the encoder, or its embedding and first `part` blocks; they lose their drop path, too.

    Raises:
        UserError: the encoder has fewer blocks.
    """
    encoder = model.encoder
    if isinstance(part, str):
        modules: list[nn.Module] = [encoder]
    elif part > len(encoder.blocks):
        raise UserError(f"freeze={part}: the encoder of init has only {plural(len(encoder.blocks), 'block')}")
    else:
        modules = [encoder.embed, encoder.positions, *encoder.blocks[:part]]
        if encoder.class_token is not None:
            encoder.class_token.requires_grad_(False)
    for module in modules:
        module.requires_grad_(False)
        for inner in module.modules():
            if isinstance(inner, DropPath):
                inner.rate = 0.0
