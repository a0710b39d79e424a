"""Tubelet's own model folder: weights, architecture and card.

`model.safetensors` has the weights, `config.json` the architecture and the card, and `README.md` the same in
words, as the model card of the Hugging Face hub.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from tubelet.checkpoints.model_readme import write_readme
from tubelet.checkpoints.other_files import describe_other_folder
from tubelet.checkpoints.read_file import float_tensors, read_json
from tubelet.checkpoints.tables import Entry, Rename, read_table
from tubelet.checkpoints.tensor_file import read_tensors, write_tensors
from tubelet.errors import UserError, short_repr
from tubelet.files import replacing_in, write_json
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.heads import AttentiveHeadConfig, BridgingHeadConfig, MlpHeadConfig
from tubelet.settings import parse, to_plain

Model = MaskedAutoencoder | VideoClassifier
Config = AutoencoderConfig | ClassifierConfig
WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT_VERSION = 1
"""Of config.json, its member `tubelet`."""
_MAX_SIZE_RATIO = 16
"""Of a matrix of the model to the file's largest tensor. Below it the tensors are compared one by one."""
BAD_SIZE_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors of building a model with impossible sizes; there are too many combinations to check each."""
_CONFIGS: dict[str, Any] = {"autoencoder": AutoencoderConfig, "classifier": ClassifierConfig}


def build_model(config: Config) -> Model:
    """Return a model with random weights."""
    return MaskedAutoencoder(config) if isinstance(config, AutoencoderConfig) else VideoClassifier(config)


def build_empty(config: Config, weights: Mapping[str, Tensor], source: str) -> Model:
    """Return a model for the weights of a file, without memory for its parameters; `fill` gives them theirs.

    Args:
        config: the architecture.
        weights: the tensors of the file.
        source: what has the architecture, for messages.

    Raises:
        UserError: the sizes do not fit each other, or the weights are far too small for them.
    """
    try:
        _require_possible(config, weights, source)
        with torch.device("meta"):  # Fixed position tables are computed all the same.
            return build_model(config)
    except UserError:
        raise
    except BAD_SIZE_ERRORS as error:
        raise UserError(f"{source}: its sizes do not fit each other: {error}") from None


def fill(model: Model, table: Iterable[Entry], weights: Mapping[str, Tensor], source: str) -> None:
    """Give an empty model the weights of a file.

    Args:
        model: the model, from `build_empty`.
        table: an entry for each tensor of the file.
        weights: the tensors of the file, which stay as they are.
        source: the file, for messages.

    Raises:
        UserError: the tensors do not fit the architecture.
    """
    ours = read_table(table, weights, model.state_dict(), source)
    own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in ours.items()}
    model.load_state_dict(own, assign=True)


def _require_possible(config: Config, weights: Mapping[str, Tensor], source: str) -> None:
    """Compare the sizes that cost memory or time with the weights, before a model is built."""
    encoder, decoder = config.encoder, config.decoder
    head = config.head if isinstance(config, ClassifierConfig) else None
    bridge = head if isinstance(head, BridgingHeadConfig) else None
    parts = [part for part in (encoder, decoder, bridge) if part]
    depth = max(part.depth for part in parts)
    if depth > len(weights):
        raise UserError(
            f"{source}: expected no more blocks than its {len(weights)} tensors, found depth={depth}"
        )
    largest = max((tensor.numel() for tensor in weights.values()), default=0)
    sizes = [encoder.dim * encoder.patch_values, *(part.dim**2 for part in parts)]
    if isinstance(head, MlpHeadConfig):
        sizes.append(encoder.dim * head.dim)
    if isinstance(head, AttentiveHeadConfig):
        sizes.append(round(encoder.dim**2 * head.mlp_ratio))
    if max(sizes) > _MAX_SIZE_RATIO * largest:
        raise UserError(
            f"{source}: its settings need larger matrices than the weights have, whose largest has {largest} "
            f"numbers; found dim={encoder.dim}, tubelet={encoder.tubelet} and patch_size={encoder.patch_size}"
            + (f", decoder.dim={decoder.dim}" if decoder else "")
        )


def write_model(
    folder: Path, model: Model, weights: Mapping[str, Tensor], card: ModelCard | None = None
) -> None:
    """Write a model with the given weights, such as an average over training, in place of those it has.

    Args:
        folder: the model's folder.
        model: the architecture.
        weights: the weights, by the model's names.
        card: in place of the model's card.

    Raises:
        UserError: the card does not fit the model.
    """
    card = card or model.card
    _check_card(card, model.config, "the model")
    config = {
        "tubelet": FORMAT_VERSION,
        "kind": "autoencoder" if isinstance(model, MaskedAutoencoder) else "classifier",
        "model": to_plain(model.config),
        "card": to_plain(card),
    }
    with replacing_in(folder) as temporary:
        write_tensors(temporary / WEIGHTS, weights)
        write_json(temporary / CONFIG, config)
        write_readme(temporary, model, card, "tubelet")


def is_model_folder(path: Path) -> bool:
    """Return whether a path is a folder that is not one of Hugging Face."""
    if not path.is_dir():
        return False
    return not (path / CONFIG).is_file() or "model_type" not in read_json(path / CONFIG)


def read_model(folder: Path, *, allow_nonfinite: bool = False) -> Model:
    """Read a model.

    Raises:
        UserError: the folder has no model, or it is damaged, of another version or not of finite numbers.
    """
    config = _read_config(folder)
    source = str(folder / CONFIG)
    architecture = _parse_architecture(config, source)
    card: ModelCard = parse(ModelCard, config.get("card", {}), source)
    try:
        weights = float_tensors(
            read_tensors(folder / WEIGHTS), str(folder / WEIGHTS), allow_nonfinite=allow_nonfinite
        )
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    model = build_empty(architecture, weights, source)
    model.card = card
    fill(model, [Rename(name, name) for name in model.state_dict()], weights, str(folder / WEIGHTS))
    _check_card(card, architecture, source)
    return model


def _check_card(card: ModelCard, config: Config, source: str) -> None:
    classes = config.classes if isinstance(config, ClassifierConfig) else 0
    card.require_fit(frames=config.encoder.frames, classes=classes, source=source)


def read_architecture(folder: Path) -> Config:
    """Read the architecture of the model in a folder, without its weights.

    Raises:
        UserError: the folder has no model, or it is damaged or of another version.
    """
    return _parse_architecture(_read_config(folder), str(folder / CONFIG))


def _read_config(folder: Path) -> dict[str, Any]:
    if (folder / CONFIG).is_file():
        return read_json(folder / CONFIG)
    if (folder / "recipe.yaml").is_file():
        raise UserError(f"the run in {folder} has not saved a model yet: repeat its command to resume it")
    raise UserError(
        describe_other_folder(folder)
        or f"no model in {folder}: expected a folder with {CONFIG} and {WEIGHTS}"
    )


def _parse_architecture(config: Mapping[str, Any], source: str) -> Config:
    version, kind = config.get("tubelet"), config.get("kind")
    if version != FORMAT_VERSION or not isinstance(kind, str) or kind not in _CONFIGS:
        raise UserError(
            f"{source} is not a model that this version reads: expected tubelet={FORMAT_VERSION} and a kind "
            f"of {', '.join(_CONFIGS)}, found tubelet={short_repr(version)} and kind={short_repr(kind)}"
        )
    architecture: Config = parse(_CONFIGS[kind], config.get("model", {}), source)
    return architecture
