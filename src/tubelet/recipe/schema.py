"""What a run is: the recipes' settings, composed of those beside each component."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tubelet.clips import AnyClip, DenseClip, Views
from tubelet.data.augment import Augment
from tubelet.data.mixing import Mixing
from tubelet.errors import UserError, require_at_least
from tubelet.masking import AnyMasking, RunningCellMasking, TubeMasking
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import AnyHeadConfig, LinearHeadConfig
from tubelet.models.target import PixelTarget
from tubelet.train.optim import OptimConfig
from tubelet.train.runtime import RuntimeConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the clips come from.

    Attributes:
        root: folder of the data set, with its lists (train.csv, …) and classes.txt.
        train: list to train on.
        clip: which frames of a video make a clip.
        augment: random changes to the training clips.
        repeats: clips of each video, at times of their own, from one decode; optim.batch_size counts videos.
        crops: of each of those clips, the same frames augmented anew (repeated augmentation).
        balanced: draw every class equally often, videos of rare ones more than once an epoch and those that
            show no class never; needs labels.
        workers: decoding processes beside each training process; null is one for each core, or half as many
            where the network computes on the CPU too.
        max_failures: share of the videos that may fail to be read before the run stops, in [0, 1].
    """

    root: Path
    train: str = "train"
    clip: AnyClip = field(default_factory=DenseClip)
    augment: Augment = field(default_factory=Augment)
    repeats: int = 1
    crops: int = 1
    balanced: bool = False
    workers: int | None = None
    max_failures: float = 0.05

    def __post_init__(self) -> None:
        require_at_least(1, repeats=self.repeats, crops=self.crops)
        require_at_least(0, workers=self.workers)
        if not 0 <= self.max_failures <= 1:
            raise UserError(f"max_failures must lie in [0, 1], found {self.max_failures}")


@dataclass(frozen=True, kw_only=True)
class FinetuneDataConfig(DataConfig):
    """Where the clips come from, and those to validate on.

    Attributes:
        val: list to validate on after each epoch; null does not validate.
    """

    val: str | None = "val"


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When to save and to log.

    Attributes:
        every_epochs: epochs between checkpoints, which are also the epochs between validations.
        every_seconds: most seconds between checkpoints within an epoch.
        log_steps: optimizer steps between lines of the log.
    """

    every_epochs: int = 1
    every_seconds: float = 300.0
    log_steps: int = 10

    def __post_init__(self) -> None:
        require_at_least(1, every_epochs=self.every_epochs, log_steps=self.log_steps)
        require_at_least(0, every_seconds=self.every_seconds)


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """Pre-training a masked autoencoder.

    Attributes:
        data: the clips.
        model: the autoencoder.
        masking: which tokens are hidden.
        optim: the optimization.
        init: model to start from, or null to start from random weights.
        seed: of everything random, in [0, 2**63).
        save: checkpoints and logs.
        runtime: device, precision and processes.
    """

    task: Literal["pretrain"] = "pretrain"
    data: DataConfig
    optim: OptimConfig
    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    masking: AnyMasking = field(default_factory=TubeMasking)
    init: str | None = None
    seed: int = 0
    save: SaveConfig = field(default_factory=SaveConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        if self.optim.layer_decay != 1:
            raise UserError(
                f"optim.layer_decay must be 1 in pre-training, found {self.optim.layer_decay}: it is for "
                "fine-tuning, where the layers are learned already"
            )


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """MAR's second loss: painting the tokens that the classifier does not see.

    Attributes:
        weight: factor on its loss.
        decoder: its decoder; null takes the pre-trained model's, weights and all.
        target: what it predicts; null is what the pre-trained decoder has learned, where that is taken, else
            VideoMAE's target.
    """

    weight: float = 0.1
    decoder: DecoderConfig | None = None
    target: PixelTarget | None = None

    def __post_init__(self) -> None:
        require_at_least(0, weight=self.weight)


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """Training a classifier: on all tokens or, with a masking, on some of them (MAR).

    Attributes:
        data: the clips and their labels.
        init: pre-trained model to start from, or null to start from random weights.
        frames: frames of a clip; null is as init has it, else its positions are resized.
        image_size: side of the frames in pixels, likewise.
        encoder: the encoder's architecture where there is no init; with an init, null.
        head: from tokens to class scores.
        masking: train and recognise on the tokens that this leaves visible; null uses all.
        reconstruction: with a masking, also paint the tokens left out; null does not.
        drop_path: drop-path rate of the encoder's last block, in [0, 1).
        label_smoothing: probability given to all classes alike, in [0, 1).
        mixing: mixup and cutmix of the training clips and their labels; null does not mix.
        optim: the optimization.
        views: clips and crops of a video that a test averages over.
        seed: of everything random, in [0, 2**63).
        save: checkpoints and logs.
        runtime: device, precision and processes.
    """

    task: Literal["finetune"] = "finetune"
    data: FinetuneDataConfig
    optim: OptimConfig
    init: str | None = None
    frames: int | None = None
    image_size: int | None = None
    encoder: EncoderConfig | None = None
    head: AnyHeadConfig = field(default_factory=LinearHeadConfig)
    masking: RunningCellMasking | None = None
    reconstruction: ReconstructionConfig | None = None
    drop_path: float = 0.1
    label_smoothing: float = 0.1
    mixing: Mixing | None = None
    views: Views = field(default_factory=Views)
    seed: int = 0
    save: SaveConfig = field(default_factory=SaveConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        require_at_least(1, frames=self.frames, image_size=self.image_size)
        for name in ("frames", "image_size"):
            if self.init is None and getattr(self, name) is not None:
                raise UserError(f"{name} is for the model of init, and there is none: set encoder.{name}")
        for name in ("drop_path", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must lie in [0, 1), found {getattr(self, name)}")
        if self.reconstruction and not self.masking:
            raise UserError("reconstruction needs a masking: without one there is nothing to paint")


@dataclass(frozen=True, kw_only=True)
class TestDataConfig:
    """Where the videos of a test come from.

    Attributes:
        root: folder of the data set, with its lists (test.csv, …) and classes.txt.
        split: list to test on.
        clip: which frames of a video make a clip; null is as the model was trained.
        workers: decoding processes beside each testing process; null is one for each core, or half as many
            where the network computes on the CPU too.
    """

    __test__ = False  # not a test case, whatever its name says

    root: Path
    split: str = "test"
    clip: AnyClip | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        require_at_least(0, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe:
    """Testing a classifier on a list of videos.

    Attributes:
        data: the videos and their labels.
        views: clips and crops of a video that are averaged over; null is what the model's recipe says.
        masking: recognise on the tokens that this leaves visible; null is as the model was trained.
        complementary: average the class scores over the masks that together show every token once (two at
            one half masked, four at three quarters), as MAR's complementary test does.
        batch_size: videos decoded and tested at a time in each process.
        runtime: device, precision (auto is that of the model's recipe, fp32 if it has none) and processes.
    """

    task: Literal["evaluate"] = "evaluate"
    data: TestDataConfig
    views: Views | None = None
    masking: RunningCellMasking | None = None
    complementary: bool = False
    batch_size: int = 8
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size)


Recipe = PretrainRecipe | FinetuneRecipe
TASKS: dict[str, type[Recipe]] = {"pretrain": PretrainRecipe, "finetune": FinetuneRecipe}


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UserError(f"seed must lie in [0, 2**63), found {seed}")
