"""The page of the sweep `science`, from made results."""

import json
import re
from pathlib import Path

import pytest

import science
from tubelet.sweep.schema import read_sweep

SWEEP = read_sweep("science")


def write_results(folder: Path, seeds: int) -> None:
    """Results as a sweep writes them; running cells are the best, and a seed adds a percent."""
    for number, arm in enumerate(SWEEP.all_arms()):
        for seed in range(seeds):
            top1 = 0.8 - 0.02 * number + 0.01 * seed
            content = {
                "arm": arm,
                "seed": seed,
                "metrics": {test: {"top1": top1, "top5": 1.0} for test in SWEEP.tests_of(arm)},
                "gflops": dict.fromkeys(SWEEP.tests_of(arm), 0.1),
                "parameters": 500_000,
                "training": {"reconstruction": 0.1 * number - 0.001 * seed},
            }
            path = folder / "arms" / str(number) / f"seed{seed}" / "result.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(content))


def test_every_claim_compares_two_rows_of_the_sweep() -> None:
    rows = {SWEEP.row(arm, test) for arm in SWEEP.all_arms() for test in SWEEP.tests_of(arm)}
    assert {row for claim in science.CLAIMS for row in (claim.better, claim.worse)} <= rows


@pytest.mark.slow
def test_the_page_has_its_numbers_and_two_figures(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=2)
    science.main([str(tmp_path)], docs=tmp_path)
    page = (tmp_path / "science.md").read_text()
    assert not re.search(r"<[A-Z]+>", page)
    assert f"{2 * len(SWEEP.all_arms())} of {3 * len(SWEEP.all_arms())} runs" in page
    assert "| cell over tube, 50 % | 70.97 > 70.25 | +8.0 ± 0.0 | agrees: 2 of 2 seeds |" in page
    assert "| running cell 50 %, tested at 0 % | 2 of 3 | 80.5 | 0.7 |" in page
    assert page.count("\n| 75 % |") == 1
    for link in re.findall(r"\]\((science\S+)\)", page):
        assert (tmp_path / link).is_file()
    before = [(tmp_path / name).read_bytes() for name in ("science.md", "science_ratios.svg")]
    science.main([], docs=tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("science.md", "science_ratios.svg")] == before


def test_verdicts_are_by_the_sign_of_each_seed() -> None:
    claim = science.Claim("x", "a", "b", "")
    for a, b, expected in (
        ({0: 2, 1: 3}, {0: 1, 1: 1}, ("+1.5 ± 0.7", "agrees: 2 of 2 seeds")),
        ({0: 2, 1: 3}, {0: 1, 1: 4}, ("+0.0 ± 1.4", "mixed: 1 of 2 seeds")),
        ({0: 1, 1: 3}, {0: 1, 2: 4}, ("+0.0", "does not agree: 0 of 1 seeds")),
        ({}, {0: 1}, ("", "not run")),
    ):
        rows = {name: {seed: float(v) for seed, v in row.items()} for name, row in (("a", a), ("b", b))}
        assert science.verdict(claim, rows) == expected


def test_without_results_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="tubelet sweep science"):
        science.collect(tmp_path)
