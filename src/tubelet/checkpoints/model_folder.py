"""Tubelet's own model folder: `model.safetensors`, and `config.json` with the architecture and the card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tubelet.checkpoints.read_file import read_json
from tubelet.checkpoints.tables import Rename, read_table
from tubelet.errors import UserError
from tubelet.files import replacing, write_json
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.settings import parse, to_plain

Model = MaskedAutoencoder | VideoClassifier
WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT_VERSION = 1
"""Of config.json, its member `tubelet`."""
BAD_SIZE_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What sizes raise that do not make a model; there are too many combinations to check each of them."""
_CONFIGS: dict[Any, Any] = {"autoencoder": AutoencoderConfig, "classifier": ClassifierConfig}


def build_model(config: AutoencoderConfig | ClassifierConfig) -> Model:
    """Return a model with random weights."""
    return MaskedAutoencoder(config) if isinstance(config, AutoencoderConfig) else VideoClassifier(config)


def write_model(folder: Path, model: Model, weights: Mapping[str, Tensor]) -> None:
    """Write a model with the given weights, such as an average over training, instead of its weights."""
    config = {
        "tubelet": FORMAT_VERSION,
        "kind": "autoencoder" if isinstance(model, MaskedAutoencoder) else "classifier",
        "model": to_plain(model.config),
        "card": to_plain(model.card),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as path:
        path.write_bytes(save({name: tensor.contiguous() for name, tensor in weights.items()}))
    write_json(folder / CONFIG, config)


def is_model_folder(path: Path) -> bool:
    """Return whether a path is a folder that is not one of Hugging Face."""
    if not path.is_dir():
        return False
    return not (path / CONFIG).is_file() or "model_type" not in read_json(path / CONFIG)


def read_model(folder: Path) -> Model:
    """Read a model.

    Raises:
        UserError: the folder has no model, or it is damaged or of another version.
    """
    config = _read_config(folder)
    source = str(folder / CONFIG)
    architecture = _parse_architecture(config, source)
    try:
        model = build_model(architecture)
    except BAD_SIZE_ERRORS as error:
        raise UserError(f"{source}: its sizes do not fit each other: {error}") from None
    model.card = parse(ModelCard, config.get("card", {}), source)
    try:
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    expected = model.state_dict()
    same_names = [Rename(name, name) for name in expected]
    model.load_state_dict(read_table(same_names, weights, expected, str(folder / WEIGHTS)))
    return model


def read_architecture(folder: Path) -> AutoencoderConfig | ClassifierConfig:
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
    raise UserError(f"no model in {folder}: expected a folder with {CONFIG} and {WEIGHTS}")


def _parse_architecture(config: Mapping[str, Any], source: str) -> AutoencoderConfig | ClassifierConfig:
    if config.get("tubelet") != FORMAT_VERSION or config.get("kind") not in _CONFIGS:
        raise UserError(
            f"{source} is not a model that this version reads: expected tubelet={FORMAT_VERSION} and a kind "
            f"of {', '.join(_CONFIGS)}, found tubelet={config.get('tubelet')} and kind={config.get('kind')}"
        )
    architecture: AutoencoderConfig | ClassifierConfig
    architecture = parse(_CONFIGS[config["kind"]], config.get("model", {}), source)
    return architecture
