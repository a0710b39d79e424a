"""The settings of a run, composed of the settings that are defined beside each component."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from tubelet.clips import MAX_VIEWS, AnyClip, DenseClip, GeometryName, ScoresName, Views
from tubelet.data.augment import Augment
from tubelet.data.mixing import Mixing
from tubelet.data.protocols import named_protocol
from tubelet.errors import (
    UserError,
    require_at_least,
    require_below_1,
    require_between,
    require_probability,
    short_repr,
)
from tubelet.machine import MAX_PROCESSES
from tubelet.masking import AnyMasking, ClassifierMasking, TubeMasking
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import AnyHeadConfig, LinearHeadConfig
from tubelet.models.sizes import MAX_WIDTH
from tubelet.models.target import PixelTarget
from tubelet.train.checkpoint import SaveConfig
from tubelet.train.loggers import LogConfig
from tubelet.train.optim import OptimConfig
from tubelet.train.runtime import ComputeConfig, RuntimeConfig


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A further data set.

    Attributes:
        root: its folder, with the same list.
        clip: which frames of its videos make a clip, as many as in the other data sets; null is data.clip.
    """

    root: Path
    clip: AnyClip | None = None


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the clips come from.

    Attributes:
        root: folder of the data set, with its lists (train.csv, …) and classes.txt.
        more_roots: data sets to train on together with that of root, as if they were one.
        train: list to train on.
        clip: which frames of a video make a clip.
        augment: random changes to the training clips.
        repeats: clips of each video, each with different frames, from one decode; optim.batch_size counts
            videos.
        augmented_copies: augmented copies of each clip, of the same frames (repeated augmentation).
        balanced: whether to draw every class equally often, videos of rare classes more than once an epoch
            and videos without a class never; needs labels.
        workers: decoding processes for each training process; null is one for each core, or for
            every second core if the model computes on the CPU too.
        max_failures: fraction of the videos that may be unreadable before the run stops, in [0, 1].
    """

    root: Path
    more_roots: tuple[DataSource, ...] = ()
    train: str = "train"
    clip: AnyClip = field(default_factory=DenseClip)
    augment: Augment = field(default_factory=Augment)
    repeats: int = 1
    augmented_copies: int = 1
    balanced: bool = False
    workers: int | None = None
    max_failures: float = 0.05

    def __post_init__(self) -> None:
        require_between(1, MAX_VIEWS, repeats=self.repeats, augmented_copies=self.augmented_copies)
        require_between(0, MAX_PROCESSES, workers=self.workers)
        require_probability(max_failures=self.max_failures)

    @property
    def clips_per_video(self) -> int:
        """Clips of one video in an epoch."""
        return self.repeats * self.augmented_copies


@dataclass(frozen=True, kw_only=True)
class FinetuneDataConfig(DataConfig):
    """Where the clips to train and to validate on come from.

    Attributes:
        val: list to validate on after each epoch; null does not validate.
    """

    val: str | None = "val"


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """What a publication reports for a recipe.

    Attributes:
        top1: top-1 accuracy in percent with the recipe's views; for pre-training, after the source's
            fine-tuning on the same data set (V2: on Kinetics-400); null is not published.
        source: where the result is published; without a result, the settings.
    """

    top1: float | None = None
    source: str


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """The pre-training of a masked autoencoder.

    Attributes:
        data: the clips.
        model: the autoencoder.
        masking: which tokens are masked.
        optim: the optimization.
        init: model to start from; null is random weights.
        published: the published result of this recipe; it does not affect the run.
        seed: seed of everything random, in [0, 2**63).
        save: when to save.
        log: when to log.
        runtime: device, precision and processes.
    """

    task: Literal["pretrain"] = "pretrain"
    data: DataConfig
    optim: OptimConfig
    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    masking: AnyMasking = field(default_factory=TubeMasking)
    init: str | None = None
    published: PublishedResult | None = None
    seed: int = 0
    save: SaveConfig = field(default_factory=SaveConfig)
    log: LogConfig = field(default_factory=LogConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        if self.optim.layer_decay != 1:
            raise UserError(
                f"optim.layer_decay must be 1 in pre-training, found {self.optim.layer_decay}: it is for "
                "fine-tuning pre-trained layers"
            )


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """MAR's second loss: the reconstruction of the tokens that the classifier does not see.

    Attributes:
        weight: factor on its loss.
        decoder: the decoder's architecture; null takes the pre-trained model's decoder with its weights.
        target: what the decoder predicts; null is the target of the pre-trained decoder if that is taken,
            else VideoMAE's target.
    """

    weight: float = 0.1
    decoder: DecoderConfig | None = None
    target: PixelTarget | None = None

    def __post_init__(self) -> None:
        require_at_least(0, weight=self.weight)


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """The training of a classifier: on all tokens or, with a masking, on the visible ones (MAR).

    Attributes:
        data: the clips and their labels.
        init: pre-trained model to start from; null is random weights.
        keep_head: whether to start from the head of init, too, which must be a classifier with such a head;
            classes have the rows of the same names in its last layer.
        init_classes: file with the names of init's classes, one a line; null: they are in init's card.
        freeze: part of init's encoder that is not trained, and has no drop path: `encoder` for all of it, or
            a number n for the embedding and the first n blocks; null trains all.
        frames: frames of a clip; null is as in init, else its positions are resized.
        image_size: side of the frames in pixels; null is as in init, else its positions are resized.
        encoder: the encoder's architecture without an init; with an init, null.
        head: from tokens to class scores.
        masking: train and classify on the visible tokens of this masking; null is all tokens.
        masking_start_ratio: ratio of the masking in the first epoch, in [0, 1); it goes along half a cosine
            to masking.ratio, that of the last epoch and of the trained model; null keeps masking.ratio.
        reconstruction: with a masking, also reconstruct the masked tokens; null does not.
        drop_path: drop-path rate of the encoder's last block, in [0, 1).
        class_weights: factors on the loss of each class: `balanced` is inverse to the number of its training
            videos, 1 on average over the videos; or a list by class index; null is 1 for all.
        label_smoothing: probability that is spread evenly over all classes, in [0, 1).
        mixing: mixup and cutmix of the training clips and their labels; null does not mix.
        optim: the optimization.
        views: clips and crops of a video that a test averages over.
        published: the published result of this recipe; it does not affect the run.
        seed: seed of everything random, in [0, 2**63).
        save: when to save.
        log: when to log.
        runtime: device, precision and processes.
    """

    task: Literal["finetune"] = "finetune"
    data: FinetuneDataConfig
    optim: OptimConfig
    init: str | None = None
    keep_head: bool = False
    init_classes: Path | None = None
    freeze: int | str | None = None
    frames: int | None = None
    image_size: int | None = None
    encoder: EncoderConfig | None = None
    head: AnyHeadConfig = field(default_factory=LinearHeadConfig)
    masking: ClassifierMasking | None = None
    masking_start_ratio: float | None = None
    reconstruction: ReconstructionConfig | None = None
    drop_path: float = 0.1
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    label_smoothing: float = 0.1
    mixing: Mixing | None = None
    views: Views = field(default_factory=Views)
    published: PublishedResult | None = None
    seed: int = 0
    save: SaveConfig = field(default_factory=SaveConfig)
    log: LogConfig = field(default_factory=LogConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        require_between(1, MAX_WIDTH, frames=self.frames, image_size=self.image_size)
        if self.keep_head and self.init is None:
            raise UserError("keep_head keeps the head of init, which is null")
        if self.init_classes is not None and not self.keep_head:
            raise UserError("init_classes are the classes of a head that is kept: set keep_head=true")
        if self.freeze is not None and self.init is None:
            raise UserError("freeze keeps weights of init, which is null")
        if isinstance(self.freeze, str) and self.freeze != "encoder":
            raise UserError(f"freeze must be encoder or a number of blocks, found {short_repr(self.freeze)}")
        if isinstance(self.freeze, int):
            require_at_least(0, freeze=self.freeze)
        if isinstance(self.class_weights, tuple):
            for weight in self.class_weights:
                require_at_least(0, class_weights=weight)
        for name in ("frames", "image_size"):
            if self.init is None and getattr(self, name) is not None:
                raise UserError(
                    f"{name} resizes the model of init, which is null: set encoder.{name} instead"
                )
        require_below_1(drop_path=self.drop_path, label_smoothing=self.label_smoothing)
        for name in ("reconstruction", "masking_start_ratio"):
            if getattr(self, name) is not None and not self.masking:
                raise UserError(f"{name} needs a masking: without it there are no masked tokens")
        require_below_1(masking_start_ratio=self.masking_start_ratio)


@dataclass(frozen=True, kw_only=True)
class EvaluateDataConfig:
    """Where the videos of a test come from.

    Attributes:
        root: folder of the data set, with its lists (test.csv, …) and classes.txt; null is the data set that
            the model was trained on.
        split: list to test on; null is `test` or, if that is missing or has no labels, `val`.
        clip: which frames of a video make a clip; null is as in the protocol or, without it, in the model's
            training.
        workers: decoding processes for each testing process; null is one for each core, or for
            every second core if the model computes on the CPU too.
    """

    root: Path | None = None
    split: str | None = None
    clip: AnyClip | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        require_between(0, MAX_PROCESSES, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The views of a test; what is null is as in the protocol or, without a protocol, in the model's recipe.

    Attributes:
        clips: clips, evenly spaced over the video.
        crops: square crops, evenly spaced along the longer side of each clip.
        geometry: the project whose scaling of frames and positions of crops are reproduced.
        scores: how the views' scores are combined: the mean of their probabilities, the probability of their
            mean logits, or each class's highest probability (PySlowFast on multi-label data sets).
    """

    clips: int | None = None
    crops: int | None = None
    geometry: GeometryName | None = None
    scores: ScoresName | None = None

    def __post_init__(self) -> None:
        require_between(1, MAX_VIEWS, clips=self.clips, crops=self.crops)

    def over(self, views: Views) -> Views:
        """Return views with the parts changed that are given here."""
        return replace(views, **{name: value for name, value in asdict(self).items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe:
    """The test of a classifier on a list of videos.

    Attributes:
        data: the videos and their labels.
        protocol: the published test to reproduce, such as mar_k400, with its clips and views, of which
            data.clip and views change single parts; null is as in the model's recipe.
        views: clips and crops of a video that are averaged over.
        masking: classify the visible tokens of this masking; null is as in the model's training.
        complementary: whether to average the class scores over masks in which each token is visible once (two
            at ratio 0.5, four at 0.75), as in MAR's complementary test.
        batch_size: videos that each process decodes and tests at a time.
        runtime: device, precision and CPU threads.
    """

    task: Literal["evaluate"] = "evaluate"
    data: EvaluateDataConfig = field(default_factory=EvaluateDataConfig)
    protocol: str | None = None
    views: ViewsConfig = field(default_factory=ViewsConfig)
    masking: ClassifierMasking | None = None
    complementary: bool = False
    batch_size: int = 8
    runtime: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size)
        if self.protocol is not None:
            named_protocol(self.protocol)


@dataclass(frozen=True, kw_only=True)
class PredictRecipe:
    """How the videos of a prediction are looked at.

    Attributes:
        protocol: the published test whose clips and views to take, such as mar_k400; null is as in the
            model's recipe.
        views: clips and crops of a video that are averaged over.
    """

    task: Literal["predict"] = "predict"
    protocol: str | None = None
    views: ViewsConfig = field(default_factory=ViewsConfig)

    def __post_init__(self) -> None:
        if self.protocol is not None:
            named_protocol(self.protocol)


Recipe = PretrainRecipe | FinetuneRecipe
TASKS: dict[str, type[Recipe]] = {"pretrain": PretrainRecipe, "finetune": FinetuneRecipe}


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UserError(f"seed must be in [0, 2**63), found {seed}")
