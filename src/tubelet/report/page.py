"""The report of an experiment: one HTML page that holds everything it shows and needs no network.

The input is plain data; nothing is measured here. Sections that have nothing to show are left out.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt

from tubelet.errors import plural
from tubelet.files import replacing
from tubelet.report.charts import curves_chart, group_colors, trade_off_chart
from tubelet.report.contents import Report, Result, percent, rounded

_MOST_CLASSES = 24  # a larger confusion matrix cannot be read
_MOST_KEY_FIGURES = 4


def write_report(report: Report, path: str | Path) -> None:
    """Write the page to `path`, whole or not at all; folders that are missing are made."""
    path = Path(path)
    page = render(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


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
    template = Template(files("tubelet.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(report.title),
        lead=escape(report.lead).replace(" %", "&nbsp;%"),
        key=_key_figures(report),
        sections="\n".join(filter(None, sections)),
    )


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
    colors = group_colors(report)
    figures = "".join(
        f'<div style="--color: {colors[r.group]}"><dt>{escape(r.name)}'
        f"<small>top-1, {rounded(r.gflops)} GFLOPs a view</small></dt>"
        f"<dd>{percent(r.top1)}<span>%</span></dd></div>"
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
    _Column("Top-1", "%", lambda r: percent(r.top1), lambda r: r.top1),
    _Column("Top-5", "%", lambda r: percent(r.top5), lambda r: r.top5),
    _Column("GFLOPs", "a view", lambda r: rounded(r.gflops), lambda r: -r.gflops),
    _Column("Parameters", "million", lambda r: rounded(r.parameters / 1e6)),
    _Column("Speed", "clips/s", lambda r: rounded(r.clips_per_second), lambda r: r.clips_per_second),
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
        note += f"Accuracies are over {plural(report.tested, 'video')}. "
    if report.classes:
        note += f"Guessing would be right {percent(1 / len(report.classes))} % of the time."
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
    how_many = plural(count, "video")
    if report.tested is not None:
        how_many = f"{count:,} of {plural(report.tested + count, 'video')}"
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
    return f'<section class="beside">\n{text}\n{trade_off_chart(report)}\n</section>'


def _learning_curves(report: Report) -> str:
    colors = group_colors(report)
    figures = "\n".join(
        f"<figure><h3>{escape(chart.title)}</h3>{curves_chart(chart, colors)}</figure>"
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
        f"{percent(w.probability)}&nbsp;% sure <code>{escape(w.video)}</code></figcaption></figure>"
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


def _scroll(body: str, label: str) -> str:
    """What may be wider than a phone; within reach of the keyboard."""
    return f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">{body}</div>'


def _image(data: bytes, media: str, alt: str) -> str:
    return f'<img src="data:{escape(media)};base64,{b64encode(data).decode()}" alt="{escape(alt)}">'
