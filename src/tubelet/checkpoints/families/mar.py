"""MAR (alibaba-mmai-research/Masked-Action-Recognition)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tubelet.checkpoints import shapes
from tubelet.checkpoints.families import videomae
from tubelet.checkpoints.families.family import Family
from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.checkpoints.model_folder import Config
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.tables import BlockNames, Constant, Entry, Rename, Weights, affine, blocks
from tubelet.errors import UserError
from tubelet.masking import RunningCellMasking
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.heads import BridgingHeadConfig
from tubelet.models.positions import fixed_table

_BRIDGE = BlockNames(
    norm1="norm", norm2="norm_ffn", qkv=("attn.to_qkv",), bias=None, up="ffn.net.0", down="ffn.net.3"
)


class MAR(Family):
    """MAR: classifiers with their decoder, and the pre-trained VideoMAE models that they start from."""

    name = "mar"
    title = "MAR"
    layouts = ("mar",)
    head = "bridging"

    def matches(self, weights: Mapping[str, Tensor]) -> bool:
        """Return whether tensors have MAR's names."""
        return "backbone.patch_embed.proj.weight" in weights and "encoder_to_decoder.weight" in weights

    def read_config(self, file: Checkpoint, hints: ArchitectureHints) -> Config:
        """Return the architecture; the masking's ratio is from the file's settings, else one half."""
        size = shapes.tubelet(file, "backbone.patch_embed.proj.weight")
        hints = shapes.clip_size(file, hints, "pos_embed", size)
        encoder = videomae.read_videomae_encoder(file, hints, "backbone.")
        decoder = videomae.read_decoder(file, hints)
        if not any(name.startswith("cls_head.") for name in file.weights):
            return AutoencoderConfig(encoder=encoder, decoder=decoder)
        if "encoder_to_cls_decoder.weight" not in file.weights:
            raise UserError(
                f"{file.source} is a MAR model with a linear head instead of its bridging classifier, which "
                "is not supported: no published file has it"
            )
        bridge = shapes.width(file, "encoder_to_cls_decoder.weight")
        return ClassifierConfig(
            encoder=encoder,
            head=BridgingHeadConfig(
                dim=bridge,
                depth=shapes.depth(file, "cls_head.blocks"),
                heads=shapes.num_heads(file, hints, "bridge_heads", bridge, 128),
                mlp_dim=shapes.width(file, "cls_head.blocks.0.ffn.net.0.weight"),
            ),
            classes=shapes.width(file, "cls_head.head.weight"),
            masking=RunningCellMasking(ratio=_ratio(file)),
            decoder=decoder,
        )

    def table(self, config: Config, file: Checkpoint | None = None) -> Iterator[Entry]:
        """Yield an entry for each tensor; a converted VideoMAE file is without what MAR computes."""
        encoder, decoder = config.encoder, config.decoder
        assert decoder
        classifier = isinstance(config, ClassifierConfig)
        if classifier if file is None else "pos_embed" in file.weights:
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
        # MAR's code never uses this token.
        yield Constant("cls_head.mask_token", torch.zeros(1, 1, head.dim), check=False)
        yield from blocks("head.transformer.blocks", "cls_head.blocks", head.depth, _BRIDGE)
        yield from affine("head.norm", "cls_head.norm")
        yield from affine("head.classify", "cls_head.head")

    def refusal(self, config: Config) -> str | None:
        """Refuse classifiers without decoder, too."""
        if isinstance(config, ClassifierConfig) and config.head.kind == self.head and config.decoder is None:
            return "a model without its decoder: its code always has one"
        return super().refusal(config)

    def content(self, config: Config, card: ModelCard, weights: Weights) -> dict[str, Any]:
        """Return the members of a file: the weights, and settings with the masking's ratio."""
        if isinstance(config, ClassifierConfig) and config.masking:
            settings = {"TRAIN": {"MAE": {"MASK_RATIO": config.masking.ratio}}}
            return {"model_state": weights, "cfg": json.dumps(settings)}
        return {"model_state": weights}


def _ratio(file: Checkpoint) -> float:
    try:
        return float(json.loads(file.others["cfg"])["TRAIN"]["MAE"]["MASK_RATIO"])
    except (KeyError, TypeError, ValueError):
        return 0.5
