"""What a model needs besides its weights to be used right."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Travels with the weights, as plain data.

    Attributes:
        classes: class names by index; empty where there are none.
        several: whether a video may show several classes at once, each with a probability of its own.
        clip: how clips were sampled in training (the fields of a `DenseClip` or `SegmentClip`).
        views: clips and crops that a test averages over (the fields of `Views`).
        provenance: where the model comes from: recipe, versions, results.
        license: under which the weights may be used; None where unknown.
    """

    classes: tuple[str, ...] = ()
    multi_label: bool = False
    clip: Mapping[str, Any] = field(default_factory=dict)
    views: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    license: str | None = None
