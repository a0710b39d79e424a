"""Resizing a model to clips of another size: its positions are interpolated to another grid of tokens."""

from dataclasses import replace
from typing import TypeVar, overload

from torch import Tensor, nn

from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.layers import DropPath, Transformer
from tubelet.models.positions import resize_table
from tubelet.patches import Size3

Config = TypeVar("Config", EncoderConfig, DecoderConfig)


@overload
def resize_model(
    model: MaskedAutoencoder, *, image_size: int | None = None, frames: int | None = None
) -> MaskedAutoencoder: ...
@overload
def resize_model(
    model: VideoClassifier, *, image_size: int | None = None, frames: int | None = None
) -> VideoClassifier: ...
def resize_model(
    model: MaskedAutoencoder | VideoClassifier, *, image_size: int | None = None, frames: int | None = None
) -> MaskedAutoencoder | VideoClassifier:
    """Return a new model for clips of another size, with the same weights and card except for `frames`.

    Results that the card records are left out: those of the new model are others.

    Training mode, drop path, frozen weights and recomputing of activations are kept too.

    Positions are resized in time, height and width: learned ones are interpolated once, fixed ones are
    computed for the old grid (`position_grid` records it) and interpolated, so a point in the frame and a
    time in the clip keep their vectors. A table computed over the new flat index would not do that: token 200
    is another point in another grid.

    Args:
        model: what to resize; it is not changed.
        image_size: side of the frames in pixels; None keeps it.
        frames: frames of a clip; None keeps it.

    Raises:
        ValueError: a size does not divide into whole tokens, or the head has positions.
    """
    old = model.config.encoder
    if isinstance(model, VideoClassifier) and getattr(model.head, "positions", None) is not None:
        raise ValueError("a bridging head with positions cannot be resized")
    encoder = replace(old, image_size=image_size or old.image_size, frames=frames or old.frames)
    encoder = _for_grid(encoder, old.grid, encoder.grid)
    weights = model.state_dict()
    for part in ("encoder.positions", "decoder.positions"):
        _resize_learned(weights, part, old.grid, encoder.grid)
    resized: MaskedAutoencoder | VideoClassifier
    target = model.config.target
    if target.frames is not None:
        target = replace(target, frames=target.frames * encoder.grid.t // old.grid.t)
    decoder = model.config.decoder and _for_grid(model.config.decoder, old.grid, encoder.grid)
    if isinstance(model.config, AutoencoderConfig):
        assert decoder
        resized = MaskedAutoencoder(replace(model.config, encoder=encoder, decoder=decoder, target=target))
    else:
        assert isinstance(model.config, ClassifierConfig)
        resized = VideoClassifier(replace(model.config, encoder=encoder, decoder=decoder, target=target))
    resized.load_state_dict(weights)
    clip = model.card.clip
    about = {name: value for name, value in model.card.provenance.items() if name != "results"}
    clip = clip and replace(clip, frames=encoder.frames)
    resized.card = replace(model.card, clip=clip, provenance=about)
    _copy_training_state(model, resized)
    weight = next(model.parameters())
    return resized.to(weight.device, weight.dtype)


def _copy_training_state(model: nn.Module, resized: nn.Module) -> None:
    """Copy what is neither in the weights nor in the config; both models consist of the same modules."""
    for module, other in zip(model.modules(), resized.modules(), strict=True):
        other.training = module.training
        if isinstance(module, DropPath) and isinstance(other, DropPath):
            other.rate = module.rate
        if isinstance(module, Transformer) and isinstance(other, Transformer):
            other.recompute = module.recompute
    for weight, other_weight in zip(model.parameters(), resized.parameters(), strict=True):
        other_weight.requires_grad_(weight.requires_grad)


def _for_grid(config: Config, old: Size3, new: Size3) -> Config:
    """Record the grid that fixed positions are computed for, if it differs from the clip's."""
    if config.positions in ("joint", "separable"):
        return config
    native_grid = config.position_grid or (old.t, old.h, old.w)
    return replace(config, position_grid=None if native_grid == new else native_grid)


def _resize_learned(weights: dict[str, Tensor], part: str, old: Size3, new: Size3) -> None:
    for name, before, after in (
        ("table", old, new),
        ("time", Size3(old.t, 1, 1), Size3(new.t, 1, 1)),
        ("space", Size3(1, old.h, old.w), Size3(1, new.h, new.w)),
    ):
        if f"{part}.{name}" in weights:
            weights[f"{part}.{name}"] = resize_table(weights[f"{part}.{name}"], before, after)
