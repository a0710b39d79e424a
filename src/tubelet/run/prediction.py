"""Video files in, class names out."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tubelet.checkpoints.model_folder import Model
from tubelet.clips import AnyClip, Views
from tubelet.data.dataset import read_views
from tubelet.data.protocols import named_protocol
from tubelet.errors import UserError
from tubelet.models.classifier import VideoClassifier
from tubelet.run.inference import (
    combined_probabilities,
    inference,
    on_device,
    require_classifier,
    require_finite,
)


@dataclass(frozen=True)
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


def predict(
    model: Model | str | Path,
    path: str | Path,
    *,
    protocol: str | None = None,
    views: Views | None = None,
    start: float | None = None,
    end: float | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> Prediction:
    """Recognize the action in a video.

    Args:
        model: a classifier, or anything that `load_model` reads (for many videos, load it once).
        path: the video.
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
            such protocol, the device or precision is not available, the model cannot be read, or its
            probabilities are not finite.
        VideoError: the video cannot be read.
    """
    source = model if isinstance(model, str | Path) else "the model"
    loaded, runtime = on_device(model, device, precision_of_test(precision, protocol))
    classifier = require_classifier(loaded, source)
    clip, views = clip_and_views(classifier, protocol=protocol, views=views)
    size = classifier.config.encoder.image_size
    video = read_views(path, clip, views, size, start=start, end=end)
    with inference(classifier, runtime):
        logits = classifier(video.to(runtime.device))
    combined = combined_probabilities(classifier, logits, views).cpu()
    require_finite(combined, [str(path)])
    probabilities = combined[0].numpy()
    return Prediction(probabilities, classifier.card.classes or tuple(map(str, range(len(probabilities)))))


def clip_and_views(
    model: VideoClassifier,
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


def views_of(model: VideoClassifier) -> Views:
    """Return the clips and crops that a test averages over, by the model's card, or else one view."""
    return model.card.views or Views()
