"""The classes of a video, and which clips and views of it are looked at."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.checkpoints.model_folder import Model
from tubelet.clips import AnyClip, Views
from tubelet.data.protocols import named_protocol
from tubelet.errors import UserError
from tubelet.models.encoder import EncoderConfig
from tubelet.recipe.schema import PredictRecipe
from tubelet.run.tested_videos import require_frames
from tubelet.settings import parse, to_plain


@dataclass(frozen=True, repr=False, eq=False)
class Prediction:
    """The class probabilities of one video, or of a window of it.

    Attributes:
        probabilities: (K,) float32, averaged over the views; they add up to 1 unless the model is
            multi-label.
        classes: K class names; numbers if the model has no names.
        video: the file as it was named, or `clip`.
        start: seconds at which the window or the segment begins; None for the start of the video.
        end: seconds at which it ends (exclusive); None for the end of the video.
    """

    probabilities: np.ndarray
    classes: tuple[str, ...]
    video: str
    start: float | None = None
    end: float | None = None

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {probability:.1%}" for name, probability in self.top(3))
        return f"Prediction({best}; {len(self.classes)} classes)"

    def _repr_html_(self) -> str:
        """Return the five most probable classes as a table, for notebooks."""
        rows = (f"<tr><td>{html.escape(name)}</td><td>{share:.1%}</td></tr>" for name, share in self.top(5))
        return f"<table>{''.join(rows)}</table>"


@dataclass(frozen=True)
class UnreadableVideo:
    """A video, or the rest of one, that could not be read.

    Attributes:
        video: the file as it was named.
        reason: a sentence that begins with the file's name.
    """

    video: str
    reason: str


def require_clip(clip: Tensor, encoder: EncoderConfig) -> None:
    """Raise a UserError if a clip is not uint8 (T, C, H, W) of the size that the model takes."""
    expected = (encoder.frames, len(encoder.mean), encoder.image_size, encoder.image_size)
    if clip.dtype != torch.uint8 or tuple(clip.shape) != expected:
        raise UserError(
            f"a clip must be uint8 (T, C, H, W) = {expected}, as read_clip(video, clip, "
            f"size={encoder.image_size}) gives it, found {str(clip.dtype).removeprefix('torch.')} "
            f"{tuple(clip.shape)}"
        )


def clip_and_views(
    model: Model,
    *,
    protocol: str | None = None,
    clip: AnyClip | None = None,
    views: Views | None = None,
) -> tuple[AnyClip, Views]:
    """Return which clips and views a test takes: those given, else the protocol's, else the card's.

    Raises:
        UserError: there is no such protocol, or no clip is given and the card has none.
    """
    if protocol is None:
        usual = views_of(model)
    else:
        named = named_protocol(protocol)
        usual = named.views
        clip = clip or replace(named.clip, frames=model.config.encoder.frames)
    return clip or clip_of(model), views.with_defaults_of(usual) if views else usual


def asked_clip_and_views(model: Model, recipe: PredictRecipe) -> tuple[AnyClip, Views]:
    """Return which clips and views the settings of a command ask for.

    Raises:
        UserError: as `clip_and_views` and `changed_clip`; or a clip does not have the model's frames.
    """
    clip, views = clip_and_views(model, protocol=recipe.protocol)
    clip = changed_clip(clip, recipe.clip)
    require_frames(clip, model.config.encoder, setting="clip.frames")
    return clip, recipe.views.over(views)


@dataclass(frozen=True)
class _ClipSetting:
    clip: AnyClip


def changed_clip(clip: AnyClip, changes: Mapping[str, Any]) -> AnyClip:
    """Return a clip sampling with some settings changed; those of another `kind` are its defaults.

    Raises:
        UserError: there is no such setting, or a value does not fit.
    """
    same_kind = changes.get("kind", clip.kind) == clip.kind
    kept = to_plain(clip) if same_kind else {"frames": clip.frames}
    return parse(_ClipSetting, {"clip": kept | dict(changes)}, "the command line").clip


def precision_of_test(precision: str | None, protocol: str | None) -> str | None:
    """Return the precision of a test: the given one, else the protocol's.

    Raises:
        UserError: there is no such protocol.
    """
    if precision in (None, "auto") and protocol is not None:
        return named_protocol(protocol).precision
    return precision


def clip_of(model: Model) -> AnyClip:
    """Return how clips are sampled, as the model's card says.

    Raises:
        UserError: it does not say.
    """
    if model.card.clip is None:
        raise UserError("the model's card does not say how its clips are sampled")
    return model.card.clip


def views_of(model: Model) -> Views:
    """Return the clips and crops that a test averages over, by the model's card, or else one view."""
    return model.card.views or Views()
