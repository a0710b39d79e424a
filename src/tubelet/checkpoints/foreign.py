"""Whose checkpoint is it, and what is in it: from foreign weights to ours, and back."""

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.checkpoints.families import huggingface, mae_st, mar, mmaction2, videomae
from tubelet.checkpoints.read_file import Checkpoint, read_checkpoint
from tubelet.checkpoints.shapes import Given
from tubelet.checkpoints.tables import Entry, Weights, read_table, their_names, write_table
from tubelet.errors import UserError, did_you_mean
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.classifier import ClassifierConfig

Config = AutoencoderConfig | ClassifierConfig
LAYOUTS = ("videomae", "videomaev2", "mae_st", "mmaction2", "mar", "huggingface")
"""What `write` writes."""


@dataclass(frozen=True)
class Foreign:
    """A foreign model in our terms.

    Attributes:
        family: the code base it is from.
        config: its architecture.
        weights: its tensors under our names.
        names: our name of each tensor to the file's, for messages.
        classes: class names, where the file has them.
        several: whether it says that a video may show several of them.
        others: what lay beside the weights.
    """

    family: str
    config: Config
    weights: Weights
    names: Mapping[str, str]
    classes: tuple[str, ...] = ()
    multi_label: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)


def read(file: Checkpoint, given: Given) -> Foreign:
    """Find out whose file it is by the names in it, and translate all of it.

    Raises:
        UserError: nobody's, or a tensor is missing or left over, or a setting is needed that shapes do not
            tell.
    """
    for weights in _without_prefixes(file.weights):
        file = replace(file, weights=weights)
        config: Config
        table: Iterable[Entry]
        if huggingface.matches(weights):
            raise UserError(
                f"{file.source} is from Hugging Face, whose files do not tell their settings: give the "
                "folder with config.json beside it"
            )
        if mmaction2.matches(weights):
            family, config = "mmaction2", mmaction2.read_config(file, given)
            table = mmaction2.table(config, positions="backbone.pos_embed" in weights)
        elif mar.matches(weights):
            family, config = "mar", mar.read_config(file, given)
            table = mar.table(config, constants="pos_embed" in weights)
        elif mae_st.matches(weights):
            family, config = "mae_st", mae_st.read_config(file, given)
            table = mae_st.table(config, mae_st.variant_of(weights))
        elif videomae.matches(weights):
            family, config = "videomae", videomae.read_config(file, given)
            table = videomae.table(config)
        else:
            continue
        table = list(table)
        ours = read_table(table, weights, file.source)
        return Foreign(family, config, ours, their_names(table), others=file.others)
    raise UserError(_nobodys(file))


def _without_prefixes(weights: Weights) -> Iterator[Weights]:
    """As they are, and then without the prefixes that wrappers and larger models put before all names."""
    yield weights
    for prefix in ("backbone.", "model.", "module."):
        if all(name.startswith(prefix) for name in weights):
            yield from _without_prefixes({name.removeprefix(prefix): x for name, x in weights.items()})


def _nobodys(file: Checkpoint) -> str:
    if "encoder.embed.project.weight" in file.weights:
        return f"{file.source} holds Tubelet's own weights: give the folder with config.json beside it"
    names = ", ".join(list(file.weights)[:4])
    return (
        f"{file.source} is of no family that is known here (VideoMAE, VideoMAE V2, MAE-ST, MAR, mmaction2, "
        f"Hugging Face): its first tensors are {names}"
    )


def read_folder(folder: Path, given: Given) -> Foreign:
    """Read a Hugging Face folder, or VideoMAE V2's on the hub, which comes with code of its own.

    Raises:
        UserError: no weights beside the config, another kind of model, or they do not fit each other.
    """
    config = read_json(folder / "config.json")
    kind = str(config.get("model_type"))
    if kind.startswith("VideoMAEv2"):
        settings = config.get("model_config") or {}
        if not isinstance(settings, dict):
            raise UserError(f"{folder / 'config.json'}: expected settings under model_config")
        return read(_folder_weights(folder), _given_by(settings, given))
    if kind != "videomae":
        raise UserError(f"{folder / 'config.json'}: expected model_type videomae, found {kind}")
    file = _folder_weights(folder)
    if not huggingface.matches(file.weights):
        raise UserError(
            f"{file.source}: expected the names of VideoMAEForPreTraining or "
            f"VideoMAEForVideoClassification, found {', '.join(list(file.weights)[:3])}"
        )
    preprocessor = folder / "preprocessor_config.json"
    settings = read_json(preprocessor) if preprocessor.is_file() else {}
    ours = huggingface.read_config(config, settings, file.weights, given, str(folder))
    table = list(huggingface.table(ours, hub_biases=huggingface.uses_hub_biases(file.weights, file.source)))
    classes = huggingface.read_classes(config) if isinstance(ours, ClassifierConfig) else ()
    if isinstance(ours, ClassifierConfig) and classes and len(classes) != ours.classes:
        raise UserError(
            f"{folder / 'config.json'}: id2label names {len(classes)} classes, but the classifier has "
            f"{ours.classes}"
        )
    return Foreign(
        family="huggingface",
        config=ours,
        weights=read_table(table, file.weights, str(folder)),
        names=their_names(table),
        classes=classes,
        multi_label=huggingface.read_multi_label(config),
    )


def _given_by(settings: Mapping[str, Any], given: Given) -> Given:
    """What VideoMAE V2's settings tell of its shapes."""
    return replace(
        given,
        heads=given.heads or settings.get("num_heads"),
        image_size=settings.get("img_size", given.image_size),
        frames=settings.get("num_frames", given.frames),
    )


def _folder_weights(folder: Path) -> Checkpoint:
    """One file, or the parts that an index lists."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return read_checkpoint(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = read_json(index).get("weight_map")
            if not isinstance(files, dict):
                raise UserError(f"{index}: expected weight_map to name a file for each weight")
            parts = sorted(set(files.values()))
            weights: dict[str, Tensor] = {}
            for part in parts:
                weights |= read_checkpoint(folder / part).weights
            return Checkpoint(str(folder), weights)
    raise UserError(f"{folder} has a config.json, but neither model.safetensors nor pytorch_model.bin")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: it does not parse, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def write(config: Config, weights: Mapping[str, Tensor], layout: str) -> tuple[str, Weights]:
    """Our model as a foreign file.

    Returns:
        The member under which the code base looks for the weights ("" for the top), and the weights.

    Raises:
        UserError: an unknown layout, or one that cannot hold the model; what it cannot is named.
    """
    if layout not in LAYOUTS:
        known = ("tubelet", *LAYOUTS)
        raise UserError(f"layout is one of {', '.join(known)}, found {layout}{did_you_mean(layout, known)}")
    if isinstance(config, ClassifierConfig):
        if (config.head.kind == "bridging") != (layout == "mar"):
            raise UserError(f"the layout {layout} cannot hold a {config.head.kind} head")
        if layout == "mar" and config.decoder is None:
            raise UserError("the layout mar cannot hold a model without its decoder: its code always has one")
    elif layout == "mmaction2":
        raise UserError("the layout mmaction2 cannot hold an autoencoder: its code has classifiers alone")
    outer, table, back = _layout(config, layout)
    theirs = write_table(table, weights, layout)
    found = back(theirs)
    lost = list(_lost(config, found, ""))
    if config.decoder:
        lost += _lost(config.target, found.target, "target")
    lost += [f"{name}={value:g}" for name, value in _epsilons(config) if not 0 <= value <= _LARGEST_EPS]
    if lost:
        raise UserError(f"the layout {layout} cannot hold this model: it has no place for " + ", ".join(lost))
    return outer, theirs


def members(config: Config, layout: str) -> dict[str, Any]:
    """What lies beside the weights in a file: settings that they do not tell."""
    if layout == "mar" and isinstance(config, ClassifierConfig) and config.masking:
        return {"cfg": json.dumps({"TRAIN": {"MAE": {"MASK_RATIO": config.masking.ratio}}})}
    if layout == "mae_st" and isinstance(config, AutoencoderConfig) and config.target.normalize is None:
        return {"args": Namespace(norm_pix_loss=False)}
    return {}


def _layout(config: Config, layout: str) -> tuple[str, Iterable[Entry], Any]:
    """Where the weights go, the table, and how the file would be read again."""
    encoder = config.encoder
    bridge = config.head if isinstance(config, ClassifierConfig) else None
    given = Given(
        heads=encoder.heads,
        decoder_heads=config.decoder.heads if config.decoder else None,
        bridge_heads=bridge.heads if bridge is not None and bridge.kind == "bridging" else None,
        image_size=encoder.image_size,
        frames=encoder.frames,
    )
    classifier = isinstance(config, ClassifierConfig)
    match layout:
        case "mmaction2":
            assert isinstance(config, ClassifierConfig)
            return "state_dict", mmaction2.table(config), lambda w: mmaction2.read_config(_file(w), given)
        case "mar":
            table = mar.table(config, constants=classifier)
            return "model_state", table, lambda w: _masked(mar.read_config(_file(w), given), config)
        case "mae_st":
            mae_st.refuse(config)
            variant = mae_st.variant_for(config)
            outer = "model_state" if variant.released else "model"
            beside = members(config, layout)
            table = mae_st.table(config, variant)
            return outer, table, lambda w: mae_st.read_config(Checkpoint(layout, w, beside), given)
        case "huggingface":
            written = huggingface.write_config(config)
            settings = huggingface.write_preprocessor(encoder)
            table = huggingface.table(config)
            return "", table, lambda w: huggingface.read_config(written, settings, w, given, layout)
    outer = "module" if classifier else "model"
    return outer, videomae.table(config), lambda w: videomae.read_config(_file(w), given)


def _file(weights: Weights) -> Checkpoint:
    return Checkpoint("the file", weights)


def _masked(read_back: Config, config: Config) -> Config:
    """MAR keeps its ratio in the settings beside the weights, and knows cells of 2 x 2 alone."""
    if not isinstance(read_back, ClassifierConfig) or not isinstance(config, ClassifierConfig):
        return read_back
    held = config.masking is not None and config.masking.cell == (2, 2)
    return replace(read_back, masking=config.masking) if held else read_back


# What only training needs, or what differs by less than rounding: no file need hold it.
_UNHELD = {
    "norm_eps",
    "final_norm_eps",
    "init_scale",
    "target",  # compared by itself, where there is a decoder
    "keep_norm",
    "dropout",
    "layer_scale",
}
_LARGEST_EPS = 1e-5
"""Up to here the epsilons of LayerNorms change answers by about as much as rounding does."""


def _epsilons(config: Config) -> Iterator[tuple[str, float]]:
    yield "encoder.norm_eps", config.encoder.norm_eps
    if config.decoder:
        yield "decoder.norm_eps", config.decoder.norm_eps
        yield "decoder.final_norm_eps", config.decoder.final_norm_eps
    if isinstance(config, ClassifierConfig) and config.head.kind == "linear":
        yield "head.norm_eps", config.head.norm_eps


def _lost(wanted: Any, found: Any, name: str) -> Iterable[str]:
    """The settings in which two configs differ, as `name=value`."""
    if is_dataclass(wanted) and type(wanted) is type(found):
        for part in fields(wanted):
            if part.name not in _UNHELD:
                yield from _lost(
                    getattr(wanted, part.name), getattr(found, part.name), f"{name}.{part.name}".lstrip(".")
                )
    elif wanted != found:
        yield f"{name}={wanted}"
