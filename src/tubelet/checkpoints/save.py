"""Save a model in any layout: Tubelet's folder, or what another code base loads."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.checkpoints.families import LAYOUTS, writing_family
from tubelet.checkpoints.families.family import Family
from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.checkpoints.model_folder import WEIGHTS, Config, Model, write_model
from tubelet.checkpoints.model_readme import write_readme
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.tables import write_table
from tubelet.checkpoints.tensor_file import write_tensors
from tubelet.clips import Views
from tubelet.errors import UserError
from tubelet.files import replacing, replacing_in, write_errors, write_json
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig
from tubelet.settings import to_plain

LARGEST_EPS = 1e-5
"""Up to here the epsilons of LayerNorms change outputs by about as much as rounding does."""
_NOT_COMPARED = {"norm_eps", "final_norm_eps", "init_scale", "target", "keep_norm", "dropout", "layer_scale"}
"""Settings that only training needs, that change outputs less than rounding, or that are compared apart."""
_log = logging.getLogger("tubelet")


def save_model(model: Model, path: Path | str, layout: str = "tubelet") -> None:
    """Write a model.

    Args:
        model: the model.
        path: the folder to write for the layouts `tubelet` and `huggingface`, the file for the others.
        layout: `tubelet` stores everything: architecture, weights and card. `videomae`, `videomaev2`,
            `mae_st`, `mmaction2`, `mar` and `huggingface` are what those code bases load. They store nothing
            of the card, except that `huggingface` stores the class names and whether the model is
            multi-label; a log line names which class names, clip and views are lost. Folders also have a
            README.md, the hub's model card.

    Raises:
        UserError: there is no such layout, or it cannot hold this model; the message names what it cannot
            store.
        OSError: the disk is full, or the path cannot be written; nothing of the model is left then.
    """
    path = Path(path)
    if layout == "tubelet":
        _require_folder(path)
        write_model(path, model, model.state_dict())
        return
    family = writing_family(layout)
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    try:
        file = write_foreign(family, model.config, weights, model.card, layout)
    except UserError as error:
        others = ", ".join(["tubelet", *_layouts_that_hold(model, weights)])
        raise UserError(f"{error}. Layouts that hold this model: {others}") from None
    stored = family.read_card(file, model.config)
    if model.card.multi_label and not stored.multi_label:
        raise UserError(f"{file.source} cannot hold this model: it cannot store multi_label=True")
    if family.writes_folder:
        _require_folder(path)
        with replacing_in(path) as folder:
            for name, settings in file.others.items():
                write_json(folder / name, settings)
            write_tensors(folder / WEIGHTS, file.weights)
            write_readme(folder, model, model.card, "huggingface")
    else:
        _require_file(path, layout)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, write_errors(), temporary.open("wb") as opened:
            torch.save(family.content(model.config, model.card, file.weights), opened)
    if lost := list(_lost(model.card, stored)):
        _log.warning("%s does not store %s", file.source, ", ".join(lost))


def _layouts_that_hold(model: Model, weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the layouts of other code bases that can store the model."""
    for layout, family in LAYOUTS.items():
        with suppress(UserError):
            write_foreign(family, model.config, weights, model.card, layout)
            yield layout


def _require_folder(path: Path) -> None:
    if path.is_file():
        raise UserError(f"{path} is a file: choose a folder for the model")


def _require_file(path: Path, layout: str) -> None:
    if path.suffix == ".safetensors":
        raise UserError(f"{path}: the layout {layout} is a file of torch.save: name it {path.stem}.pth")
    if path.is_dir():
        raise UserError(f"{path} is a folder: the layout {layout} is one file, such as {path / 'model.pth'}")


def write_foreign(
    family: Family, config: Config, weights: Mapping[str, Tensor], card: ModelCard, layout: str
) -> Checkpoint:
    """Return a model as a checkpoint of another code base.

    Raises:
        UserError: the layout cannot hold the model; the message names what it cannot store.
    """
    if refusal := family.refusal(config):
        raise UserError(f"the layout {layout} cannot hold {refusal}")
    theirs = write_table(family.table(config), weights, layout)
    content = family.content(config, card, theirs)
    others = {name: member for name, member in content.items() if member is not theirs}
    file = Checkpoint(f"the layout {layout}", theirs, others)
    stored = family.read_config(file, _hints(config))
    lost = [*_differences(config, stored)]
    if config.decoder:
        lost += _differences(config.target, stored.target, "target")
    lost += [f"{name}={value:g}" for name, value in _epsilons(config) if not 0 <= value <= LARGEST_EPS]
    if lost:
        raise UserError(f"the layout {layout} cannot hold this model: it cannot store " + ", ".join(lost))
    return file


def _hints(config: Config) -> ArchitectureHints:
    """What one must give to read the file again."""
    bridge = config.head if isinstance(config, ClassifierConfig) and config.head.kind == "bridging" else None
    return ArchitectureHints(
        heads=config.encoder.heads,
        decoder_heads=config.decoder.heads if config.decoder else None,
        bridge_heads=bridge.heads if bridge else None,
        image_size=config.encoder.image_size,
        frames=config.encoder.frames,
    )


def _epsilons(config: Config) -> Iterator[tuple[str, float]]:
    yield "encoder.norm_eps", config.encoder.norm_eps
    if config.decoder:
        yield "decoder.norm_eps", config.decoder.norm_eps
        yield "decoder.final_norm_eps", config.decoder.final_norm_eps
    if isinstance(config, ClassifierConfig) and config.head.kind == "linear":
        yield "head.norm_eps", config.head.norm_eps


def _differences(wanted: Any, stored: Any, name: str = "") -> Iterator[str]:
    """The settings in which two configs differ, as `name=value`."""
    if is_dataclass(wanted) and type(wanted) is type(stored):
        for part in fields(wanted):
            if part.name not in _NOT_COMPARED:
                path = f"{name}.{part.name}".lstrip(".")
                yield from _differences(getattr(wanted, part.name), getattr(stored, part.name), path)
    elif wanted != stored:
        yield f"{name}={wanted}"


def _lost(card: ModelCard, stored: ModelCard) -> Iterator[str]:
    """What the card says and the file, read again, does not."""
    if card.classes and not stored.classes:
        yield "the class names"
    if card.clip not in (None, stored.clip):
        yield f"clip={to_plain(card.clip)}"
    if card.views not in (None, Views(), stored.views):
        given = {name: value for name, value in to_plain(card.views).items() if value is not None}
        yield f"views={given}"
