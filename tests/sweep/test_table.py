"""The table of a sweep, as CSV, markdown and a page."""

import csv
import io
from typing import Any

from tubelet.report.sweep_page import SweepPage, render_sweep
from tubelet.sweep.schema import Arm, Sweep
from tubelet.sweep.table import sweep_rows, to_csv, to_markdown

SWEEP = Sweep(
    recipe="x",
    arms={
        "cell | <50> %": Arm(tests={"all": {}, "own": {}}),
        "random": Arm(settings={"masking": {"kind": "random", "sides": ["1", None]}}),
        "never": Arm(pretrain={"optim.epochs": "9"}),
    },
    seeds=(0, 1, 2),
    published={"random": 71.25, "never": 60.0},
    source="a paper & its table",
)


def result(arm: str, **top1: float) -> dict[str, Any]:
    metrics = {name.removeprefix("_"): {"top1": value, "top5": 1.0} for name, value in top1.items()}
    return {"arm": arm, "metrics": metrics, "gflops": dict.fromkeys(metrics, 12.345)}


RESULTS = [
    result("cell | <50> %", all=0.70, own=0.5),
    result("cell | <50> %", all=0.72, own=0.5),
    result("random", _=0.725),
]


def test_rows_have_mean_spread_and_the_published_number() -> None:
    every, own, random, never = sweep_rows(SWEEP, RESULTS)
    assert every.values == [70, 72]
    assert every.cells() == ("71.0", "1.4", "", "", "12.3")
    assert own.spread == 0
    assert random.cells() == ("72.5", "", "71.25", "+1.2", "12.3")
    assert never.cells() == ("", "", "60", "", "")


def test_markdown_has_a_line_for_each_row() -> None:
    lines = to_markdown(SWEEP, sweep_rows(SWEEP, RESULTS)).splitlines()
    assert lines[2] == "| cell / <50> %, all | 2 of 3 | 71.0 | 1.4 |  |  | 12.3 |"
    assert lines[4] == "| random | 1 of 3 | 72.5 |  | 71.25 | +1.2 | 12.3 |"
    assert {line.count("|") for line in lines[:6]} == {8}
    assert lines[-1] == "Published: a paper & its table."


def test_csv_has_unrounded_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(SWEEP, sweep_rows(SWEEP, RESULTS)))))
    assert rows[0]["arm"] == "cell | <50> %, all"
    assert float(rows[0]["top1_mean"]) == 71
    assert abs(float(rows[0]["top1_spread"]) - 2**0.5) < 1e-5
    assert rows[0]["values"] == "70 72"
    assert rows[2]["changes"] == "masking={kind: random, sides: [1, null]}"
    assert rows[3]["top1_mean"] == ""
    assert rows[3]["changes"] == "pretrain.optim.epochs=9"


def test_the_page_has_every_row_and_needs_no_network() -> None:
    rows = sweep_rows(SWEEP, RESULTS)
    html = render_sweep(SweepPage(title="A & B", metric="top1", seeds=3, source=SWEEP.source, rows=rows))
    assert html.count("<tr>") == 1 + len(rows)
    assert html.count("<circle") == 5
    assert html.count("<rect") == 2
    assert "cell | &lt;50&gt; %, own" in html
    assert "a paper &amp; its table" in html
    assert "http" not in html
    empty = sweep_rows(SWEEP, [])
    assert "<circle" not in render_sweep(SweepPage(title="x", metric="top1", seeds=3, source="", rows=empty))
