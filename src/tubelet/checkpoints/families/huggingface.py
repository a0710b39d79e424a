"""VideoMAE in Hugging Face transformers: a folder with `config.json` beside the weights."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from tubelet.checkpoints.families.family import Family
from tubelet.checkpoints.families.preprocessor import pixel_statistics
from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.checkpoints.hub import HUB_CONFIG, HUB_PREPROCESSOR, HUB_WEIGHTS
from tubelet.checkpoints.model_folder import Config
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.shapes import depth
from tubelet.checkpoints.tables import BlockNames, Entry, Rename, Weights, affine, blocks, patch_embedding
from tubelet.errors import UserError, short_repr
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import IMAGENET_MEAN, IMAGENET_STD, EncoderConfig
from tubelet.models.heads import LinearHeadConfig
from tubelet.models.target import PixelTarget

_HEAD_EPS = 1e-5
"""Epsilon of transformers' `fc_norm` and `decoder.norm`, which the config's epsilon does not change."""
_INNER = "attention.attention"
_HUB_BLOCK = BlockNames(
    norm1="layernorm_before",
    norm2="layernorm_after",
    qkv=(f"{_INNER}.query", f"{_INNER}.key", f"{_INNER}.value"),
    bias=(f"{_INNER}.q_bias", f"{_INNER}.v_bias"),
    project="attention.output.dense",
    up="intermediate.dense",
    down="output.dense",
)
_MODULE_BLOCK = replace(_HUB_BLOCK, bias=(f"{_INNER}.query.bias", f"{_INNER}.value.bias"))
_MULTI_LABEL = "multi_label_classification"
# The names of config.json and ours. Transformers' defaults are VideoMAE's ViT-B, as ours are.
_ENCODER_SETTINGS = {
    "num_frames": "frames",
    "image_size": "image_size",
    "tubelet_size": "tubelet",
    "patch_size": "patch_size",
    "hidden_size": "dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_dim",
}
_DECODER_SETTINGS = {
    "decoder_hidden_size": "dim",
    "decoder_num_hidden_layers": "depth",
    "decoder_num_attention_heads": "heads",
    "decoder_intermediate_size": "mlp_dim",
}


class HuggingFace(Family):
    """Hugging Face's port of VideoMAE, whose settings are in config.json and its preprocessor files."""

    name = "huggingface"
    title = "Hugging Face"
    layouts = ("huggingface",)
    model_type = "videomae"
    writes_folder = True

    def matches(self, weights: Mapping[str, Tensor]) -> bool:
        """Return whether tensors have the names of transformers' VideoMAE."""
        return "videomae.embeddings.patch_embeddings.projection.weight" in weights

    def read_config(self, file: Checkpoint, hints: ArchitectureHints) -> Config:
        """Return the architecture, from the settings files, with transformers' defaults.

        Raises:
            UserError: the settings are missing, or specify parts that these models do not have.
        """
        source, weights = file.source, file.weights
        if HUB_CONFIG not in file.others:
            raise UserError(
                f"{source} is from Hugging Face, whose weights do not record the settings: give the folder "
                f"with {HUB_CONFIG} beside them"
            )
        settings = {name: value for name, value in file.others[HUB_CONFIG].items() if value is not None}
        biased = settings.get("qkv_bias", settings.get("qv_bias", True))
        if settings.get("hidden_act", "gelu") != "gelu" or not biased:
            raise UserError(
                f"{source}: expected hidden_act gelu and biases of queries and values, as published"
            )
        is_classifier = "classifier.weight" in weights
        eps = settings.get("layer_norm_eps", 1e-12)
        mean, std = pixel_statistics(file.others, source)
        encoder = EncoderConfig(
            **_read_settings(settings, _ENCODER_SETTINGS, source) | _hinted(heads=hints.get("heads")),
            final_norm="videomae.layernorm.weight" in weights and not is_classifier,
            norm_eps=eps,
            mean=mean,
            std=std,
        )
        _require_sizes_of_weights(encoder, _ENCODER_SETTINGS, _sizes(file, "videomae.encoder.layer"), file)
        if is_classifier:
            _check_problem_type(settings, len(weights["classifier.weight"]), source)
            mean_pooling = "fc_norm.weight" in weights
            head = LinearHeadConfig(
                pool="mean" if mean_pooling else "first", norm_eps=_HEAD_EPS if mean_pooling else eps
            )
            return ClassifierConfig(encoder=encoder, head=head, classes=len(weights["classifier.weight"]))
        if "decoder.head.weight" not in weights:
            raise UserError(
                f"{source} has only an encoder, without a classifier or a decoder: give one that was saved "
                "as VideoMAEForVideoClassification or VideoMAEForPreTraining"
            )
        decoder = DecoderConfig(
            **_read_settings(settings, _DECODER_SETTINGS, source) | _hinted(heads=hints.get("decoder_heads")),
            norm_eps=eps,
            final_norm_eps=_HEAD_EPS,
        )
        _require_sizes_of_weights(decoder, _DECODER_SETTINGS, _sizes(file, "decoder.decoder_layers"), file)
        target = PixelTarget(normalize="channel" if settings.get("norm_pix_loss", True) else None)
        if target.normalize is None and (mean, std) != (IMAGENET_MEAN, IMAGENET_STD):
            # Transformers computes this target with ImageNet's statistics, also if the pixels have others.
            raise UserError(
                f"{source}: norm_pix_loss false needs ImageNet's pixel statistics, found mean {mean} and "
                f"deviation {std}"
            )
        return AutoencoderConfig(encoder=encoder, decoder=decoder, target=target)

    def read_card(self, file: Checkpoint, config: Config) -> ModelCard:
        """Return the class names, and whether a video may have more than one of them."""
        card = super().read_card(file, config)
        if not isinstance(config, ClassifierConfig):
            return card
        settings = file.others[HUB_CONFIG]
        classes = _class_names(settings, config.classes, f"{file.source}/{HUB_CONFIG}")
        return replace(
            card,
            classes=() if classes == _numbered(len(classes)) else classes,
            multi_label=settings.get("problem_type") == _MULTI_LABEL,
        )

    def table(self, config: Config, file: Checkpoint | None = None) -> Iterator[Entry]:
        """Yield an entry for each tensor."""
        encoder = config.encoder
        names = _block_names(file) if file else _HUB_BLOCK
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

    def content(self, config: Config, card: ModelCard, weights: Weights) -> dict[str, Any]:
        """Return the files of a folder: the weights and the settings."""
        return {
            HUB_CONFIG: _write_config(config, card),
            HUB_PREPROCESSOR: _write_preprocessor(config.encoder),
            HUB_WEIGHTS[0]: weights,
        }


def _read_settings(settings: Mapping[str, Any], names: Mapping[str, str], source: str) -> dict[str, Any]:
    """The settings of config.json that are given, by our names; sizes may be given once or as two sides."""
    read = {}
    for theirs in names.keys() & settings.keys():
        value = settings[theirs]
        side, *others = value if isinstance(value, list) and value else [value]
        if any(other != side for other in others):
            raise UserError(f"{source}: expected {theirs} to be square, found {short_repr(value)}")
        if type(side) is not int or side < 1:
            raise UserError(
                f"{source}/{HUB_CONFIG}: expected {theirs} to be a whole number from 1, found "
                f"{short_repr(value)}"
            )
        read[names[theirs]] = side
    return read


def _sizes(file: Checkpoint, blocks: str) -> dict[str, int]:
    """The sizes of a transformer that its weights have, by our names, as far as they can be seen."""
    count, up = depth(file, blocks), file.weights.get(f"{blocks}.0.intermediate.dense.weight")
    sizes = {"depth": count} if count else {}
    return sizes if up is None or up.ndim != 2 else sizes | {"mlp_dim": up.shape[0], "dim": up.shape[1]}


def _require_sizes_of_weights(
    config: EncoderConfig | DecoderConfig,
    names: Mapping[str, str],
    sizes: Mapping[str, int],
    file: Checkpoint,
) -> None:
    """Raise a UserError that names the setting, perhaps missing, which is not as in the weights."""
    settings = file.others[HUB_CONFIG]
    for theirs, ours in names.items():
        stated = getattr(config, ours)
        if stated != sizes.get(ours, stated):
            found = "found" if settings.get(theirs) is not None else "it is missing, which stands for"
            raise UserError(
                f"{file.source}/{HUB_CONFIG}: expected {theirs} to be {sizes[ours]}, as in the weights; "
                f"{found} {stated}"
            )


def _check_problem_type(settings: Mapping[str, Any], classes: int, source: str) -> None:
    """Transformers trains a model of one class as a regression if its settings say nothing else."""
    found = settings.get("problem_type") or ("regression" if classes == 1 else None)
    if found not in (None, "single_label_classification", _MULTI_LABEL):
        raise UserError(
            f"{source}/{HUB_CONFIG}: expected problem_type single_label_classification or {_MULTI_LABEL}, "
            f"found {short_repr(found)}, which Tubelet has no head for; use transformers for this model"
        )


def _class_names(settings: Mapping[str, Any], count: int, source: str) -> tuple[str, ...]:
    """The names by class, or nothing if the settings have none."""
    named = settings.get("id2label") or {}
    if not named:
        return ()
    names = [named.get(str(i)) for i in range(count)] if isinstance(named, dict) else []
    wrong = [f"{i}: {short_repr(name)}" for i, name in enumerate(names) if not isinstance(name, str)]
    if len(named) != count or wrong or not names:
        raise UserError(
            f"{source}: id2label names {len(named)} classes, but the classifier has {count}; expected a text "
            f"for each number from 0, found {', '.join(wrong[:4]) or f'{len(named)} entries'}"
        )
    return tuple(map(str, names))


def _hinted(**hints: int | None) -> dict[str, Any]:
    return {name: value for name, value in hints.items() if value}


def _numbered(count: int) -> tuple[str, ...]:
    """The names that transformers gives to classes without names."""
    return tuple(f"LABEL_{i}" for i in range(count))


def _block_names(file: Checkpoint) -> BlockNames:
    """The names as in the hub's files, or as in the modules of newer versions."""
    for names in (_HUB_BLOCK, _MODULE_BLOCK):
        assert names.bias
        if f"videomae.encoder.layer.0.{names.bias[0]}" in file.weights:
            return names
    raise UserError(
        f"{file.source}: expected the biases of queries and values ({_INNER}.q_bias or .query.bias), found "
        "neither: some versions of transformers wrote files without them"
    )


def _write_config(config: Config, card: ModelCard) -> dict[str, Any]:
    encoder = config.encoder
    written: dict[str, Any] = {
        "model_type": "videomae",
        "num_channels": len(encoder.mean),
        "hidden_act": "gelu",
        "layer_norm_eps": encoder.norm_eps,
        "qkv_bias": True,
        **{theirs: getattr(encoder, ours) for theirs, ours in _ENCODER_SETTINGS.items()},
    }
    if isinstance(config, ClassifierConfig):
        names = card.classes or _numbered(config.classes)
        return written | {
            "architectures": ["VideoMAEForVideoClassification"],
            "use_mean_pooling": isinstance(config.head, LinearHeadConfig) and config.head.pool == "mean",
            "id2label": {str(i): name for i, name in enumerate(names)},
            "label2id": {name: i for i, name in enumerate(names)},
            **({"problem_type": _MULTI_LABEL} if card.multi_label else {}),
        }
    return written | {
        "architectures": ["VideoMAEForPreTraining"],
        "use_mean_pooling": not encoder.final_norm,
        "norm_pix_loss": config.target.normalize is not None,
        **{theirs: getattr(config.decoder, ours) for theirs, ours in _DECODER_SETTINGS.items()},
    }


def _write_preprocessor(encoder: EncoderConfig) -> dict[str, Any]:
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
