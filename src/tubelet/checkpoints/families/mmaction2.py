"""VideoMAE's classifiers in mmaction2 (open-mmlab/mmaction2)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from tubelet.checkpoints import shapes
from tubelet.checkpoints.families.family import Family
from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.checkpoints.model_folder import Config
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.tables import BlockNames, Constant, Entry, Weights, affine, blocks, patch_embedding
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.heads import LinearHeadConfig
from tubelet.models.positions import fixed_table

_BLOCK = BlockNames(up="mlp.layers.0.0", down="mlp.layers.1")


class MMAction2(Family):
    """mmaction2: only classifiers, with the fixed position table in the file."""

    name = "mmaction2"
    title = "mmaction2"
    layouts = ("mmaction2",)

    def matches(self, weights: Mapping[str, Tensor]) -> bool:
        """Return whether tensors have mmaction2's names."""
        return "backbone.patch_embed.projection.weight" in weights

    def read_config(self, file: Checkpoint, hints: ArchitectureHints) -> ClassifierConfig:
        """Return the architecture; the position table gives the number of tokens."""
        embed = "patch_embed.projection"
        size = shapes.tubelet(file, f"backbone.{embed}.weight")
        hints = shapes.clip_size(file, hints, "backbone.pos_embed", size)
        encoder = shapes.read_encoder(file, hints, prefix="backbone.", embed=embed, up=_BLOCK.up)
        return ClassifierConfig(
            encoder=replace(encoder, final_norm=False),
            head=LinearHeadConfig(),
            classes=shapes.width(file, "cls_head.fc_cls.weight"),
        )

    def table(self, config: Config, file: Checkpoint | None = None) -> Iterator[Entry]:
        """Yield an entry for each tensor; older files are without the position table."""
        encoder = config.encoder
        if file is None or "backbone.pos_embed" in file.weights:
            yield Constant("backbone.pos_embed", fixed_table("sinusoid", encoder.grid, encoder.dim))
        yield from patch_embedding("backbone.patch_embed.projection", encoder.tubelet_size)
        yield from blocks("encoder.transformer.blocks", "backbone.blocks", encoder.depth, _BLOCK)
        yield from affine("head.norm", "backbone.fc_norm")
        yield from affine("head.classify", "cls_head.fc_cls")

    def refusal(self, config: Config) -> str | None:
        """Refuse autoencoders, too."""
        if isinstance(config, AutoencoderConfig):
            return "an autoencoder: its code has only classifiers"
        return super().refusal(config)

    def content(self, config: Config, card: ModelCard, weights: Weights) -> dict[str, Any]:
        """Return the members of a file."""
        return {"state_dict": weights}
