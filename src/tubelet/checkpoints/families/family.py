"""What a code base must define so that its checkpoints can be read and written."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.checkpoints.model_folder import Config
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.checkpoints.tables import Entry, Weights
from tubelet.clips import AnyClip, DenseClip, SegmentClip
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig

SSV2_CLASSES = 174
"""Number of classes of Something-Something V2, and of no other data set that a family has published for."""


class Family(ABC):
    """A public code base and the layout of its checkpoints.

    Attributes:
        name: the family in a model's provenance.
        title: the code bases, for messages.
        layouts: the names of the layout that it writes.
        head: the kind of head that its classifiers have.
        model_type: how `model_type` begins in the config.json of its Hugging Face folders; None if it has no
            such folders.
        writes_folder: whether it writes a folder with JSON members, not one file of torch.save.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    layouts: ClassVar[tuple[str, ...]]
    head: ClassVar[str] = "linear"
    model_type: ClassVar[str | None] = None
    writes_folder: ClassVar[bool] = False

    @abstractmethod
    def matches(self, weights: Mapping[str, Tensor]) -> bool:
        """Return whether tensors have this family's names."""

    @abstractmethod
    def read_config(self, file: Checkpoint, hints: ArchitectureHints) -> Config:
        """Return the architecture, from the shapes, the other members and the hints."""

    def read_card(self, file: Checkpoint, config: Config) -> ModelCard:
        """Return what the file records for the model's card, with the clip sampling that is assumed."""
        return ModelCard(clip=assumed_clip(config))

    @abstractmethod
    def table(self, config: Config, file: Checkpoint | None = None) -> Iterable[Entry]:
        """Return an entry for each tensor: spelled as in `file`, or as this family writes it now."""

    def refusal(self, config: Config) -> str | None:
        """Return what the code base could not build, where reading the file back would not show it."""
        if not isinstance(config, ClassifierConfig):
            return None
        if config.head.kind != self.head:
            return f"a {config.head.kind} head"
        if config.head.kind == "linear" and config.head.normalize == "tokens":
            return "a linear head without its own LayerNorm"
        return None

    @abstractmethod
    def content(self, config: Config, card: ModelCard, weights: Weights) -> dict[str, Any]:
        """Return the members of a file, or files of a folder: the weights, and settings beside them."""


def assumed_clip(config: Config) -> AnyClip:
    """Return how the published recipes sample the clips of such a model; no foreign file records it.

    A classifier of 174 classes is assumed to be one of Something-Something V2, whose recipes spread the
    frames over the video. All other models are assumed to take every fourth frame, as on Kinetics.
    """
    frames = config.encoder.frames
    if isinstance(config, ClassifierConfig) and config.classes == SSV2_CLASSES:
        return SegmentClip(frames=frames)
    return DenseClip(frames=frames, stride=4)
