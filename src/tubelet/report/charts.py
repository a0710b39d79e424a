"""The charts of a page, as SVG that takes its colors from the page's style sheet."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from tubelet.report.contents import Chart, Curve, Result, percent, rounded
from tubelet.results.metrics import Calibration

NUM_COLORS = 6  # style.css names them --series-0 to --series-5
# Matplotlib draws with these placeholders, which are then replaced by the colors of style.css, light or dark.
_MUTED, _LINE, _PAPER, _INK = "#010000", "#020000", "#030000", "#040000"
_SERIES = [f"#00ff{k:02x}" for k in range(NUM_COLORS)]
_CSS_COLORS = {
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _PAPER: "var(--paper)",
    _INK: "var(--ink)",
    **{color: f"var(--series-{k})" for k, color in enumerate(_SERIES)},
}
_LEFT, _RIGHT, _BOTTOM, _TOP = 46, 16, 50, 30  # margins around the axes, in units of the SVG
_FONT_SIZE = 12.5
_MAX_MARKED_POINTS = 3  # a curve of so few does not show a trend


def trade_off_chart(results: Sequence[Result], colors: Mapping[str, int]) -> str:
    """Draw accuracy over GFLOPs: a point per result and a line per group.

    The points of a line are labeled with the masked fractions above, a single point with its group below.
    """

    def draw(axes: Axes) -> None:
        for group in dict.fromkeys(result.group for result in results):
            color = _SERIES[colors[group]]
            points = sorted((r.gflops, 100 * r.top1, r.masked) for r in results if r.group == group)
            xs, ys = zip(*(point[:2] for point in points), strict=True)
            axes.scatter(xs, ys, s=95, color=color, edgecolors=_PAPER, linewidths=2, zorder=3)
            if len(points) == 1:
                _label(axes, group, xs[0], ys[0], color, (0, -20), "center")
                continue
            axes.plot(xs, ys, color=color, linewidth=2)
            for x, y, fraction in points:
                _label(axes, f"{fraction:.0%}", x, y, color)
        axes.margins(x=0.12, y=0.15)
        costs = [result.gflops for result in results]
        if max(costs) > 10 * min(costs) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(_format_tick)
            axes.minorticks_off()
        else:
            axes.set_xlim(left=0)

    alt = "Top-1 accuracy over GFLOPs per view: " + "; ".join(
        f"{r.name} {percent(r.top1)} % at {rounded(r.gflops)}" for r in results
    )
    return _svg(draw, (560, 380), "GFLOPs per view", "Top-1 (%)", alt)


def curves_chart(chart: Chart, colors: Mapping[str, int]) -> str:
    """Draw the curves of a chart; a single one is labeled with its last value."""

    def draw(axes: Axes) -> None:
        single = len(chart.curves) == 1
        few_points = max(len(curve.xs) for curve in chart.curves) <= _MAX_MARKED_POINTS
        for curve in chart.curves:
            color = _INK if single else _SERIES[colors[curve.name]]
            axes.plot(curve.xs, curve.ys, color=color, linewidth=2, marker="o" if few_points else "")
            if single and (last := last_point(curve)):
                _label(axes, rounded(last[1]), *last, color)
        axes.margins(x=0, y=0.12)
        axes.set_xlim(left=0)
        if few_points:  # an axis cut to their small range would make noise look like a trend
            axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=all(x % 1 == 0 for curve in chart.curves for x in curve.xs))

    ends = [f"{curve.name} {rounded(last[1])}" for curve in chart.curves if (last := last_point(curve))]
    alt = f"{chart.title}: {chart.y_label} over {chart.x_label}, at the end {'; '.join(ends)}"
    return _svg(draw, (520, 320), chart.x_label, chart.y_label, alt)


def calibration_chart(calibration: Calibration) -> str:
    """Draw the share of right predictions over their probability, a bar for each bin that has videos."""
    count = len(calibration.videos)
    bins = np.flatnonzero(calibration.videos)

    def draw(axes: Axes) -> None:
        lefts, heights = 100 * bins / count, 100 * calibration.accuracy[bins]
        axes.bar(lefts, heights, 100 / count, align="edge", color=_SERIES[0], edgecolor=_PAPER)
        axes.plot([0, 100], [0, 100], color=_INK, linewidth=1, zorder=2.5)
        axes.scatter(
            100 * calibration.confidence[bins], heights, s=40, color=_INK, edgecolors=_PAPER, zorder=3
        )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)

    alt = "Share of right predictions over their probability: " + "; ".join(
        f"{percent(calibration.accuracy[k])} % at {percent(calibration.confidence[k])} % "
        f"({calibration.videos[k]:,} videos)"
        for k in bins
    )
    return _svg(draw, (520, 380), "Probability of the predicted class (%)", "Right (%)", alt)


def last_point(curve: Curve) -> tuple[float, float] | None:
    """Return the last point (x, y) of a curve whose y is finite."""
    return next(((x, y) for x, y in zip(curve.xs[::-1], curve.ys[::-1], strict=True) if np.isfinite(y)), None)


def _label(
    axes: Axes,
    text: str,
    x: float,
    y: float,
    color: str,
    offset: tuple[float, float] = (-3, 9),
    align: Literal["center", "right"] = "right",
) -> None:
    """Write a text beside a point, by default at its upper left: most lines rise to the right."""
    axes.annotate(text, (x, y), offset, textcoords="offset points", ha=align, color=color)


@matplotlib.rc_context({"svg.fonttype": "none", "text.parse_math": False, "font.size": _FONT_SIZE})
def _svg(draw: Callable[[Axes], None], size: tuple[int, int], x_label: str, y_label: str, alt: str) -> str:
    """Return an SVG of `size` units, with texts as text and without anything that affects the whole page."""
    width, height = size
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)  # one unit is one point
    inner = (width - _LEFT - _RIGHT, height - _BOTTOM - _TOP)
    axes = figure.add_axes((_LEFT / width, _BOTTOM / height, inner[0] / width, inner[1] / height))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.grid(axis="y", color=_LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, length=0, pad=7)
    axes.set_xlabel(x_label, color=_MUTED, loc="right", labelpad=8)
    axes.set_title(y_label, color=_MUTED, loc="left", fontsize=_FONT_SIZE, pad=12)
    axes.locator_params(nbins=6)
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.xaxis.set_major_formatter(_format_tick)
    draw(axes)
    file = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": alt}):  # ids depend only on the content
        figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    body = file.getvalue().split("</defs>", 1)[1].rsplit("</svg>", 1)[0]  # without matplotlib's style sheet
    body = re.sub(r' id="[\w.]+_\d+"', "", body)  # never referenced, and not unique on the page
    body = re.sub(r"font-family: [^;]*; ", "", body)
    for placeholder, color in _CSS_COLORS.items():
        body = body.replace(placeholder, color)
    label = f'role="img" aria-label="{escape(alt)}"'
    return f'<svg class="chart" viewBox="0 0 {width} {height}" {label}>{body}</svg>'


def _format_tick(value: float, position: float | None = None) -> str:
    """Format a number on the x axis; matplotlib also passes its position."""
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
