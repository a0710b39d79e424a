"""VideoMAE's classifiers in mmaction2 (open-mmlab/mmaction2)."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from tubelet.checkpoints import shapes
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.shapes import Given
from tubelet.checkpoints.tables import BlockNames, Constant, Entry, affine, blocks, patch_embedding
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import LinearHeadConfig
from tubelet.models.positions import fixed_table

_BLOCK = BlockNames(up="mlp.layers.0.0", down="mlp.layers.1")


def matches(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are mmaction2's names."""
    return "backbone.patch_embed.projection.weight" in weights


def read_config(file: Checkpoint, given: Given) -> ClassifierConfig:
    """The architecture; the position table in the file tells the number of tokens."""
    weights, source = file.weights, file.source
    kernel = "backbone.patch_embed.projection.weight"
    size, dim = shapes.tubelet(weights, kernel, source), weights[kernel].shape[0]
    image_size, frames = shapes.clip_of(weights, "backbone.pos_embed", size, given, source)
    return ClassifierConfig(
        encoder=EncoderConfig(
            frames=frames,
            image_size=image_size,
            tubelet=size.t,
            patch_size=size.h,
            dim=dim,
            depth=shapes.depth(weights, "backbone.blocks"),
            heads=shapes.encoder_heads(given, dim, source),
            mlp_dim=shapes.width(weights, "backbone.blocks.0.mlp.layers.0.0.weight", 0, source),
            final_norm=False,
        ),
        head=LinearHeadConfig(),
        classes=shapes.width(weights, "cls_head.fc_cls.weight", 0, source),
    )


def table(config: ClassifierConfig, *, positions: bool = True) -> Iterator[Entry]:
    """Every tensor of an mmaction2 file; older ones are without the position table."""
    encoder = config.encoder
    if positions:
        yield Constant("backbone.pos_embed", fixed_table("sinusoid", encoder.grid, encoder.dim))
    yield from patch_embedding("backbone.patch_embed.projection", encoder.tubelet_size)
    yield from blocks("encoder.transformer.blocks", "backbone.blocks", encoder.depth, _BLOCK)
    yield from affine("head.norm", "backbone.fc_norm")
    yield from affine("head.classify", "cls_head.fc_cls")
