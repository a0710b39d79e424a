"""The published architectures at full size, without numbers: tensors and parameters, read and written."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.checkpoints.layouts import (
    BASE,
    Shapes,
    Sizes,
    count,
    huggingface_autoencoder,
    huggingface_classifier,
    mae_st_autoencoder,
    mae_st_classifier,
    mae_st_released,
    mar,
    meta_weights,
    mmaction2,
    videomae_autoencoder,
    videomae_classifier,
    with_constants,
)
from tubelet.checkpoints.families import writing_family
from tubelet.checkpoints.model_folder import Config, build_model
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.save import write_foreign
from tubelet.checkpoints.tables import Weights, read_table
from tubelet.checkpoints.weight_sets import find_sets
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.card import ModelCard

SMALL = replace(BASE, dim=384, mlp=1536, decoder_dim=192, decoder_mlp=768)
LARGE = replace(BASE, dim=1024, depth=24, mlp=4096, decoder_dim=512, decoder_mlp=2048)
HUGE = replace(BASE, dim=1280, depth=32, mlp=5120, decoder_dim=512, decoder_mlp=2048)
GIANT = replace(
    BASE, dim=1408, depth=40, mlp=6144, patch=14, side=16, decoder_dim=512, decoder_mlp=2234
)  # fmt: skip
VIDEOMAE_LARGE = replace(LARGE, decoder_depth=12)  # V2's have shorter decoders
VIDEOMAE_HUGE = replace(HUGE, decoder_dim=640, decoder_depth=12, decoder_mlp=2560)

# Name: (sizes, tensors, numbers in them, encoder's heads, decoder's heads).
PRETRAINED: dict[str, tuple[Sizes, int, int, int, int]] = {
    "small": (SMALL, 218, 24_029_376, 6, 3),
    "base": (BASE, 218, 94_210_944, 12, 6),
    "large": (VIDEOMAE_LARGE, 478, 342_996_992, 16, 8),
    "huge": (VIDEOMAE_HUGE, 582, 692_487_296, 16, 8),
    "V2 large": (LARGE, 374, 317_782_016, 16, 8),
    "V2 huge": (HUGE, 478, 645_659_392, 16, 8),
    "V2 giant": (GIANT, 582, 1_026_306_560, 16, 8),
}
CLASSIFIERS: dict[str, tuple[Sizes, int, int, int]] = {
    "small": (SMALL, 162, 22_033_936, 6),
    "base": (BASE, 162, 86_534_800, 12),
    "base, SSv2": (replace(BASE, classes=174), 162, 86_361_006, 12),
    "base, UCF101": (replace(BASE, classes=101), 162, 86_304_869, 12),
    "large": (LARGE, 318, 304_270_736, 16),
    "huge": (HUGE, 422, 632_119_440, 16),
    "V2 small, distilled": (replace(SMALL, classes=710), 162, 22_153_286, 6),
    "V2 base, distilled": (replace(BASE, classes=710), 162, 86_773_190, 12),
    "V2 giant, K710": (replace(GIANT, classes=710), 526, 1_012_611_142, 16),
    "V2 giant": (GIANT, 526, 1_012_174_352, 16),
}


def named(table: Mapping[str, tuple[Any, ...]]) -> list[Any]:
    """The names of a table's models; those of more than 12 layers are slow."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=[slow] * (row[0].depth > 12)) for name, row in table.items()]


def mae_st(sizes: Sizes) -> Sizes:
    """The decoders are the same for all encoders, and predict one frame of each pair."""
    return replace(sizes, decoder_dim=512, decoder_depth=4, decoder_mlp=2048, predicted=1)


def read_meta(shapes: Shapes, sizes: Sizes = BASE) -> tuple[Config, Weights]:
    """Read a file's names and shapes, without the numbers."""
    [found] = find_sets(with_constants(meta_weights(shapes), sizes), "file.pth")
    family, file = found.family, Checkpoint("file.pth", dict(found.weights))
    config = family.read_config(file, {})
    return config, read_table(family.table(config, file), file.weights, our_weights(config), file.source)


def our_weights(config: Config) -> dict[str, Tensor]:
    """The state of the model, without the numbers."""
    with torch.device("meta"):
        return build_model(config).state_dict()


def our_shapes(config: Config) -> Shapes:
    return shapes_of(our_weights(config))


def shapes_of(weights: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in weights.items()}


def check(read: tuple[Config, Weights], shapes: Shapes, layout: str) -> Any:
    """Check that the model has all tensors of the file, and writes them again; return its config."""
    config, weights = read
    assert shapes_of(weights) == our_shapes(config)
    assert written(config, weights, layout) == shapes
    return config


def written(config: Config, weights: Mapping[str, Tensor], layout: str) -> Shapes:
    return shapes_of(write_foreign(writing_family(layout), config, weights, ModelCard(), layout).weights)


@pytest.mark.parametrize("name", named(PRETRAINED))
def test_videomaes_autoencoders_have_the_published_sizes(name: str):
    sizes, tensors, numbers, heads, decoder_heads = PRETRAINED[name]
    shapes = videomae_autoencoder(sizes)
    assert (len(shapes), count(shapes)) == (tensors, numbers)
    config = check(read_meta(shapes), shapes, "videomae")
    assert count(our_shapes(config)) == numbers
    assert (config.encoder.heads, config.decoder.heads) == (heads, decoder_heads)
    assert config.encoder.mlp_dim == sizes.mlp
    assert config.decoder.mlp_dim == sizes.decoder_mlp
    assert config.encoder.patch_size == sizes.patch


@pytest.mark.parametrize("name", named(CLASSIFIERS))
def test_videomaes_classifiers_have_the_published_sizes(name: str):
    sizes, tensors, numbers, heads = CLASSIFIERS[name]
    shapes = videomae_classifier(sizes)
    assert (len(shapes), count(shapes)) == (tensors, numbers)
    config = check(read_meta(shapes), shapes, "videomae")
    assert count(our_shapes(config)) == numbers
    assert config.encoder.heads == heads
    assert config.classes == sizes.classes


@pytest.mark.parametrize(
    ("sizes", "tensors", "encoder", "classifier", "released", "public", "heads"),
    [
        (BASE, 272, 86_394_624, 86_702_224, 100_596_736, 99_898_880, 12),
        pytest.param(
            LARGE, 464, 304_096_256, 304_506_256, 318_429_440, 317_731_584, 16, marks=pytest.mark.slow
        ),
        pytest.param(
            HUGE, 592, 631_911_680, 632_424_080, 646_375_936, 645_678_080, 16, marks=pytest.mark.slow
        ),
    ],
    ids=["base", "large", "huge"],
)
def test_mae_sts_models_have_the_published_sizes(
    sizes: Sizes, tensors: int, encoder: int, classifier: int, released: int, public: int, heads: int
):
    sizes = mae_st(sizes)
    shapes = mae_st_released(sizes)
    assert (len(shapes), count(shapes)) == (tensors, released)
    config, weights = read_meta(shapes)
    assert isinstance(config, AutoencoderConfig)
    assert shapes_of(weights) == our_shapes(config)
    assert count(our_shapes(config)) == released
    assert (config.encoder.heads, config.decoder.heads) == (heads, 8)
    fused = mae_st_released(sizes, fused_decoder=True)  # what the code that wrote them builds now
    check(read_meta(fused), fused, "mae_st")

    shapes = mae_st_autoencoder(sizes)
    assert (len(shapes), count(shapes)) == (tensors + 3, public)
    config = check(read_meta(shapes), shapes, "mae_st")
    assert count(our_shapes(config)) == public
    assert (config.encoder.heads, config.decoder.heads) == (heads, 16)

    shapes = mae_st_classifier(sizes)
    assert count(shapes) == classifier
    assert count(mae_st_classifier(replace(sizes, classes=0))) == encoder
    config = check(read_meta(shapes), shapes, "mae_st")
    assert count(our_shapes(config)) == classifier


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "tensors", "total", "inference"),
    [
        (replace(BASE, classes=174), 251, 101_601_844, 93_015_982),
        (BASE, 251, 101_717_782, 93_131_920),
        (replace(VIDEOMAE_LARGE, classes=174), 251 + 12 * 13 + 8 * 13, 350_719_668, 310_780_590),
        (VIDEOMAE_LARGE, 251 + 12 * 13 + 8 * 13, 350_835_606, 310_896_528),
    ],
    ids=["base, SSv2", "base, K400", "large, SSv2", "large, K400"],
)
def test_mars_models_have_the_published_sizes(sizes: Sizes, tensors: int, total: int, inference: int):
    shapes = mar(sizes)
    assert (len(shapes), count(shapes)) == (tensors, total)
    config = check(read_meta(shapes, sizes), shapes, "mar")
    ours = our_shapes(config)
    unused = sizes.bridge_dim  # a token that nothing reads
    constants = sizes.tokens * sizes.decoder_dim + 6
    assert count(ours) == total - unused - constants
    decoder = count({name: shape for name, shape in ours.items() if name.startswith("decoder.")})
    assert count(ours) - decoder == inference - unused
    assert (config.head.heads, config.decoder.heads) == (4, sizes.decoder_dim // 64)


@pytest.mark.slow
def test_mmaction2s_base_model_has_161_tensors_in_its_backbone():
    shapes = mmaction2(BASE)
    assert len([name for name in shapes if name.startswith("backbone.")]) == 161
    config = check(read_meta(shapes), shapes, "mmaction2")
    assert count(our_shapes(config)) == 86_534_800


@pytest.mark.parametrize(
    ("theirs", "ours", "extra"),
    [
        (huggingface_autoencoder, videomae_autoencoder, 2 * 12 + 2 * 4),
        (huggingface_classifier, videomae_classifier, 2 * 12),
    ],
    ids=["autoencoder", "classifier"],
)
def test_hugging_faces_base_models_have_videomaes_sizes(theirs: Any, ours: Any, extra: int):
    """They have three matrices where VideoMAE has one for queries, keys and values."""
    assert len(theirs(BASE)) == len(ours(BASE)) + extra
    assert count(theirs(BASE)) == count(ours(BASE))
    config, _ = read_meta(ours(BASE))
    assert written(config, our_weights(config), "huggingface") == theirs(BASE)
