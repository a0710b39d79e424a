"""What a model needs besides its weights to be used right."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tubelet.clips import AnyClip, Views
from tubelet.errors import UserError, short_repr


@dataclass(frozen=True, kw_only=True, repr=False)
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

    def __post_init__(self) -> None:
        for name in self.classes:
            if "\n" in name or "\r" in name:
                raise UserError(f"a class name must be one line, found {short_repr(name)}")

    def __repr__(self) -> str:
        kind = "multi-label " if self.multi_label else ""
        parts = [f"{len(self.classes)} {kind}classes" if self.classes else "no class names"]
        parts += [f"clip={self.clip}"] if self.clip else []
        parts += [f"views={self.views.clips} x {self.views.crops}"] if self.views else []
        parts += [f"license={self.license}"] if self.license else []
        return f"ModelCard({', '.join(parts)})"

    def require_fit(self, *, frames: int, classes: int, source: str) -> None:
        """Raise a UserError if the names are not as many as the classes, or clips have other frames.

        Args:
            frames: frames of the model's clips.
            classes: number of its classes; 0 if it is not a classifier.
            source: what has this card, for the message.
        """
        if classes and self.classes and len(self.classes) != classes:
            raise UserError(
                f"{source}: expected as many class names (card.classes) as classes ({classes}), "
                f"found {len(self.classes)}"
            )
        if self.clip and self.clip.frames != frames:
            raise UserError(
                f"{source}: expected clips (card.clip) of the model's {frames} frames, found "
                f"frames={self.clip.frames}"
            )
