"""The contents of the pages as plain data: nothing here measures or draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tubelet.results.metrics import Calibration


@dataclass(frozen=True)
class Result:
    """A model's test result.

    Attributes:
        name: of the model, unique on the page.
        group: results of one group, such as "from scratch", have one color.
        masked: fraction of the tokens masked at test, in [0, 1].
        top1: fraction of the videos whose class has the highest score, in [0, 1].
        top5: fraction of the videos whose class is among the five highest scores, in [0, 1].
        gflops: 10^9 multiply-adds per view.
        parameters: number of parameters.
        clips_per_second: views classified per second.
        views: clips x crops of a video, such as "2 x 1".
        highlight: whether the page starts with this result.
    """

    name: str
    group: str
    masked: float
    top1: float
    top5: float
    gflops: float
    parameters: int
    clips_per_second: float
    views: str
    highlight: bool = False


@dataclass(frozen=True)
class Curve:
    """A line of a chart; `xs` and `ys` have equal lengths. A curve has the color of the group of its name."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Curves over the same axes."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]


@dataclass(frozen=True)
class Picture:
    """A file that shows original, masked and reconstructed clip: bytes and media type, as "image/webp"."""

    caption: str
    data: bytes
    media: str


@dataclass(frozen=True)
class WorstClip:
    """A video that a model classified wrongly.

    Attributes:
        video: its name.
        truth: its class; the names of all its classes in a multi-label test.
        predicted: the class with the highest score that is not its own.
        probability: of the predicted class, in [0, 1].
        strip: some of its frames side by side, the bytes of a WebP file; None if they could not be read.
    """

    video: str
    truth: str
    predicted: str
    probability: float
    strip: bytes | None


@dataclass(frozen=True)
class KeyFigure:
    """A number at the top of a page: its name, a note in small letters, and its value in [0, 1]."""

    name: str
    note: str
    value: float


@dataclass(frozen=True)
class ClassRow:
    """A class in the table of a test.

    Attributes:
        name: of the class.
        videos: how many tested videos have it.
        score: the share of them that is classified right, or the average precision, in [0, 1]; None without
            videos.
        taken_for: the class that most of its other videos are taken for; empty if there is no such class.
    """

    name: str
    videos: int
    score: float | None
    taken_for: str = ""


@dataclass(frozen=True)
class PairRow:
    """Videos of one class that were taken for another.

    Attributes:
        truth: their class.
        predicted: the other class.
        videos: how many they are.
        share: of the videos of their class, in [0, 1].
        reverse: how many videos of the other class were taken for this one.
    """

    truth: str
    predicted: str
    videos: int
    share: float
    reverse: int


@dataclass(frozen=True)
class LengthRow:
    """Videos of a similar length: the shortest and the longest in seconds, and the share that is right."""

    shortest: float
    longest: float
    videos: int
    score: float


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationPage:
    """Everything on the page of a test. Sections without content are left out.

    Attributes:
        title: of the page.
        lead: one paragraph: what was tested.
        figures: the metrics.
        score: what the score of a class or length is, such as "right".
        rows: of the classes, the lowest score first.
        confusion: integers (K, K), number of videos by class (row) and predicted class (column), or None.
        classes: the K class names.
        pairs: the classes that are most often taken for another, the most frequent first.
        lengths: groups of videos by length, the shortest first.
        calibration: of the predicted classes, or None.
        worst: wrong answers, the most confident first.
        broken: test videos that could not be read.
        tested: number of videos in the numbers.
        facts: (name, value) of how it was tested.
    """

    title: str
    lead: str
    figures: Sequence[KeyFigure]
    score: str
    rows: Sequence[ClassRow]
    tested: int
    confusion: npt.NDArray[np.integer] | None = None
    classes: Sequence[str] = ()
    pairs: Sequence[PairRow] = ()
    lengths: Sequence[LengthRow] = ()
    calibration: Calibration | None = None
    worst: Sequence[WorstClip] = ()
    broken: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, eq=False)
class DemoReport:
    """Everything on the page. Sections without content are left out.

    Attributes:
        title: of the page.
        lead: one paragraph: what was done.
        caution: what a reader must know before the numbers, or an empty text.
        results: in the order of the table.
        charts: learning curves.
        reconstructions: animations of original, masked and reconstructed clips.
        confusion: integers (K, K), number of videos by class (row) and predicted class (column), or None.
        classes: the K class names.
        confusion_of: name of the model of the confusion matrix and of the worst clips.
        worst: videos that it classified wrongly, the most confident answers first.
        recipes: (name, YAML text) of each run.
        next_steps: (purpose, command) of what to try next.
        facts: (name, value), such as machine, versions, commit, duration and data set.
        broken: test videos that could not be read.
        tested: number of test videos that could be read, over which accuracies are computed; None if unknown.
    """

    title: str
    lead: str
    results: Sequence[Result]
    charts: Sequence[Chart] = ()
    reconstructions: Sequence[Picture] = ()
    confusion: npt.NDArray[np.integer] | None = None
    classes: Sequence[str] = ()
    confusion_of: str = ""
    worst: Sequence[WorstClip] = ()
    recipes: Sequence[tuple[str, str]] = ()
    caution: str = ""
    next_steps: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    broken: Sequence[str] = ()
    tested: int | None = None


def percent(fraction: float) -> str:
    """Return a fraction in [0, 1] as percent, rounded to a tenth."""
    return f"{100 * fraction:.1f}"


def rounded(value: float) -> str:
    """Return a number with about three significant figures."""
    if 0 < abs(value) < 0.1:
        return f"{value:.3g}"
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f}"
