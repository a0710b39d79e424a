"""Files in, class names out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tubelet.clips import AnyClip, Views
from tubelet.data.dataset import read_views
from tubelet.errors import UserError
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.classifier import VideoClassifier


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video.

    Attributes:
        probabilities: (K,) float32, averaged over the views; they add up to 1, unless the model's card says
            that a video may show several classes.
        classes: (K) class names; numbers where the model has no names.
    """

    probabilities: np.ndarray
    classes: tuple[str, ...]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k most probable classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]


def predict(
    model: MaskedAutoencoder | VideoClassifier, path: Path | str, *, views: Views | None = None
) -> Prediction:
    """Recognise a video.

    Args:
        model: a classifier, as `load_model` gives it.
        path: the video.
        views: clips and crops to average over; None is what the model's card says.

    Raises:
        UserError: the model is not a classifier.
        VideoError: the video cannot be read.
    """
    if not isinstance(model, VideoClassifier):
        raise UserError("an autoencoder names no classes: fine-tune it first (tubelet finetune)")
    video = read_views(str(path), clip_of(model), views or views_of(model), model.config.encoder.image_size)
    device = next(model.parameters()).device
    with torch.no_grad():
        probabilities = model.probabilities(model(video.to(device))).mean(0).cpu().numpy()
    names = model.card.classes or tuple(map(str, range(len(probabilities))))
    return Prediction(probabilities, names)


def clip_of(model: MaskedAutoencoder | VideoClassifier) -> AnyClip:
    """How the model's card says clips are sampled.

    Raises:
        UserError: it does not say.
    """
    if model.card.clip is None:
        raise UserError("the model's card does not say how its clips are sampled")
    return model.card.clip


def views_of(model: VideoClassifier) -> Views:
    """The views that the model's card says a test averages over."""
    return model.card.views or Views()
