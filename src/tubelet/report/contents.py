"""What a report shows, as plain data: nothing here measures or draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Result:
    """What one model scored at test.

    Attributes:
        name: of the model, unique in the report.
        group: what it belongs to, such as "from scratch"; it decides the color.
        masked: the share of tokens masked at test, in [0, 1].
        top1: the share of videos whose class came first, in [0, 1].
        top5: the share of videos whose class was among the first five, in [0, 1].
        gflops: 10^9 multiply-adds a view.
        parameters: how many.
        clips_per_second: views classified a second.
        views: clips x crops of a video, such as "2 x 1".
        highlight: one of the few results that the report opens with.
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
    """A line of a chart; `xs` and `ys` are equally long. Named like a group of results, it has its color."""

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
    """A reconstruction, original | masked | painted: a file's bytes and media type, such as "image/webp"."""

    caption: str
    data: bytes
    media: str


@dataclass(frozen=True)
class Worst:
    """A video that the model got wrong.

    Attributes:
        video: its name.
        truth: its class.
        predicted: the class that came first.
        probability: of the predicted class, in [0, 1].
        strip: some of its frames side by side, a PNG file's bytes.
    """

    video: str
    truth: str
    predicted: str
    probability: float
    strip: bytes


@dataclass(frozen=True, eq=False)
class Report:
    """All that the page shows.

    Attributes:
        title: of the page.
        lead: one paragraph that says what was done and what came of it.
        results: at least one; the table keeps their order.
        charts: learning curves.
        reconstructions: animations, original | masked | painted.
        confusion: integers (K, K), videos by their class (row) and the class predicted (column), or None.
        classes: the K class names.
        confusion_of: the name of the model that the confusion matrix and the worst clips are of.
        worst: videos that it got most wrong, the worst first.
        recipes: (name, YAML text) of each run.
        facts: (name, value), such as machine, versions, commit, duration and data set.
        broken: test videos that could not be read.
        tested: test videos that could be read: the denominator of every accuracy; None leaves it unsaid.
    """

    title: str
    lead: str
    results: Sequence[Result]
    charts: Sequence[Chart] = ()
    reconstructions: Sequence[Picture] = ()
    confusion: npt.NDArray[np.integer] | None = None
    classes: Sequence[str] = ()
    confusion_of: str = ""
    worst: Sequence[Worst] = ()
    recipes: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    broken: Sequence[str] = ()
    tested: int | None = None


def percent(share: float) -> str:
    """A share in [0, 1] as per cent, to a tenth."""
    return f"{100 * share:.1f}"


def rounded(value: float) -> str:
    """About three significant figures."""
    if 0 < abs(value) < 0.1:
        return f"{value:.3g}"
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f}"
