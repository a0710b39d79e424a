"""The report of an experiment: one HTML page that holds everything it shows and needs no network.

The input is plain data; nothing is measured here. Sections that have nothing to show are left out.
"""

import io
import os
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SERIES = 6  # colors that report.html names --series-0 and so on
_MOST_CLASSES = 24  # a larger confusion matrix cannot be read
_MOST_KEY_FIGURES = 4


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


def write_report(report: Report, path: str | Path) -> None:
    """Write the page to `path`, whole or not at all; folders that are missing are made."""
    path = Path(path)
    page = render(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def render(report: Report) -> str:
    """The page as HTML; the same report gives the same text."""
    sections = (
        _results(report),
        _trade_off(report),
        _learning_curves(report),
        _reconstructions(report),
        _confusion(report),
        _worst(report),
        _recipes(report),
        _facts(report),
    )
    template = Template(files("tubelet").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(report.title),
        lead=escape(report.lead).replace(" %", "&nbsp;%"),
        key=_key_figures(report),
        sections="\n".join(filter(None, sections)),
    )


# -------------------------------------------------------------------------------------------- sections


def _section(title: str, body: str, note: str = "") -> str:
    """A section with escaped title and note, or nothing where it has no body."""
    if not body:
        return ""
    note = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{note}{body}\n</section>"


def _key_figures(report: Report) -> str:
    """The accuracy of the highlighted results, or of the best one."""
    best = sorted(report.results, key=lambda result: -result.top1)[:1]
    chosen = [result for result in report.results if result.highlight] or best
    colors = _colors(report)
    figures = "".join(
        f'<div style="--color: {colors[r.group]}"><dt>{escape(r.name)}'
        f"<small>top-1, {_figures(r.gflops)} GFLOPs a view</small></dt>"
        f"<dd>{_percent(r.top1)}<span>%</span></dd></div>"
        for r in chosen[:_MOST_KEY_FIGURES]
    )
    return figures and f'<dl class="key">{figures}</dl>'


@dataclass(frozen=True)
class _Column:
    head: str
    unit: str
    text: Callable[[Result], str]
    value: Callable[[Result], float] | None = None  # what is better if larger; None where nothing is


_COLUMNS = (
    _Column("Masked", "%", lambda r: f"{100 * r.masked:.0f}"),
    _Column("Top-1", "%", lambda r: _percent(r.top1), lambda r: r.top1),
    _Column("Top-5", "%", lambda r: _percent(r.top5), lambda r: r.top5),
    _Column("GFLOPs", "a view", lambda r: _figures(r.gflops), lambda r: -r.gflops),
    _Column("Parameters", "million", lambda r: _figures(r.parameters / 1e6)),
    _Column("Speed", "clips/s", lambda r: _figures(r.clips_per_second), lambda r: r.clips_per_second),
    _Column("Views", "clips × crops", lambda r: r.views.replace(" x ", " × ")),
)


def _results(report: Report) -> str:
    if not report.results:
        return ""
    head = "".join(f'<th scope="col">{c.head}<small>{c.unit}</small></th>' for c in _COLUMNS)
    best = [_best(column, report.results) for column in _COLUMNS]
    rows = ""
    for result in report.results:
        texts = [column.text(result) for column in _COLUMNS]
        cells = "".join(
            f"<td><strong>{escape(text)}</strong></td>" if text == top else f"<td>{escape(text)}</td>"
            for text, top in zip(texts, best, strict=True)
        )
        mark = ' class="highlight"' if result.highlight else ""
        group = f"<small>{escape(result.group)}</small>"
        rows += f'<tr{mark}><th scope="row">{escape(result.name)}{group}</th>{cells}</tr>\n'
    table = _scroll(
        f'<table class="results"><thead><tr><th scope="col">Model</th>{head}</tr></thead>'
        f"<tbody>\n{rows}</tbody></table>",
        "Results",
    )
    note = "All numbers were measured in this very run; the best of each column is bold. "
    note += "GFLOPs a view count one multiply-add as 1. "
    if report.tested is not None:
        note += f"Accuracies are over {_videos(report.tested)}. "
    if report.classes:
        note += f"Guessing would be right {_percent(1 / len(report.classes))} % of the time."
    return _section("Results", table + _broken(report), note)


def _best(column: _Column, results: Sequence[Result]) -> str | None:
    """The best text of a column, if it has one and not all are alike."""
    value = column.value
    if value is None or len({column.text(result) for result in results}) < 2:
        return None
    return column.text(max(results, key=value))


def _broken(report: Report) -> str:
    if not report.broken:
        return ""
    count = len(report.broken)
    how_many = _videos(count)
    if report.tested is not None:
        how_many = f"{count:,} of {_videos(report.tested + count)}"
    items = "".join(f"<li><code>{escape(name)}</code></li>" for name in report.broken)
    note = f"Not readable at test, and in no number on this page: {how_many}."
    return f'<div class="broken"><p class="note">{note}</p>\n<ul>{items}</ul></div>'


def _trade_off(report: Report) -> str:
    if len(report.results) < 2:
        return ""
    text = (
        "<div><h2>Accuracy over compute</h2>"
        '<p class="note">Up and to the left is better. A line joins the models of one group that differ in '
        "compute.</p></div>"
    )
    return f'<section class="beside">\n{text}\n{_trade_off_chart(report)}\n</section>'


def _learning_curves(report: Report) -> str:
    colors = _colors(report)
    figures = "\n".join(
        f"<figure><h3>{escape(chart.title)}</h3>{_curves_chart(chart, colors)}</figure>"
        for chart in report.charts
    )
    return _section("Learning curves", figures and f'<div class="charts">\n{figures}\n</div>')


def _reconstructions(report: Report) -> str:
    names = "".join(f"<span>{name}</span>" for name in ("original", "masked", "painted"))
    panels = f'<div class="panels" aria-hidden="true">{names}</div>'
    figures = "\n".join(
        f"<figure>{panels}"
        + _image(p.data, p.media, f"{p.caption}: the original, the masked and the painted clip")
        + f"<figcaption>{escape(p.caption)}</figcaption></figure>"
        for p in report.reconstructions
    )
    note = "The original, what the network sees of it, and what it paints where it sees nothing."
    return _section("Reconstructions", figures and f'<div class="pictures">\n{figures}\n</div>', note)


def _confusion(report: Report) -> str:
    counts = report.confusion
    if counts is None or not counts.size:
        return ""
    mistakes = counts.sum(1) + counts.sum(0) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:_MOST_CLASSES])
    names = [escape(name) for name in report.classes]
    head = "".join(f'<th scope="col"><span>{names[k]}</span></th>' for k in shown)
    rows = ""
    for i in shown:
        cells = "".join(_cell(int(counts[i, j]), int(counts[i].sum()), i == j) for j in shown)
        rows += f'<tr><th scope="row">{names[i]}</th>{cells}</tr>\n'
    corner = '<td class="corner">class ↓ &nbsp; predicted →</td>'
    table = (
        f'<table class="confusion" style="--classes: {len(shown)}"><thead><tr>{corner}{head}</tr></thead>'
        f"<tbody>\n{rows}</tbody></table>"
    )
    note = _of(report) + "each row is a class, each column what its videos were taken for; the shade is the "
    note += "share of the row. "
    if len(shown) < len(counts):
        note += f"Shown are the {len(shown)} of {len(counts)} classes with the most mistakes. "
    note += _most_confused(counts, report.classes)
    return _section("Confusion matrix", _scroll(table, "Confusion matrix"), note)


def _cell(count: int, of: int, right: bool) -> str:
    if not count:
        return "<td></td>"
    share = count / of
    kind = "right" if right else "wrong"
    if share > (0.65 if right else 0.8):  # from there on, white letters are easier to read than dark ones
        kind += " deep"
    # A single mistake among many must still be seen, hence a least shade.
    return f'<td class="{kind}" style="--share: {0.12 + 0.88 * share:.2f}" title="{share:.0%}">{count}</td>'


def _most_confused(counts: npt.NDArray[np.integer], classes: Sequence[str]) -> str:
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:3]
    pairs = [(*divmod(int(k), len(counts)), int(wrong.flat[k])) for k in order if wrong.flat[k]]
    if not pairs:
        return "No video was taken for another class."
    return (
        "Most often confused: " + ", ".join(f"{classes[i]} → {classes[j]} ({n})" for i, j, n in pairs) + "."
    )


def _of(report: Report) -> str:
    return f"{report.confusion_of or 'The model'}: "


def _worst(report: Report) -> str:
    figures = "\n".join(
        "<figure>"
        + _image(w.strip, "image/png", f"Frames of {w.video}")
        + f"<figcaption><b>{escape(w.truth)}</b> taken for <b>{escape(w.predicted)}</b>, "
        f"{_percent(w.probability)}&nbsp;% sure <code>{escape(w.video)}</code></figcaption></figure>"
        for w in report.worst
    )
    note = _of(report) + "the wrong answers that it was most sure of."
    return _section("Worst clips", figures and f'<div class="worst">\n{figures}\n</div>', note)


def _recipes(report: Report) -> str:
    parts = (
        f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
        for name, text in report.recipes
    )
    return _section("Recipes", "\n".join(parts), "All settings of each run, ready to be run again.")


def _facts(report: Report) -> str:
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in report.facts
    )
    return _section("About this run", items and f'<dl class="facts">{items}</dl>')


# -------------------------------------------------------------------------------------------- charts

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


def _colors(report: Report) -> dict[str, str]:
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


def _trade_off_chart(report: Report) -> str:
    results = report.results
    colors = _colors(report)
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
        f"{r.name} {_percent(r.top1)} % at {_figures(r.gflops)}" for r in results
    )
    return _draw(draw, size=_TRADE_OFF, right=16, labels=("GFLOPs a view", "Top-1 (%)"), alt=alt)


def _curves_chart(chart: Chart, colors: dict[str, str]) -> str:
    """Lines with their name and last value at their end; a single line goes without name and color."""
    curves = [(curve, np.asarray(curve.xs, float), np.asarray(curve.ys, float)) for curve in chart.curves]
    curves = [(curve, xs[np.isfinite(ys)], ys[np.isfinite(ys)]) for curve, xs, ys in curves]
    curves = [(curve, xs, ys) for curve, xs, ys in curves if len(ys)]
    several = len(chart.curves) > 1
    texts = [f"{curve.name} {_figures(ys[-1])}" if several else _figures(ys[-1]) for curve, _, ys in curves]

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


# -------------------------------------------------------------------------------------------- pieces


def _tick(value: float, position: float | None = None) -> str:
    """A number on the x axis; matplotlib passes its position along."""
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _figures(value: float) -> str:
    """About three significant figures."""
    if 0 < abs(value) < 0.1:
        return f"{value:.3g}"
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f}"


def _videos(count: int) -> str:
    return f"{count:,} video{'' if count == 1 else 's'}"


def _scroll(body: str, label: str) -> str:
    """What may be wider than a phone; within reach of the keyboard."""
    return f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">{body}</div>'


def _image(data: bytes, media: str, alt: str) -> str:
    return f'<img src="data:{escape(media)};base64,{b64encode(data).decode()}" alt="{escape(alt)}">'
