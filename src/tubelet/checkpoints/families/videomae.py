"""VideoMAE (MCG-NJU/VideoMAE) and VideoMAE V2 (OpenGVLab/VideoMAEv2), with the same names in both."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from tubelet.checkpoints import shapes
from tubelet.checkpoints.families.family import Family
from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.checkpoints.hub import HUB_CONFIG
from tubelet.checkpoints.model_folder import Config
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.tables import BlockNames, Entry, Rename, Weights, affine, blocks, patch_embedding
from tubelet.errors import UserError, short_repr
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import LinearHeadConfig

_BLOCK = BlockNames()


class VideoMAE(Family):
    """VideoMAE and V2: pre-trained models under `encoder.` and `decoder.`, classifiers without a prefix."""

    name = "videomae"
    title = "VideoMAE, VideoMAE V2"
    layouts = ("videomae", "videomaev2")
    model_type = "VideoMAEv2"

    def matches(self, weights: Mapping[str, Tensor]) -> bool:
        """Return whether tensors have VideoMAE's names; MAE-ST's classifiers have other attention."""
        return "encoder.patch_embed.proj.weight" in weights or (
            "patch_embed.proj.weight" in weights and any(name.endswith(".attn.q_bias") for name in weights)
        )

    def read_config(self, file: Checkpoint, hints: ArchitectureHints) -> Config:
        """Return the architecture, from the shapes, the published sizes and the hints."""
        weights, hints = file.weights, _with_hub_config(hints, file)
        if "encoder.patch_embed.proj.weight" in weights:
            if not any(name.startswith("decoder.") for name in weights):
                raise UserError(
                    f"{file.source} has only an encoder, without its decoder (no decoder.*): give the "
                    "pre-trained file as it was published, or a classifier"
                )
            encoder = read_videomae_encoder(file, hints, "encoder.")
            return AutoencoderConfig(encoder=encoder, decoder=read_decoder(file, hints))
        return ClassifierConfig(
            encoder=replace(read_videomae_encoder(file, hints, ""), final_norm=False),
            head=LinearHeadConfig(pool="mean" if "fc_norm.weight" in weights else "first"),
            classes=shapes.width(file, "head.weight") if "head.weight" in weights else 0,
        )

    def table(self, config: Config, file: Checkpoint | None = None) -> Iterator[Entry]:
        """Yield an entry for each tensor."""
        encoder = config.encoder
        if isinstance(config, AutoencoderConfig):
            yield from encoder_table(encoder, "encoder.")
            yield from affine("encoder.norm", "encoder.norm")
            yield from decoder_table(config.decoder)
            return
        yield from encoder_table(encoder, "")
        first = isinstance(config.head, LinearHeadConfig) and config.head.pool == "first"
        yield from affine("head.norm", "norm" if first else "fc_norm")
        if config.classes:
            yield from affine("head.classify", "head")

    def content(self, config: Config, card: ModelCard, weights: Weights) -> dict[str, Any]:
        """Return the members of a file: `module` for classifiers, which DeepSpeed saved."""
        return {"module" if isinstance(config, ClassifierConfig) else "model": weights}


def _with_hub_config(hints: ArchitectureHints, file: Checkpoint) -> ArchitectureHints:
    """Add what V2's folders on the hub record, in a member of their config.json."""
    settings = file.others.get(HUB_CONFIG, {}).get("model_config") or {}
    if not isinstance(settings, dict):
        raise UserError(f"{file.source}/{HUB_CONFIG}: expected settings under model_config")
    for name in ("num_heads", "img_size", "num_frames"):
        if name in settings and (type(settings[name]) is not int or settings[name] < 1):
            raise UserError(
                f"{file.source}/{HUB_CONFIG}: expected {name} to be a whole number from 1, found "
                f"{short_repr(settings[name])}"
            )
    return {
        **hints,
        "heads": hints.get("heads") or settings.get("num_heads"),
        "image_size": settings.get("img_size", hints.get("image_size")),
        "frames": settings.get("num_frames", hints.get("frames")),
    }


def read_videomae_encoder(file: Checkpoint, hints: ArchitectureHints, prefix: str) -> EncoderConfig:
    """Return the architecture of an encoder with VideoMAE's blocks."""
    encoder = shapes.read_encoder(file, hints, prefix=prefix)
    return replace(encoder, layer_scale=_layer_scale(file, f"{prefix}blocks"))


def read_decoder(file: Checkpoint, hints: ArchitectureHints) -> DecoderConfig:
    """Return the architecture of a decoder with VideoMAE's blocks."""
    dim = shapes.width(file, "encoder_to_decoder.weight")
    head_width = 80 if dim == 640 else 64  # VideoMAE's huge model has 8 heads, like its large one.
    return DecoderConfig(
        dim=dim,
        depth=shapes.depth(file, "decoder.blocks"),
        heads=shapes.num_heads(file, hints, "decoder_heads", dim, head_width),
        mlp_dim=shapes.width(file, "decoder.blocks.0.mlp.fc1.weight"),
        layer_scale=_layer_scale(file, "decoder.blocks"),
    )


def _layer_scale(file: Checkpoint, blocks: str) -> float | None:
    """Any first value will do: the trained ones replace it."""
    return 1.0 if f"{blocks}.0.gamma_1" in file.weights else None


def encoder_table(config: EncoderConfig, prefix: str) -> Iterator[Entry]:
    """Yield the entries of the patch embedding and the blocks."""
    yield from patch_embedding(f"{prefix}patch_embed.proj", config.tubelet_size)
    scaled = config.layer_scale is not None
    yield from blocks(
        "encoder.transformer.blocks", f"{prefix}blocks", config.depth, _BLOCK, layer_scale=scaled
    )


def decoder_table(config: DecoderConfig) -> Iterator[Entry]:
    """Yield the entries of the decoder."""
    yield Rename("decoder.embed.weight", "encoder_to_decoder.weight")
    yield Rename("decoder.mask_token", "mask_token")
    scaled = config.layer_scale is not None
    yield from blocks(
        "decoder.transformer.blocks", "decoder.blocks", config.depth, _BLOCK, layer_scale=scaled
    )
    yield from affine("decoder.norm", "decoder.norm")
    yield from affine("decoder.predict", "decoder.head")
