"""Write docs/science.md and its two figures from the runs of the sweep `science`.

python benchmarks/science.py runs/science      collect the results into docs/science.json first
python benchmarks/science.py                   only write the page again
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import correlation, mean, stdev
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tubelet.sweep.schema import Sweep, read_sweep
from tubelet.sweep.table import sweep_rows, to_markdown

DOCS = Path(__file__).parents[1] / "docs"
TRAINED, TESTED = (25, 50, 75), (0, 25, 50, 75)
CELL = "running cell 50 %"


@dataclass(frozen=True)
class Claim:
    """A comparison of a paper, as two rows of the table of which the first should be higher.

    Attributes:
        text: what the paper says.
        better: the row that should be higher.
        worse: the other row.
        paper: its two numbers, in percent.
    """

    text: str
    better: str
    worse: str
    paper: str


CLAIMS = (
    Claim(
        "pre-training helps", "all tokens", "all tokens, from scratch", "84.4 > 71.4 (MAE-ST, ViT-L, K400)"
    ),
    Claim("half of the tokens are enough", f"{CELL}, tested at 50 %", "all tokens", "71.0 > 70.3 (SSv2)"),
    Claim("cell over random, 50 %", f"{CELL}, tested at 50 %", "random 50 %", "70.97 > 70.35"),
    Claim("cell over tube, 50 %", f"{CELL}, tested at 50 %", "tube 50 %", "70.97 > 70.25"),
    Claim("cell over frame, 50 %", f"{CELL}, tested at 50 %", "frame 50 %", "70.97 > 66.25"),
    Claim("cell over random, 75 %", "running cell 75 %, tested at 75 %", "random 75 %", "69.46 > 68.79"),
    Claim("bridging over linear", f"{CELL}, tested at 50 %", f"{CELL}, linear head", "70.97 > 69.94"),
    Claim("2 x 2 cells over larger ones", f"{CELL}, tested at 50 %", f"{CELL}, 3 x 3 cells", "2 x 2 is best"),
    Claim(
        "reconstruction helps", f"{CELL}, tested at 50 %", f"{CELL}, no reconstruction", "no number as text"
    ),
)


def collect(folder: Path) -> list[dict[str, Any]]:
    """Return what the page needs of each finished run, in the order of arms and seeds."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("arms/*/*/result.json")]
    if not found:
        sys.exit(f"there are no finished runs in {folder / 'arms'}: run `tubelet sweep science` first")
    kept = ("arm", "seed", "metrics", "gflops", "parameters", "training")
    return sorted(
        ({key: result[key] for key in kept} for result in found),
        key=lambda result: (result["arm"], result["seed"]),
    )


def by_seed(sweep: Sweep, results: Sequence[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Return the top-1 accuracy in percent of each row of the table, by seed."""
    rows: dict[str, dict[int, float]] = {}
    for result in results:
        for test, metrics in result["metrics"].items():
            rows.setdefault(sweep.row(result["arm"], test), {})[result["seed"]] = 100 * metrics["top1"]
    return rows


def verdict(claim: Claim, rows: dict[str, dict[int, float]]) -> tuple[str, str]:
    """Return the mean difference with its spread, and in how many of the seeds it has the paper's sign."""
    better, worse = rows.get(claim.better, {}), rows.get(claim.worse, {})
    differences = [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]
    if not differences:
        return "", "not run"
    spread = f" ± {stdev(differences):.1f}" if len(differences) > 1 else ""
    same, count = sum(each > 0 for each in differences), len(differences)
    word = "agrees" if same == count else "mixed" if same else "does not agree"
    return f"{mean(differences):+.1f}{spread}", f"{word}: {same} of {count} seeds"


def ratios_table(rows: dict[str, dict[int, float]]) -> str:
    """Return the table of ratios in training x ratios in the test."""
    lines = [f"| trained at | {' | '.join(f'tested at {ratio} %' for ratio in TESTED)} |"]
    lines.append(f"| --- |{' ---: |' * len(TESTED)}")
    for trained in TRAINED:
        values = [rows.get(f"running cell {trained} %, tested at {ratio} %", {}) for ratio in TESTED]
        cells = [f"{mean(each.values()):.1f}" if each else "" for each in values]
        lines.append(f"| {trained} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def loss_points(results: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Return (reconstruction loss, top-1 in percent) of the runs at 50 % that reconstruct, by arm."""
    points: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        if "50 %" in result["arm"] and "reconstruction" in result["training"]:
            metrics = result["metrics"].get("tested at 50 %") or result["metrics"][""]
            point = (result["training"]["reconstruction"], 100 * metrics["top1"])
            points.setdefault(result["arm"], []).append(point)
    return points


def draw_ratios(axes: Axes, rows: dict[str, dict[int, float]]) -> None:
    """Draw accuracy over the ratio of the test, a line for each ratio of the training."""
    for trained in TRAINED:
        values = [list(rows.get(f"running cell {trained} %, tested at {r} %", {}).values()) for r in TESTED]
        drawn = [(ratio, each) for ratio, each in zip(TESTED, values, strict=True) if each]
        if drawn:
            spread = [stdev(each) if len(each) > 1 else 0.0 for _, each in drawn]
            axes.errorbar(
                [ratio for ratio, _ in drawn],
                [mean(each) for _, each in drawn],
                spread,
                marker="o",
                capsize=3,
                label=f"trained at {trained} %",
            )
    axes.set(xlabel="masked at test (%)", ylabel="top-1 (%)", xticks=TESTED)
    axes.legend(frameon=False)


def draw_losses(axes: Axes, points: dict[str, list[tuple[float, float]]]) -> None:
    """Draw accuracy over the reconstruction loss, a point for each run."""
    for arm, pairs in points.items():
        axes.scatter(*zip(*pairs, strict=True), label=arm)
    axes.set(xlabel="reconstruction loss in the last epoch", ylabel="top-1 (%)")
    axes.legend(frameon=False, fontsize=8)


def save(draw: Any, data: Any, path: Path) -> None:
    """Draw into an SVG file that depends only on the data."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    draw(figure.add_subplot(), data)
    with rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path, metadata={"Date": None})


def page(sweep: Sweep, results: Sequence[dict[str, Any]]) -> str:
    """Return docs/science.md."""
    rows = by_seed(sweep, results)
    claims = ["| claim | in the paper | difference here | verdict |", "| --- | --- | ---: | --- |"]
    for claim in CLAIMS:
        claims.append(f"| {claim.text} | {claim.paper} | {' | '.join(verdict(claim, rows))} |")
    pairs = [pair for each in loss_points(results).values() for pair in each]
    related = f"{correlation(*zip(*pairs, strict=True)):+.2f}" if len(set(pairs)) > 2 else "not known yet"
    text = (Path(__file__).parent / "science.md").read_text(encoding="utf-8")
    for name, content in {
        "CLAIMS": "\n".join(claims),
        "ROWS": to_markdown(sweep, sweep_rows(sweep, results)).rstrip(),
        "RATIOS": ratios_table(rows),
        "RELATED": related,
        "RUNS": f"{len(results)} of {len(sweep.all_arms()) * len(sweep.seeds)}",
        "PARAMETERS": f"{max(result['parameters'] for result in results) / 1e6:.2f}",
    }.items():
        text = text.replace(f"<{name}>", content)
    return text


def main(arguments: Sequence[str], docs: Path = DOCS) -> None:
    """Collect the results if a folder is given, and write the page."""
    data = docs / "science.json"
    if arguments:
        data.write_text(json.dumps(collect(Path(arguments[0])), indent=1) + "\n", encoding="utf-8")
    sweep, results = read_sweep("science"), json.loads(data.read_text(encoding="utf-8"))
    save(draw_ratios, by_seed(sweep, results), docs / "science_ratios.svg")
    save(draw_losses, loss_points(results), docs / "science_reconstruction.svg")
    (docs / "science.md").write_text(page(sweep, results), encoding="utf-8")
    print(docs / "science.md")


if __name__ == "__main__":
    main(sys.argv[1:])
