"""What a model needs besides its weights to be used right."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tubelet.clips import AnyClip, Views


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is stored beside a model's weights for its users.

    Attributes:
        classes: class names by index; empty if there are no names.
        multi_label: whether a video may have more than one class, each with its own probability.
        clip: how clips were sampled in training; None if unknown.
        views: clips and crops that a test averages over; None if unknown.
        provenance: where the model comes from: recipe, versions, results, family; plain data.
        license: the license of the weights; None if unknown.
    """

    classes: tuple[str, ...] = ()
    multi_label: bool = False
    clip: AnyClip | None = None
    views: Views | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    license: str | None = None
