"""What both tasks have in common: one model, and what it offers to training."""

from collections.abc import Mapping
from typing import Generic, TypeVar

from torch import Tensor, nn

from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.classifier import VideoClassifier
from tubelet.train.task import Task

Trained = TypeVar("Trained", MaskedAutoencoder, VideoClassifier)


class ModelTask(Task, Generic[Trained]):
    """A task that trains one model; the model's parameters are called `model.NAME` in it.

    Args:
        model: the model to train.
    """

    def __init__(self, model: Trained) -> None:
        super().__init__()
        self.model: Trained = model

    @property
    def blocks(self) -> list[nn.Module]:
        """The model's transformer blocks, the units of sharding and compilation."""
        return self.model.blocks

    def learned_tokens(self) -> set[str]:
        """Return the names of the model's learned tokens and positions."""
        return {f"model.{name}" for name in self.model.learned_tokens()}

    def model_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the model's part of this task's weights, by the model's names."""
        return {
            name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")
        }
