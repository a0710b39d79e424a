"""A report's charts, as SVG that takes its colors from the page."""

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tubelet.report.contents import Chart, Report, percent, rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_SERIES = 6  # colors that report.html names --series-0 and so on
# Matplotlib gets these stand-ins, which the page's own colors, light or dark, then replace.
_STAND_INS = {f"#00ff{k:02x}": f"var(--series-{k})" for k in range(_SERIES)} | {
    "#010000": "var(--ink)",
    "#020000": "var(--muted)",
    "#030000": "var(--line)",
    "#040000": "var(--paper)",
}
_INK, _MUTED, _LINE, _PAPER = list(_STAND_INS)[_SERIES:]
_LEFT, _BOTTOM, _TOP = 46, 50, 30  # room around a chart
_TRADE_OFF = (560, 380)  # its width and height
_INSIDE = np.array([_LEFT, _BOTTOM, _TRADE_OFF[0], _TRADE_OFF[1]])
# Places for a label, the best first: its side of the point (1 right, -1 left, 0 middle) and how far up. Lines
# mostly rise to the right, so that below on the right and above on the left is room.
_SPOTS = [(side, up * side) for up in (-8, 0, 8, -24, 24, -40, 40) for side in (1, -1)]
_TEXT = 12.5  # height of letters, in units of the SVG, of which the page shows about one a pixel


def group_colors(report: Report) -> dict[str, str]:
    """The color of each group of results and of each curve, the same on the whole page."""
    groups = [result.group for result in report.results]
    curves = [curve.name for chart in report.charts if len(chart.curves) > 1 for curve in chart.curves]
    names = dict.fromkeys((*groups, *curves))
    return {name: f"var(--series-{k % _SERIES})" for k, name in enumerate(names)}


def _stand_in(color: str) -> str:
    return next(key for key, value in _STAND_INS.items() if value == color)


def _draw(
    draw: Callable[["Axes"], None], *, size: tuple[int, int], right: float, labels: tuple[str, str], alt: str
) -> str:
    """An SVG chart of `size` units with axis labels (x, y) and `right` units of room for labels."""
    import matplotlib
    from matplotlib.figure import Figure

    width, height = size
    # Texts stay texts, as they are, and the names inside the SVG depend on what it shows alone.
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "text.parse_math": False, "svg.hashsalt": alt, "font.size": _TEXT}
    ):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)  # a dot is a point is a unit
        wide, high = width - _LEFT - right, height - _BOTTOM - _TOP
        axes = figure.add_axes((_LEFT / width, _BOTTOM / height, wide / width, high / height))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_MUTED)
        axes.grid(axis="y", color=_LINE, linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_MUTED, length=0, pad=7)
        axes.set_xlabel(labels[0], color=_MUTED, loc="right", labelpad=8)
        axes.set_title(labels[1], color=_MUTED, loc="left", fontsize=_TEXT, pad=12)
        axes.locator_params(nbins=6)
        axes.ticklabel_format(style="plain", useOffset=False)
        axes.xaxis.set_major_formatter(_tick)
        draw(axes)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    # Without matplotlib's root, its style sheet, which would hold for the whole page, and its unused names.
    body = file.getvalue().split("</defs>", 1)[1].rsplit("</svg>", 1)[0]
    body = re.sub(r' id="[\w.]+_\d+"', "", body)
    body = re.sub(r"font-family: [^;]*; ", "", body)
    for key, color in _STAND_INS.items():
        body = body.replace(key, color)
    label = f'role="img" aria-label="{escape(alt)}"'
    return f'<svg class="chart" viewBox="0 0 {width} {height}" {label}>{body}</svg>'


def trade_off_chart(report: Report) -> str:
    """Accuracy over cost: a point for each result, a line through those of a group."""
    results = report.results
    colors = group_colors(report)
    costs = [result.gflops for result in results]

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import LogLocator

        lines: list[npt.NDArray] = []
        for group in dict.fromkeys(result.group for result in results):
            points = sorted((r.gflops, 100 * r.top1) for r in results if r.group == group)
            color = _stand_in(colors[group])
            xs, ys = zip(*points, strict=True)
            if len(set(xs)) > 1:
                lines += [np.stack([xs, ys], axis=1)]
                axes.plot(xs, ys, color=color, linewidth=2)
            axes.scatter(xs, ys, s=95, color=color, edgecolors=_PAPER, linewidths=2, zorder=3)
        axes.margins(x=0.12, y=0.15)
        if max(costs) > 10 * min(costs) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(_tick)
            axes.minorticks_off()
        else:
            axes.set_xlim(left=0)
        axes.autoscale_view()
        places = axes.transData.transform([(r.gflops, 100 * r.top1) for r in results])
        along = [axes.transData.transform(line) for line in lines]
        spots = _spots(places, [result.name for result in results], along)
        for result, spot in zip(results, spots, strict=True):
            axes.annotate(
                result.name,
                (result.gflops, 100 * result.top1),
                xytext=(11 * spot[0], spot[1]),
                textcoords="offset points",
                ha=("center", "left", "right")[spot[0]],
                va="center",
                color=_stand_in(colors[result.group]),
                fontweight="bold" if result.highlight else "normal",
            )

    alt = "Top-1 accuracy over GFLOPs a view: " + "; ".join(
        f"{r.name} {percent(r.top1)} % at {rounded(r.gflops)}" for r in results
    )
    return _draw(draw, size=_TRADE_OFF, right=16, labels=("GFLOPs a view", "Top-1 (%)"), alt=alt)


def curves_chart(chart: Chart, colors: dict[str, str]) -> str:
    """Lines with their name and last value at their end; a single line goes without name and color."""
    curves = [(curve, np.asarray(curve.xs, float), np.asarray(curve.ys, float)) for curve in chart.curves]
    curves = [(curve, xs[np.isfinite(ys)], ys[np.isfinite(ys)]) for curve, xs, ys in curves]
    curves = [(curve, xs, ys) for curve, xs, ys in curves if len(ys)]
    several = len(chart.curves) > 1
    texts = [f"{curve.name} {rounded(ys[-1])}" if several else rounded(ys[-1]) for curve, _, ys in curves]

    def draw(axes: "Axes") -> None:
        shades = [_stand_in(colors[curve.name]) if several else _INK for curve, _, _ in curves]
        for (_, xs, ys), color in zip(curves, shades, strict=True):
            axes.plot(xs, ys, color=color, linewidth=2)
        axes.margins(x=0, y=0.08)
        axes.locator_params(axis="x", integer=all((xs % 1 == 0).all() for _, xs, _ in curves))
        axes.autoscale_view()
        ends = [(xs[-1], ys[-1]) for _, xs, ys in curves]
        places = axes.transData.transform(np.reshape(ends, (-1, 2)))
        heights = _spread([y for _, y in places], 1.35 * _TEXT)
        for text, end, place, y, color in zip(texts, ends, places, heights, shades, strict=True):
            offset = (8, y - place[1])
            axes.annotate(text, end, xytext=offset, textcoords="offset points", va="center", color=color)

    longest = max(map(len, texts), default=0)
    alt = f"{chart.title}: {chart.y_label} over {chart.x_label}, at the end {'; '.join(texts)}"
    room = min(200.0, 14 + 0.56 * _TEXT * longest)
    return _draw(draw, size=(520, 320), right=room, labels=(chart.x_label, chart.y_label), alt=alt)


def _spread(places: Sequence[float], gap: float) -> list[float]:
    """Push places apart, both ways alike, until they are `gap` from each other."""
    order = np.argsort(places, kind="stable")
    moved = np.asarray(places, float)[order]
    for _ in range(200):
        lack = np.maximum(0, gap - np.diff(moved)) / 2
        moved[1:] += lack
        moved[:-1] -= lack
    return moved[np.argsort(order)].tolist()


def _spots(places: npt.NDArray, texts: Sequence[str], lines: Sequence[npt.NDArray]) -> list[tuple[int, int]]:
    """Which of `_SPOTS` the label of each point takes.

    Each in turn takes the one that covers least of the points, the lines (each points to join, (N, 2)), the
    labels before it and what lies around the chart.
    """
    pairs = [pair for line in lines for pair in pairwise(line)]
    along = [np.linspace(a, b, 2 + int(np.hypot(*(b - a)) / 10)) for a, b in pairs]
    taken = [np.concatenate([place - 5, place + 5]) for place in np.concatenate([places, *along])]
    chosen = []
    for place, text in zip(places, texts, strict=True):
        boxes = [_label_box(place, spot, 0.68 * _TEXT * len(text)) for spot in _SPOTS]
        covered = [sum(_overlap(box, other) for other in taken) - _overlap(box, _INSIDE) for box in boxes]
        best = int(np.argmin(covered))
        taken.append(boxes[best])
        chosen.append(_SPOTS[best])
    return chosen


def _label_box(place: npt.NDArray, spot: tuple[int, int], width: float) -> npt.NDArray:
    side, up = spot
    left = place[0] + 11 * side - width * (1 - side) / 2
    middle = place[1] + up
    return np.array([left, middle - 0.7 * _TEXT, left + width, middle + 0.7 * _TEXT])


def _overlap(a: npt.NDArray, b: npt.NDArray) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(max(width, 0) * max(height, 0))


def _tick(value: float, position: float | None = None) -> str:
    """A number on the x axis; matplotlib passes its position along."""
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
