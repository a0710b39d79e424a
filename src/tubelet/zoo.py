"""Models on disk: a folder with `model.safetensors` and a `config.json` that says all about it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tubelet.errors import UserError
from tubelet.files import replacing
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.recipe import parse, to_plain

Model = MaskedAutoencoder | VideoClassifier

FORMAT = 1  # of config.json
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_model(model: Model, folder: Path | str) -> None:
    """Write a model as a Tubelet folder: architecture, weights, and its card."""
    write_model(Path(folder), model, dict(model.state_dict()))


def write_model(folder: Path, model: Model, weights: dict[str, Tensor]) -> None:
    """As `save_model`, with weights from elsewhere, such as an average of them."""
    config = {
        "tubelet": FORMAT,
        "kind": "autoencoder" if isinstance(model, MaskedAutoencoder) else "classifier",
        "model": to_plain(model.config),
        "card": asdict(model.card),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as path:
        path.write_bytes(save({name: tensor.contiguous() for name, tensor in weights.items()}))
    with replacing(folder / CONFIG) as path:
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_model(source: Path | str) -> Model:
    """Read a model, in evaluation mode on the CPU.

    Args:
        source: a Tubelet folder, such as a finished run.

    Raises:
        UserError: there is no model, its files are damaged, or weights and architecture do not fit.
    """
    folder = Path(source)
    config = _read_config(folder)
    kinds: dict[str, tuple[Any, Any]] = {
        "autoencoder": (AutoencoderConfig, MaskedAutoencoder),
        "classifier": (ClassifierConfig, VideoClassifier),
    }
    if config.get("tubelet") != FORMAT or config.get("kind") not in kinds:
        raise UserError(
            f"{folder / CONFIG} is not a model that this version reads: expected tubelet={FORMAT} and a kind "
            f"of {', '.join(kinds)}, found tubelet={config.get('tubelet')} and kind={config.get('kind')}"
        )
    make_config, make_model = kinds[config["kind"]]
    model: Model = make_model(parse(make_config, config["model"], str(folder / CONFIG)))
    model.card = parse(ModelCard, config.get("card", {}), str(folder / CONFIG))
    try:
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    _check(model, weights, folder)
    model.load_state_dict(weights)
    return model.eval()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(_no_model(folder))
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a model's config: expected an object, found {type(config).__name__}")
    return config


def _no_model(folder: Path) -> str:
    if not folder.exists():
        return f"no model at {folder}: there is no such folder"
    if (folder / "recipe.yaml").is_file():
        return f"the run in {folder} has not saved a model yet: give its command again to go on with it"
    return f"no model in {folder}: expected a folder with {CONFIG} and {WEIGHTS}"


def _check(model: Model, weights: dict[str, Tensor], folder: Path) -> None:
    """Every weight is there, of the right shape, and none is left over."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [
        f"{name}: expected {expected.get(name, 'nothing')}, found {found.get(name, 'nothing')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if wrong:
        listed = "\n  ".join(wrong[:10])
        raise UserError(f"{folder / WEIGHTS} does not fit {CONFIG}, {len(wrong)} weights differ:\n  {listed}")
