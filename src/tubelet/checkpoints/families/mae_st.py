"""MAE-ST (facebookresearch/mae_st) and its released files, which PySlowFast wrote.

The two differ in the decoder: the public code has positions and a class token of its own, the released files
hand the encoder's class token on, predict the first frame of each pair and call things by other names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from tubelet.checkpoints import shapes
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.shapes import Given
from tubelet.checkpoints.tables import (
    BlockNames,
    Concatenated,
    Entry,
    Rename,
    affine,
    blocks,
    patch_embedding,
)
from tubelet.errors import UserError
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import LinearHeadConfig
from tubelet.models.positions import PositionKind
from tubelet.models.target import PixelTarget

MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
_SPLIT = BlockNames(qkv=("attn.q", "attn.k", "attn.v"), bias=None)
_FUSED = BlockNames(bias=None)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a file of this family spells what may be spelt in more than one way.

    Attributes:
        released: the decoder's names are those of the released files.
        encoder: names in the encoder's blocks.
        decoder: names in the decoder's blocks.
        head: the classifier's last layer.
    """

    released: bool
    encoder: BlockNames
    decoder: BlockNames
    head: str = "head"


def matches(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are MAE-ST's names."""
    return "patch_embed.proj.weight" in weights and (
        "blocks.0.attn.q.weight" in weights
        or (
            "blocks.0.attn.qkv.bias" in weights
            and any(name in weights for name in ("pos_embed", "pos_embed_spatial"))
        )
    )


def variant_of(weights: Mapping[str, Tensor]) -> Variant:
    """The spelling of a file."""
    released = any(name.startswith("pred_head.") for name in weights)
    painter = "pred_head.transforms.0" if released else "decoder_blocks"
    return Variant(
        released=released,
        encoder=_FUSED if "blocks.0.attn.qkv.weight" in weights else _SPLIT,
        decoder=_FUSED if f"{painter}.0.attn.qkv.weight" in weights else _SPLIT,
        head="head.projection" if "head.projection.weight" in weights else "head",
    )


def variant_for(config: AutoencoderConfig | ClassifierConfig) -> Variant:
    """The spelling to write: the public code's, or where it has no such decoder the released files'."""
    released = isinstance(config, AutoencoderConfig) and config.decoder.class_token == "encoder"
    return Variant(released=released, encoder=_SPLIT, decoder=_FUSED if released else _SPLIT)


def read_config(file: Checkpoint, given: Given) -> AutoencoderConfig | ClassifierConfig:
    """The architecture; the learned position tables tell frames and image size."""
    weights, source = file.weights, file.source
    encoder = _read_encoder(file, given)
    if "decoder_embed.weight" not in weights:
        head = next((k for k in ("head.weight", "head.projection.weight") if k in weights), None)
        return ClassifierConfig(
            encoder=replace(encoder, final_norm=False),
            head=LinearHeadConfig(),
            classes=0 if head is None else shapes.width(weights, head, 0, source),
        )
    variant = variant_of(weights)
    painter = "pred_head.transforms.0" if variant.released else "decoder_blocks"
    projection = "pred_head.projections.0.weight" if variant.released else "decoder_pred.weight"
    dim = shapes.width(weights, "decoder_embed.weight", 0, source)
    parts = shapes.depth(weights, painter)
    if variant.released:
        token = "encoder" if encoder.class_token else None
    else:
        token = "learned" if "decoder_cls_token" in weights else None
    values = shapes.width(weights, projection, 0, source)
    frames = values // (encoder.patch_size**2 * len(encoder.mean)) * encoder.grid.t
    raw = file.setting("norm_pix_loss") is False
    return AutoencoderConfig(
        encoder=encoder,
        decoder=DecoderConfig(
            dim=dim,
            depth=parts - 1 if variant.released else parts,  # the last "block" is the final LayerNorm
            heads=shapes.decoder_heads(given, dim, 64 if variant.released else 32, source),
            mlp_dim=shapes.width(weights, f"{painter}.0.mlp.fc1.weight", 0, source),
            positions="separable" if "decoder_pos_embed_spatial" in weights else "joint",
            class_token=token,  # type: ignore[arg-type]
            embed_bias=True,
            key_bias=True,
        ),
        target=PixelTarget(
            normalize=None if raw else "patch",
            pixels="normalized",
            frames=None if frames == encoder.frames else frames,
            spacing="stride" if variant.released else "linspace",
        ),
    )


def _read_encoder(file: Checkpoint, given: Given) -> EncoderConfig:
    weights, source = file.weights, file.source
    kernel = "patch_embed.proj.weight"
    size, dim = shapes.tubelet(weights, kernel, source), weights[kernel].shape[0]
    class_token = "cls_token" in weights
    kind: PositionKind = "separable" if "pos_embed_spatial" in weights else "joint"
    if kind == "separable":
        places = shapes.width(weights, "pos_embed_spatial", 1, source)
        image_size = shapes.square(places, "pos_embed_spatial", source) * size.h
        frames = shapes.width(weights, "pos_embed_temporal", 1, source) * size.t
    else:
        tokens = shapes.width(weights, "pos_embed", 1, source) - class_token
        image_size, frames = shapes.made_for(tokens, size, given, source)
    return EncoderConfig(
        frames=frames,
        image_size=image_size,
        tubelet=size.t,
        patch_size=size.h,
        dim=dim,
        depth=shapes.depth(weights, "blocks"),
        heads=shapes.encoder_heads(given, dim, source),
        mlp_dim=shapes.width(weights, "blocks.0.mlp.fc1.weight", 0, source),
        positions=kind,
        class_token=class_token,
        key_bias=True,
        mean=MEAN,
        std=STD,
    )


def table(config: AutoencoderConfig | ClassifierConfig, variant: Variant) -> Iterator[Entry]:
    """Every tensor of a MAE-ST file."""
    encoder = config.encoder
    if encoder.class_token:
        yield Rename("encoder.class_token", "cls_token")
    yield from _positions(
        "encoder.positions", "pos_embed", encoder.positions, class_token=encoder.class_token
    )
    yield from patch_embedding("patch_embed.proj", encoder.tubelet_size)
    yield from blocks("encoder.transformer.blocks", "blocks", encoder.depth, variant.encoder)
    if isinstance(config, ClassifierConfig):
        yield from affine("head.norm", "norm")  # after the mean, though the encoder's name
        if config.classes:
            yield from affine("head.classify", variant.head)
        return
    yield from affine("encoder.norm", "norm")
    decoder = config.decoder
    yield from affine("decoder.embed", "decoder_embed")
    yield Rename("decoder.mask_token", "mask_token")
    if decoder.class_token == "learned":
        yield Rename("decoder.class_token", "decoder_cls_token")
    has_token = decoder.class_token is not None
    yield from _positions("decoder.positions", "decoder_pos_embed", decoder.positions, class_token=has_token)
    painter = "pred_head.transforms.0" if variant.released else "decoder_blocks"
    yield from blocks("decoder.transformer.blocks", painter, decoder.depth, variant.decoder)
    norm = f"{painter}.{decoder.depth}" if variant.released else "decoder_norm"
    yield from affine("decoder.norm", norm)
    yield from affine("decoder.predict", "pred_head.projections.0" if variant.released else "decoder_pred")


def _positions(ours: str, theirs: str, kind: PositionKind, *, class_token: bool) -> Iterator[Entry]:
    if kind == "separable":
        yield Rename(f"{ours}.space", f"{theirs}_spatial")
        yield Rename(f"{ours}.time", f"{theirs}_temporal")
        if class_token:
            yield Rename(f"{ours}.class_position", f"{theirs}_class")
    elif class_token:  # one table, its first row the class token's
        yield Concatenated((f"{ours}.class_position", f"{ours}.table"), theirs)
    else:
        yield Rename(f"{ours}.table", theirs)


def refuse(config: AutoencoderConfig | ClassifierConfig) -> None:
    """Whether MAE-ST's code could build this at all.

    Raises:
        UserError: its classifier drops the first token whether it is a class token or not.
    """
    if isinstance(config, ClassifierConfig) and not config.encoder.class_token:
        raise UserError(
            "the layout mae_st cannot hold a classifier without class token: its code drops a token"
        )
