"""The code bases whose checkpoints are read and written, one file each; here a checkpoint's is detected."""

from collections.abc import Iterator
from dataclasses import replace

from tubelet.checkpoints.families.family import Family
from tubelet.checkpoints.families.huggingface import HuggingFace
from tubelet.checkpoints.families.mae_st import MAEST
from tubelet.checkpoints.families.mar import MAR
from tubelet.checkpoints.families.mmaction2 import MMAction2
from tubelet.checkpoints.families.videomae import VideoMAE
from tubelet.checkpoints.hub import HUB_CONFIG
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.tables import Weights
from tubelet.errors import UserError, did_you_mean

FAMILIES: tuple[Family, ...] = (VideoMAE(), MAEST(), MMAction2(), MAR(), HuggingFace())
"""All families. No file matches two of them."""
LAYOUTS = {layout: family for family in FAMILIES for layout in family.layouts}
"""The foreign layouts that can be written, and the family of each."""


def detect_family(file: Checkpoint) -> tuple[Family, Checkpoint]:
    """Find out from the tensor names which code base wrote a checkpoint.

    Returns:
        The family, and the checkpoint with its names as that family spells them.

    Raises:
        UserError: the names are not those of any family, or config.json names another kind of model.
    """
    for weights in _without_prefixes(file.weights):
        for family in FAMILIES:
            if family.matches(weights):
                _check_model_type(family, file)
                return family, replace(file, weights=weights)
    if "encoder.embed.project.weight" in file.weights:
        raise UserError(
            f"{file.source} has Tubelet's own weights: give the folder with config.json beside it"
        )
    raise UserError(
        f"{file.source} is not from a known family ({', '.join(family.title for family in FAMILIES)}): its "
        f"first tensors are {', '.join(list(file.weights)[:4])}"
    )


def _without_prefixes(weights: Weights) -> Iterator[Weights]:
    """Yield the weights as they are, then without the prefixes of wrappers and of larger models."""
    yield weights
    for prefix in ("backbone.", "model.", "module."):
        if all(name.startswith(prefix) for name in weights):
            yield from _without_prefixes({name.removeprefix(prefix): x for name, x in weights.items()})


def _check_model_type(family: Family, file: Checkpoint) -> None:
    if HUB_CONFIG in file.others:
        found = str(file.others[HUB_CONFIG].get("model_type"))
        if family.model_type is None or not found.startswith(family.model_type):
            raise UserError(
                f"{file.source}: its weights have the names of {family.title}, but {HUB_CONFIG} says "
                f"model_type {found}; expected {family.model_type}"
            )


def writing_family(layout: str) -> Family:
    """Return the family that writes a layout.

    Raises:
        UserError: there is no such layout.
    """
    if layout not in LAYOUTS:
        known = ("tubelet", *LAYOUTS)
        raise UserError(f"layout is one of {', '.join(known)}, found {layout}{did_you_mean(layout, known)}")
    return LAYOUTS[layout]
