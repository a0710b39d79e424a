"""VideoMAE (MCG-NJU/VideoMAE) and VideoMAE V2 (OpenGVLab/VideoMAEv2): the same names in both."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from tubelet.checkpoints import shapes
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.shapes import Given
from tubelet.checkpoints.tables import BlockNames, Entry, Rename, affine, blocks, patch_embedding
from tubelet.errors import UserError
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import LinearHeadConfig

BLOCK = BlockNames()


def matches(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are VideoMAE's names; MAE-ST's classifiers have other attention."""
    return "encoder.patch_embed.proj.weight" in weights or (
        "patch_embed.proj.weight" in weights and any(name.endswith(".attn.q_bias") for name in weights)
    )


def read_config(file: Checkpoint, given: Given) -> AutoencoderConfig | ClassifierConfig:
    """The architecture, from the shapes, the published sizes and what is given."""
    weights = file.weights
    if "encoder.patch_embed.proj.weight" in weights and not any(
        name.startswith("decoder.") for name in weights
    ):
        raise UserError(
            f"{file.source} holds an encoder alone, without its decoder (no decoder.*): give the pre-trained "
            "file as it was published, or a classifier"
        )
    if "encoder.patch_embed.proj.weight" in weights:
        return AutoencoderConfig(
            encoder=read_encoder(file, "encoder.", given, final_norm=True), decoder=read_decoder(file, given)
        )
    return ClassifierConfig(
        encoder=read_encoder(file, "", given, final_norm=False),
        head=LinearHeadConfig(pool="mean" if "fc_norm.weight" in weights else "first"),
        classes=shapes.width(weights, "head.weight", 0, file.source) if "head.weight" in weights else 0,
    )


def read_encoder(file: Checkpoint, prefix: str, given: Given, *, final_norm: bool) -> EncoderConfig:
    """An encoder of this block type, its names after `prefix`."""
    weights, source = file.weights, file.source
    kernel = f"{prefix}patch_embed.proj.weight"
    size, dim = shapes.tubelet(weights, kernel, source), weights[kernel].shape[0]
    return EncoderConfig(
        frames=given.frames or 16,
        image_size=given.image_size or 224,
        tubelet=size.t,
        patch_size=size.h,
        dim=dim,
        depth=shapes.depth(weights, f"{prefix}blocks"),
        heads=shapes.encoder_heads(given, dim, source),
        mlp_dim=shapes.width(weights, f"{prefix}blocks.0.mlp.fc1.weight", 0, source),
        layer_scale=_layer_scale(weights, f"{prefix}blocks.0.gamma_1"),
        final_norm=final_norm,
    )


def read_decoder(file: Checkpoint, given: Given) -> DecoderConfig:
    """A decoder of this block type."""
    weights, source = file.weights, file.source
    dim = shapes.width(weights, "encoder_to_decoder.weight", 0, source)
    head_width = 80 if dim == 640 else 64  # VideoMAE's huge model has 8 heads, as its large one
    return DecoderConfig(
        dim=dim,
        depth=shapes.depth(weights, "decoder.blocks"),
        heads=shapes.decoder_heads(given, dim, head_width, source),
        mlp_dim=shapes.width(weights, "decoder.blocks.0.mlp.fc1.weight", 0, source),
        layer_scale=_layer_scale(weights, "decoder.blocks.0.gamma_1"),
    )


def _layer_scale(weights: Mapping[str, Tensor], name: str) -> float | None:
    """Whether there is one; where it started no longer matters."""
    return 1.0 if name in weights else None


def table(config: AutoencoderConfig | ClassifierConfig) -> Iterator[Entry]:
    """Every tensor of a VideoMAE file."""
    encoder = config.encoder
    if isinstance(config, ClassifierConfig):
        yield from encoder_table(encoder, "")
        yield from affine("head.norm", "fc_norm" if config.head.pool == "mean" else "norm")  # type: ignore[union-attr]
        if config.classes:
            yield from affine("head.classify", "head")
        return
    yield from encoder_table(encoder, "encoder.")
    yield from affine("encoder.norm", "encoder.norm")
    yield from decoder_table(config.decoder)


def encoder_table(config: EncoderConfig, prefix: str) -> Iterator[Entry]:
    """Patch embedding and blocks."""
    yield from patch_embedding(f"{prefix}patch_embed.proj", config.tubelet_size)
    scaled = config.layer_scale is not None
    yield from blocks(
        "encoder.transformer.blocks", f"{prefix}blocks", config.depth, BLOCK, layer_scale=scaled
    )


def decoder_table(config: DecoderConfig) -> Iterator[Entry]:
    """All of the decoder."""
    yield Rename("decoder.embed.weight", "encoder_to_decoder.weight")
    yield Rename("decoder.mask_token", "mask_token")
    scaled = config.layer_scale is not None
    yield from blocks("decoder.transformer.blocks", "decoder.blocks", config.depth, BLOCK, layer_scale=scaled)
    yield from affine("decoder.norm", "decoder.norm")
    yield from affine("decoder.predict", "decoder.head")
