"""The table of a sweep: mean and spread over the seeds, beside the published numbers."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tubelet.files import replacing
from tubelet.report.sweep_page import SweepPage, SweepRow, render_sweep
from tubelet.sweep.schema import Sweep

_TITLES = {"top1": "top-1 (%)", "top5": "top-5 (%)", "mAP": "mAP (%)"}


def sweep_rows(sweep: Sweep, results: Sequence[dict[str, Any]]) -> list[SweepRow]:
    """Return the rows of the table, in the order of the sweep, also those without results.

    Args:
        sweep: the sweep.
        results: the contents of the finished runs' `result.json`.
    """
    rows = []
    for arm in sweep.all_arms():
        finished = [result for result in results if result["arm"] == arm]
        for test in sweep.tests_of(arm):
            name = sweep.row(arm, test)
            rows.append(
                SweepRow(
                    name=name,
                    values=[100 * result["metrics"][test][sweep.metric] for result in finished],
                    published=sweep.published.get(name),
                    gflops=finished[0]["gflops"][test] if finished else None,
                    changes=sweep.changes_of(arm),
                )
            )
    return rows


def write_tables(name: str, sweep: Sweep, results: Sequence[dict[str, Any]], out: Path) -> str:
    """Write `results.csv`, `results.md` and `results.html` into the sweep's folder; returns the second."""
    rows = sweep_rows(sweep, results)
    markdown = to_markdown(sweep, rows)
    page = SweepPage(
        title=f"Sweep {name}", metric=sweep.metric, seeds=len(sweep.seeds), source=sweep.source, rows=rows
    )
    for file, text in (
        ("results.csv", to_csv(sweep, rows)),
        ("results.md", markdown),
        ("results.html", render_sweep(page)),
    ):
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return markdown


def to_markdown(sweep: Sweep, rows: Sequence[SweepRow]) -> str:
    """Return the table as markdown."""
    head = ("arm", "runs", _TITLES[sweep.metric], "spread", "published", "difference", "GFLOPs a view")
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for row in rows:
        cells = (row.name, f"{len(row.values)} of {len(sweep.seeds)}", *row.cells())
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    note = f"\nPublished: {sweep.source}.\n" if sweep.source else ""
    return "\n".join(lines) + "\n" + note


def to_csv(sweep: Sweep, rows: Sequence[SweepRow]) -> str:
    """Return the table as CSV: unrounded numbers, and what each arm changes."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = ("arm", "runs", f"{sweep.metric}_mean", f"{sweep.metric}_spread", "published", "gflops")
    writer.writerow((*columns, "values", "changes"))
    for row in rows:
        numbers = (row.mean, row.spread, row.published, row.gflops)
        values = " ".join(f"{value:.6g}" for value in row.values)
        cells = ("" if number is None else f"{number:.6g}" for number in numbers)
        writer.writerow((row.name, len(row.values), *cells, values, row.changes))
    return file.getvalue()
