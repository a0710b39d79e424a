"""VideoMAE in Hugging Face transformers: a folder with `config.json` beside the weights."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from tubelet.checkpoints.shapes import Given
from tubelet.checkpoints.tables import BlockNames, Entry, Rename, affine, blocks, patch_embedding
from tubelet.errors import UserError
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import IMAGENET_MEAN, IMAGENET_STD, EncoderConfig
from tubelet.models.heads import LinearHeadConfig
from tubelet.models.target import PixelTarget

HEAD_EPS = 1e-5
"""Epsilon of `fc_norm` and `decoder.norm` there, whatever the config says of the other norms."""
_INNER = "attention.attention"
_HUB = BlockNames(
    norm1="layernorm_before",
    norm2="layernorm_after",
    qkv=(f"{_INNER}.query", f"{_INNER}.key", f"{_INNER}.value"),
    bias=(f"{_INNER}.q_bias", f"{_INNER}.v_bias"),
    project="attention.output.dense",
    up="intermediate.dense",
    down="output.dense",
)
_MODULES = replace(_HUB, bias=(f"{_INNER}.query.bias", f"{_INNER}.value.bias"))


def matches(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are Hugging Face's names."""
    return "videomae.embeddings.patch_embeddings.projection.weight" in weights


def read_config(
    config: Mapping[str, Any],
    preprocessor: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    given: Given,
    source: str,
) -> AutoencoderConfig | ClassifierConfig:
    """The architecture, from `config.json` and `preprocessor_config.json`, with transformers' defaults.

    Raises:
        UserError: the config asks for what these models do not have.
    """

    def setting(name: str, default: Any) -> Any:
        value = config.get(name)
        return default if value is None else value

    def side(name: str, default: int) -> int:
        value = setting(name, default)
        sides = set(value) if isinstance(value, list) else {value}
        if len(sides) != 1:
            raise UserError(f"{source}: expected {name} to be square, found {value}")
        return sides.pop()

    biased = setting("qkv_bias", setting("qv_bias", True))
    if setting("hidden_act", "gelu") != "gelu" or not biased:
        raise UserError(f"{source}: expected hidden_act gelu and biases of queries and values, as published")
    eps = setting("layer_norm_eps", 1e-12)
    is_classifier = "classifier.weight" in weights
    mean_pooling = "fc_norm.weight" in weights
    encoder = EncoderConfig(
        frames=setting("num_frames", 16),
        image_size=side("image_size", 224),
        tubelet=setting("tubelet_size", 2),
        patch_size=side("patch_size", 16),
        dim=setting("hidden_size", 768),
        depth=setting("num_hidden_layers", 12),
        heads=given.heads or setting("num_attention_heads", 12),
        mlp_dim=setting("intermediate_size", 3072),
        final_norm="videomae.layernorm.weight" in weights and not is_classifier,
        norm_eps=eps,
        mean=tuple(preprocessor.get("image_mean", IMAGENET_MEAN)),
        std=tuple(preprocessor.get("image_std", IMAGENET_STD)),
    )
    if is_classifier:
        return ClassifierConfig(
            encoder=encoder,
            head=LinearHeadConfig(
                pool="mean" if mean_pooling else "first", norm_eps=HEAD_EPS if mean_pooling else eps
            ),
            classes=weights["classifier.weight"].shape[0],
        )
    if "decoder.head.weight" not in weights:
        raise UserError(
            f"{source} holds an encoder alone, without a classifier or a decoder: give one that was saved as "
            "VideoMAEForVideoClassification or VideoMAEForPreTraining"
        )
    return AutoencoderConfig(
        encoder=encoder,
        decoder=DecoderConfig(
            dim=setting("decoder_hidden_size", 384),
            depth=setting("decoder_num_hidden_layers", 4),
            heads=given.decoder_heads or setting("decoder_num_attention_heads", 6),
            mlp_dim=setting("decoder_intermediate_size", 1536),
            norm_eps=eps,
            final_norm_eps=HEAD_EPS,
        ),
        target=PixelTarget(normalize="channel" if setting("norm_pix_loss", True) else None),
    )


def read_classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names in `config.json`; none where they only count."""
    named = config.get("id2label") or {}
    classes = tuple(named[key] for key in sorted(named, key=int))
    return () if classes == _numbered(len(classes)) else classes


def _numbered(count: int) -> tuple[str, ...]:
    """What transformers calls classes that nobody named."""
    return tuple(f"LABEL_{i}" for i in range(count))


_SEVERAL = "multi_label_classification"


def read_multi_label(config: Mapping[str, Any]) -> bool:
    """Whether `config.json` says that a video may show several classes."""
    return config.get("problem_type") == _SEVERAL


def write_config(
    config: AutoencoderConfig | ClassifierConfig, classes: tuple[str, ...] = (), multi_label: bool = False
) -> dict[str, Any]:
    """`config.json`, with the class names and whether a video may show several of them."""
    encoder = config.encoder
    written: dict[str, Any] = {
        "model_type": "videomae",
        "image_size": encoder.image_size,
        "patch_size": encoder.patch_size,
        "num_channels": len(encoder.mean),
        "num_frames": encoder.frames,
        "tubelet_size": encoder.tubelet,
        "hidden_size": encoder.dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.mlp_dim,
        "hidden_act": "gelu",
        "layer_norm_eps": encoder.norm_eps,
        "qkv_bias": True,
    }
    if isinstance(config, ClassifierConfig):
        names = classes or _numbered(config.classes)
        pool = config.head.pool == "mean" if isinstance(config.head, LinearHeadConfig) else True
        return written | {
            "architectures": ["VideoMAEForVideoClassification"],
            "use_mean_pooling": pool,
            "id2label": {str(i): name for i, name in enumerate(names)},
            "label2id": {name: i for i, name in enumerate(names)},
            **({"problem_type": _SEVERAL} if multi_label else {}),
        }
    decoder = config.decoder
    return written | {
        "architectures": ["VideoMAEForPreTraining"],
        "use_mean_pooling": not encoder.final_norm,
        "decoder_hidden_size": decoder.dim,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.heads,
        "decoder_intermediate_size": decoder.mlp_dim,
        "norm_pix_loss": config.target.normalize is not None,
    }


def write_preprocessor(encoder: EncoderConfig) -> dict[str, Any]:
    """`preprocessor_config.json`."""
    side = encoder.image_size
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
    }


def table(config: AutoencoderConfig | ClassifierConfig, *, hub_biases: bool = True) -> Iterator[Entry]:
    """Every tensor; the biases are called as in the hub's files, or as in the modules of newer versions."""
    encoder, names = config.encoder, _HUB if hub_biases else _MODULES
    yield from patch_embedding("videomae.embeddings.patch_embeddings.projection", encoder.tubelet_size)
    yield from blocks("encoder.transformer.blocks", "videomae.encoder.layer", encoder.depth, names)
    if isinstance(config, ClassifierConfig):
        pooled = isinstance(config.head, LinearHeadConfig) and config.head.pool == "mean"
        yield from affine("head.norm", "fc_norm" if pooled else "videomae.layernorm")
        yield from affine("head.classify", "classifier")
        return
    if encoder.final_norm:
        yield from affine("encoder.norm", "videomae.layernorm")
    yield Rename("decoder.embed.weight", "encoder_to_decoder.weight")
    yield Rename("decoder.mask_token", "mask_token")
    yield from blocks("decoder.transformer.blocks", "decoder.decoder_layers", config.decoder.depth, names)
    yield from affine("decoder.norm", "decoder.norm")
    yield from affine("decoder.predict", "decoder.head")


def uses_hub_biases(weights: Mapping[str, Tensor], source: str) -> bool:
    """Which of the two spellings a file has.

    Raises:
        UserError: it has neither: some versions of transformers lost these biases.
    """
    first = "videomae.encoder.layer.0"
    if f"{first}.{_HUB.bias[0]}" in weights:  # type: ignore[index]
        return True
    if f"{first}.{_MODULES.bias[0]}" in weights:  # type: ignore[index]
        return False
    raise UserError(
        f"{source}: expected the biases of queries and values ({_INNER}.q_bias or .query.bias), found "
        "neither: it was written without them"
    )
