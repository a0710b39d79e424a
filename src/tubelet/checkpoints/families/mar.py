"""MAR (alibaba-mmai-research/Masked-Action-Recognition)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tubelet.checkpoints import shapes
from tubelet.checkpoints.families import videomae
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.shapes import Given
from tubelet.checkpoints.tables import BlockNames, Constant, Entry, Rename, affine, blocks
from tubelet.errors import UserError
from tubelet.masking import RunningCellMasking
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.heads import BridgingHeadConfig
from tubelet.models.positions import fixed_table

_BRIDGE = BlockNames(
    norm1="norm", norm2="norm_ffn", qkv=("attn.to_qkv",), bias=None, up="ffn.net.0", down="ffn.net.3"
)


def matches(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are MAR's names."""
    return "backbone.patch_embed.proj.weight" in weights and "encoder_to_decoder.weight" in weights


def read_config(file: Checkpoint, given: Given) -> AutoencoderConfig | ClassifierConfig:
    """The architecture; the masking's ratio is from the file's settings, else one half.

    Without a classifier it is a pre-trained VideoMAE under MAR's names, from which its fine-tuning starts.
    """
    weights, source = file.weights, file.source
    size = shapes.tubelet(weights, "backbone.patch_embed.proj.weight", source)
    image_size, frames = shapes.clip_of(weights, "pos_embed", size, given, source)
    given = replace(given, image_size=image_size, frames=frames)
    encoder = videomae.read_encoder(file, "backbone.", given, final_norm=True)
    decoder = videomae.read_decoder(file, given)
    if not any(name.startswith("cls_head.") for name in weights):
        return AutoencoderConfig(encoder=encoder, decoder=decoder)
    if "encoder_to_cls_decoder.weight" not in weights:
        raise UserError(
            f"{source} is a MAR model with a linear head in place of its bridging classifier, which is not "
            "supported: nothing published has it"
        )
    bridge = shapes.width(weights, "encoder_to_cls_decoder.weight", 0, source)
    return ClassifierConfig(
        encoder=encoder,
        head=BridgingHeadConfig(
            dim=bridge,
            depth=shapes.depth(weights, "cls_head.blocks"),
            heads=shapes.bridge_heads(given, bridge, source),
            mlp_dim=shapes.width(weights, "cls_head.blocks.0.ffn.net.0.weight", 0, source),
        ),
        classes=shapes.width(weights, "cls_head.head.weight", 0, source),
        masking=RunningCellMasking(ratio=_ratio(file)),
        decoder=decoder,
    )


def _ratio(file: Checkpoint) -> float:
    try:
        return float(json.loads(file.others["cfg"])["TRAIN"]["MAE"]["MASK_RATIO"])
    except (KeyError, TypeError, ValueError):
        return 0.5


def table(config: AutoencoderConfig | ClassifierConfig, *, constants: bool = True) -> Iterator[Entry]:
    """Every tensor of a MAR file; a converted VideoMAE is without what MAR computes."""
    encoder, decoder = config.encoder, config.decoder
    assert decoder
    if constants:
        for name, value in (("mean", encoder.mean), ("std", encoder.std)):
            yield Constant(name, torch.tensor(value).view(1, len(value), 1, 1, 1))
        yield Constant("pos_embed", fixed_table("sinusoid", encoder.grid, decoder.dim))
    yield from videomae.encoder_table(encoder, "backbone.")
    yield from affine("encoder.norm", "backbone.norm")
    yield from videomae.decoder_table(decoder)
    if isinstance(config, AutoencoderConfig):
        return
    head = config.head
    assert isinstance(head, BridgingHeadConfig)
    yield Rename("head.embed.weight", "encoder_to_cls_decoder.weight")
    yield Constant("cls_head.mask_token", torch.zeros(1, 1, head.dim), check=False)  # nothing reads it
    yield from blocks("head.transformer.blocks", "cls_head.blocks", head.depth, _BRIDGE)
    yield from affine("head.norm", "cls_head.norm")
    yield from affine("head.classify", "cls_head.head")
