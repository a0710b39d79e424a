"""Video files in, class names out."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from tubelet.checkpoints.model_folder import Model
from tubelet.clips import AnyClip, Views
from tubelet.data.dataset import read_views
from tubelet.data.protocols import named_protocol
from tubelet.errors import UserError
from tubelet.models.classifier import VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.run.inference import (
    combined_probabilities,
    inference,
    on_device,
    require_classifier,
    require_finite,
)
from tubelet.train.runtime import Runtime

VideoSource = str | Path | Tensor


@dataclass(frozen=True, repr=False, eq=False)
class Prediction:
    """The class probabilities of one video.

    Attributes:
        probabilities: (K,) float32, averaged over the views; they add up to 1 unless the model is
            multi-label.
        classes: K class names; numbers if the model has no names.
    """

    probabilities: np.ndarray
    classes: tuple[str, ...]

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


@overload
def predict(  # type: ignore[overload-overlap]  # a path as text is a sequence of text, too
    model: Model | str | Path,
    video: VideoSource,
    *,
    protocol: str | None = None,
    views: Views | None = None,
    start: float | None = None,
    end: float | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> Prediction: ...


@overload
def predict(
    model: Model | str | Path,
    video: Sequence[VideoSource],
    *,
    protocol: str | None = None,
    views: Views | None = None,
    start: float | None = None,
    end: float | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> list[Prediction]: ...


def predict(
    model: Model | str | Path,
    video: VideoSource | Sequence[VideoSource],
    *,
    protocol: str | None = None,
    views: Views | None = None,
    start: float | None = None,
    end: float | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> Prediction | list[Prediction]:
    """Recognize the action in a video, or in each video of a list.

    Args:
        model: a classifier, or anything that `load_model` reads (for many videos, load it once).
        video: a file, a folder of images or a URL; a clip as `read_clip` gives it, uint8 (T, C, H, W) of the
            model's size, which is one view; or a list of these.
        protocol: the published test whose clips and views to take, as for `evaluate`; None is as the model's
            card says.
        views: clips and crops to average over; None is what the protocol or the card says.
        start: seconds at which the segment to recognize begins; None for the start of the video.
        end: seconds at which it ends (exclusive); None for the end of the video.
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "mps", "cuda" or a certain GPU such as "cuda:1".
            With None a model that is given as an object stays where it is, and one that is read goes to the
            best device.
        precision: "fp32", "bf16" or "fp16"; None is that of the protocol, else that of the model's recipe,
            fp32 if its card has no recipe.

    Raises:
        UserError: the model is not a classifier, its card does not say how clips are sampled, there is no
            such protocol, the device or precision is not available, the model cannot be read, a clip is not
            of its size or is given with views or times, or its probabilities are not finite.
        VideoError: the video cannot be read.
    """
    source = model if isinstance(model, str | Path) else "the model"
    loaded, runtime = on_device(model, device, precision_of_test(precision, protocol))
    classifier = require_classifier(loaded, source)
    videos = [video] if isinstance(video, VideoSource) else list(video)
    names = [f"clip {k}" if isinstance(each, Tensor) else str(each) for k, each in enumerate(videos)]
    if any(isinstance(each, Tensor) for each in videos) and (protocol, views, start, end) != (None,) * 4:
        raise UserError("a clip is one view: give the video's file to use protocol, views, start or end")
    found = [
        _predict(classifier, runtime, name, *_views_of_source(classifier, each, protocol, views, start, end))
        for name, each in zip(names, videos, strict=True)
    ]
    return found[0] if isinstance(video, VideoSource) else found


def _views_of_source(
    model: VideoClassifier,
    source: VideoSource,
    protocol: str | None,
    views: Views | None,
    start: float | None,
    end: float | None,
) -> tuple[Tensor, Views]:
    """Return the views of a video, uint8 (V, T, C, H, W), and how they were taken."""
    if isinstance(source, Tensor):
        require_clip(source, model.config.encoder)
        return source[None], Views()
    clip, views = clip_and_views(model, protocol=protocol, views=views)
    return read_views(source, clip, views, model.config.encoder.image_size, start=start, end=end), views


def _predict(model: VideoClassifier, runtime: Runtime, name: str, video: Tensor, views: Views) -> Prediction:
    """Return the prediction of one video from its views, uint8 (V, T, C, H, W)."""
    with inference(model, runtime):
        logits = model(video.to(runtime.device))
    combined = combined_probabilities(model, logits, views).cpu()
    require_finite(combined, [name])
    probabilities = combined[0].numpy()
    return Prediction(probabilities, model.card.classes or tuple(map(str, range(len(probabilities)))))


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
