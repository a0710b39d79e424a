"""MAE-ST (facebookresearch/mae_st) and its released files, which PySlowFast wrote.

The two differ in the decoder. That of the public code has its own positions and class token; that of the
released files gets the encoder's class token, predicts the first frame of each pair and has other names.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from tubelet.checkpoints import shapes
from tubelet.checkpoints.families.family import Family
from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.checkpoints.model_folder import Config
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.tables import (
    BlockNames,
    ConcatenatedEntry,
    Entry,
    Rename,
    Weights,
    affine,
    blocks,
    patch_embedding,
)
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import LinearHeadConfig
from tubelet.models.positions import PositionKind
from tubelet.models.target import PixelTarget

_MEAN, _STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
_SPLIT = BlockNames(qkv=("attn.q", "attn.k", "attn.v"), bias=None)
_FUSED = BlockNames(bias=None)


@dataclass(frozen=True, kw_only=True)
class _Spelling:
    """The names of a file, where this family has more than one choice.

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

    @property
    def decoder_blocks(self) -> str:
        """The prefix of the decoder's blocks."""
        return "pred_head.transforms.0" if self.released else "decoder_blocks"

    @property
    def predict(self) -> str:
        """The decoder's last layer."""
        return "pred_head.projections.0" if self.released else "decoder_pred"


def _spelling_of(weights: Mapping[str, Tensor]) -> _Spelling:
    released = any(name.startswith("pred_head.") for name in weights)
    spelling = _Spelling(
        released=released,
        encoder=_FUSED if "blocks.0.attn.qkv.weight" in weights else _SPLIT,
        decoder=_SPLIT,
        head="head.projection" if "head.projection.weight" in weights else "head",
    )
    fused = f"{spelling.decoder_blocks}.0.attn.qkv.weight" in weights
    return replace(spelling, decoder=_FUSED) if fused else spelling


def _spelling_to_write(config: Config) -> _Spelling:
    """The public code's, or the released files' if only they have such a decoder."""
    released = isinstance(config, AutoencoderConfig) and config.decoder.class_token == "encoder"
    return _Spelling(released=released, encoder=_SPLIT, decoder=_FUSED if released else _SPLIT)


class MAEST(Family):
    """MAE-ST and PySlowFast: learned positions, queries, keys and values with biases."""

    name = "mae_st"
    title = "MAE-ST"
    layouts = ("mae_st",)

    def matches(self, weights: Mapping[str, Tensor]) -> bool:
        """Return whether tensors have MAE-ST's names."""
        return "patch_embed.proj.weight" in weights and (
            "blocks.0.attn.q.weight" in weights
            or (
                "blocks.0.attn.qkv.bias" in weights
                and any(name in weights for name in ("pos_embed", "pos_embed_spatial"))
            )
        )

    def read_config(self, file: Checkpoint, hints: ArchitectureHints) -> Config:
        """Return the architecture; the learned position tables give frames and image size."""
        weights, spelling = file.weights, _spelling_of(file.weights)
        encoder = _read_encoder(file, hints)
        if "decoder_embed.weight" not in weights:
            head = f"{spelling.head}.weight"
            return ClassifierConfig(
                encoder=replace(encoder, final_norm=False),
                head=LinearHeadConfig(),
                classes=shapes.width(file, head) if head in weights else 0,
            )
        dim, head_width = shapes.width(file, "decoder_embed.weight"), 64 if spelling.released else 32
        num_blocks = shapes.depth(file, spelling.decoder_blocks)
        values = shapes.width(file, f"{spelling.predict}.weight")
        frames = values // (encoder.patch_size**2 * len(encoder.mean)) * encoder.grid.t
        class_token: Literal["learned", "encoder"] | None
        if spelling.released:
            num_blocks -= 1  # The last "block" is the final LayerNorm.
            class_token = "encoder" if encoder.class_token else None
        else:
            class_token = "learned" if "decoder_cls_token" in weights else None
        return AutoencoderConfig(
            encoder=encoder,
            decoder=DecoderConfig(
                dim=dim,
                depth=num_blocks,
                heads=shapes.num_heads(file, hints, "decoder_heads", dim, head_width),
                mlp_dim=shapes.width(file, f"{spelling.decoder_blocks}.0.mlp.fc1.weight"),
                positions="separable" if "decoder_pos_embed_spatial" in weights else "joint",
                class_token=class_token,
                embed_bias=True,
                key_bias=True,
            ),
            target=PixelTarget(
                normalize=None if file.setting("norm_pix_loss") is False else "patch",
                pixels="normalized",
                frames=None if frames == encoder.frames else frames,
                spacing="stride" if spelling.released else "linspace",
            ),
        )

    def table(self, config: Config, file: Checkpoint | None = None) -> Iterator[Entry]:
        """Yield an entry for each tensor."""
        encoder = config.encoder
        spelling = _spelling_of(file.weights) if file else _spelling_to_write(config)
        if encoder.class_token:
            yield Rename("encoder.class_token", "cls_token")
        yield from _positions("encoder", "pos_embed", encoder.positions, class_token=encoder.class_token)
        yield from patch_embedding("patch_embed.proj", encoder.tubelet_size)
        yield from blocks("encoder.transformer.blocks", "blocks", encoder.depth, spelling.encoder)
        if isinstance(config, ClassifierConfig):
            yield from affine("head.norm", "norm")  # It follows the mean, though it has the encoder's name.
            if config.classes:
                yield from affine("head.classify", spelling.head)
            return
        yield from affine("encoder.norm", "norm")
        decoder, prefix = config.decoder, spelling.decoder_blocks
        yield from affine("decoder.embed", "decoder_embed")
        yield Rename("decoder.mask_token", "mask_token")
        if decoder.class_token == "learned":
            yield Rename("decoder.class_token", "decoder_cls_token")
        has_token = decoder.class_token is not None
        yield from _positions("decoder", "decoder_pos_embed", decoder.positions, class_token=has_token)
        yield from blocks("decoder.transformer.blocks", prefix, decoder.depth, spelling.decoder)
        yield from affine(
            "decoder.norm", f"{prefix}.{decoder.depth}" if spelling.released else "decoder_norm"
        )
        yield from affine("decoder.predict", spelling.predict)

    def refusal(self, config: Config) -> str | None:
        """Refuse classifiers without class token, too."""
        refusal = super().refusal(config)
        if refusal is None and isinstance(config, ClassifierConfig) and not config.encoder.class_token:
            return "a classifier without class token: its code drops the first token"
        return refusal

    def content(self, config: Config, card: ModelCard, weights: Weights) -> dict[str, Any]:
        """Return the members of a file: the weights, and the arguments if the target is not the default."""
        content: dict[str, Any] = {"model_state" if _spelling_to_write(config).released else "model": weights}
        if isinstance(config, AutoencoderConfig) and config.target.normalize is None:
            content["args"] = Namespace(norm_pix_loss=False)
        return content


def _read_encoder(file: Checkpoint, hints: ArchitectureHints) -> EncoderConfig:
    size = shapes.tubelet(file, "patch_embed.proj.weight")
    class_token = "cls_token" in file.weights
    kind: PositionKind = "separable" if "pos_embed_spatial" in file.weights else "joint"
    if kind == "separable":
        image_size = shapes.square_side(file, "pos_embed_spatial") * size.h
        frames = shapes.width(file, "pos_embed_temporal", 1) * size.t
        hints = hints | {"image_size": image_size, "frames": frames}
    else:
        tokens = shapes.width(file, "pos_embed", 1) - class_token
        hints = shapes.clip_size_of_tokens(file, hints, tokens, size)
    encoder = shapes.read_encoder(file, hints)
    return replace(encoder, positions=kind, class_token=class_token, key_bias=True, mean=_MEAN, std=_STD)


def _positions(part: str, theirs: str, kind: PositionKind, *, class_token: bool) -> Iterator[Entry]:
    ours = f"{part}.positions"
    if kind == "separable":
        yield Rename(f"{ours}.space", f"{theirs}_spatial")
        yield Rename(f"{ours}.time", f"{theirs}_temporal")
        if class_token:
            yield Rename(f"{ours}.class_position", f"{theirs}_class")
    elif class_token:  # The first row of their table is the class token's.
        yield ConcatenatedEntry((f"{ours}.class_position", f"{ours}.table"), theirs)
    else:
        yield Rename(f"{ours}.table", theirs)
