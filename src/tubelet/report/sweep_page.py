"""The page of a sweep: its table, each row with its runs on a common scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from tubelet.report.contents import rounded
from tubelet.report.page import environment


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """A row of the table.

    Attributes:
        name: of the arm and, if there are more, the test.
        values: the metric of each seed, in percent.
        published: that of the publication.
        gflops: 10^9 multiply-adds per view.
        changes: what the arm changes.
    """

    name: str
    values: Sequence[float] = ()
    published: float | None = None
    gflops: float | None = None
    changes: str = ""

    @property
    def mean(self) -> float | None:
        """Mean over the seeds."""
        return mean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over two or more seeds."""
        return stdev(self.values) if len(self.values) > 1 else None

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return mean, spread, published number, difference and GFLOPs as text."""
        difference = ""
        if self.mean is not None and self.published is not None:
            difference = f"{round(self.mean - self.published, 1) + 0.0:+.1f}"  # without a sign of zero
        return (
            _text(self.mean),
            _text(self.spread),
            "" if self.published is None else f"{self.published:g}",
            difference,
            "" if self.gflops is None else rounded(self.gflops),
        )


@dataclass(frozen=True, kw_only=True)
class SweepPage:
    """Everything on the page.

    Attributes:
        title: of the page.
        metric: top1, top5 or mAP.
        seeds: number of runs of each arm.
        source: where the published numbers are from.
        rows: of the table.
    """

    title: str
    metric: str
    seeds: int
    source: str
    rows: Sequence[SweepRow]


def render_sweep(page: SweepPage) -> str:
    """Return the page as HTML, which needs no other file and no network."""
    numbers = [each for row in page.rows for each in (*row.values, row.published) if each is not None]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 0.0)
    margin = max(0.05 * (high - low), 0.5)

    def position(value: float) -> str:
        return f"{100 * (value - low + margin) / (high - low + 2 * margin):.2f}"

    scale = (f"{low - margin:.1f}", f"{high + margin:.1f}")
    return environment().get_template("sweep.html").render(page=page, position=position, scale=scale)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
