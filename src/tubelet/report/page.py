"""The page of the demo: one HTML file that contains everything it shows and needs no network."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined

from tubelet.errors import plural
from tubelet.files import replacing
from tubelet.report.charts import NUM_COLORS, curves_chart, last_point, trade_off_chart
from tubelet.report.contents import DemoReport, Result, percent, rounded

_MAX_CLASSES = 24  # a larger confusion matrix is not legible
_MAX_KEY_RESULTS = 4


@dataclass(frozen=True)
class _Column:
    """A column of the table of results; `score` is higher for better results."""

    title: str
    unit: str
    text: Callable[[Result], str]
    score: Callable[[Result], float] | None = None

    def best(self, results: Sequence[Result]) -> str | None:
        """Return the text of the best result, unless all texts are equal."""
        if not self.score or len({self.text(result) for result in results}) < 2:
            return None
        return self.text(max(results, key=self.score))


_COLUMNS = (
    _Column("Masked", "%", lambda r: f"{100 * r.masked:.0f}"),
    _Column("Top-1", "%", lambda r: percent(r.top1), lambda r: r.top1),
    _Column("Top-5", "%", lambda r: percent(r.top5), lambda r: r.top5),
    _Column("GFLOPs", "per view", lambda r: rounded(r.gflops), lambda r: -r.gflops),
    _Column("Parameters", "million", lambda r: rounded(r.parameters / 1e6)),
    _Column("Speed", "clips/s", lambda r: rounded(r.clips_per_second), lambda r: r.clips_per_second),
    _Column("Views", "clips × crops", lambda r: r.views.replace(" x ", " × ")),
)


def write_report(report: DemoReport, path: str | Path) -> None:
    """Write the demo's page to `path`; see `write_page`."""
    write_page(render(report), Path(path))


def write_page(page: str, path: Path) -> None:
    """Write a page to `path` atomically; missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names that are not text


def render(report: DemoReport) -> str:
    """Return the page as HTML, which depends only on the report."""
    curves = [curve.name for chart in report.charts if len(chart.curves) > 1 for curve in chart.curves]
    names = dict.fromkeys((*(result.group for result in report.results), *curves))
    colors = {name: k % NUM_COLORS for k, name in enumerate(names)}
    highlights = [result for result in report.results if result.highlight]
    best = sorted(report.results, key=lambda result: -result.top1)[:1]
    return (
        environment()
        .get_template("page.html")
        .render(
            report=report,
            colors=colors,
            key_results=(highlights or best)[:_MAX_KEY_RESULTS],
            columns=[(column, column.best(report.results)) for column in _COLUMNS],
            trade_off=trade_off_chart(report.results, colors) if len(report.results) > 1 else None,
            charts=[(chart, curves_chart(chart, colors)) for chart in report.charts],
            last_point=last_point,
            confusion=confusion_table(report.confusion, report.classes),
        )
    )


def environment() -> Environment:
    """Return the environment of the templates of all pages."""
    templates = Environment(
        loader=PackageLoader("tubelet.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(percent=percent, rounded=rounded, plural=plural, data_url=_data_url)
    return templates


def _data_url(data: bytes, media: str) -> str:
    return f"data:{media};base64,{b64encode(data).decode()}"


def confusion_table(counts: npt.NDArray[np.integer] | None, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the classes with most mistakes, their rows of (count, share of the row), and top mistakes."""
    if counts is None or not counts.size:
        return None
    mistakes = counts.sum(1) + counts.sum(0) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:_MAX_CLASSES]).tolist()
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    most = [divmod(int(k), len(counts)) for k in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    return {
        "num_classes": len(counts),
        "classes": [classes[k] for k in shown],
        "rows": [[(int(counts[i, j]), counts[i, j] / max(1, counts[i].sum())) for j in shown] for i in shown],
        "top_mistakes": [(classes[i], classes[j], int(wrong[i, j])) for i, j in most if wrong[i, j]],
    }
