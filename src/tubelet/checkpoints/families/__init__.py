"""The code bases whose checkpoints are read and written, one file each."""

from tubelet.checkpoints.families.family import Family
from tubelet.checkpoints.families.huggingface import HuggingFace
from tubelet.checkpoints.families.mae_st import MAEST
from tubelet.checkpoints.families.mar import MAR
from tubelet.checkpoints.families.mmaction2 import MMAction2
from tubelet.checkpoints.families.videomae import VideoMAE
from tubelet.errors import UserError, did_you_mean

FAMILIES: tuple[Family, ...] = (VideoMAE(), MAEST(), MMAction2(), MAR(), HuggingFace())
"""All families. No file matches two of them."""
LAYOUTS = {layout: family for family in FAMILIES for layout in family.layouts}
"""The foreign layouts that can be written, and the family of each."""


def writing_family(layout: str) -> Family:
    """Return the family that writes a layout.

    Raises:
        UserError: there is no such layout.
    """
    if layout not in LAYOUTS:
        known = ("tubelet", *LAYOUTS)
        raise UserError(f"layout is one of {', '.join(known)}, found {layout}{did_you_mean(layout, known)}")
    return LAYOUTS[layout]
