"""The documentation says what the code does."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from tubelet.models.flops import gflops_per_view, parameter_count

ROOT = Path(__file__).parents[1]


GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))


@pytest.mark.parametrize("page", GENERATE["PAGES"])
def test_the_generated_pages_are_up_to_date(page: str) -> None:
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == GENERATE["PAGES"][page]()


@pytest.mark.parametrize("row", GENERATE["COSTS"], ids=str)
def test_computing_and_parameters_are_the_published_ones(row: tuple[Any, ...]) -> None:
    method, size, ratio, gflops, millions = row
    model = GENERATE["classifier"](method, size, ratio)
    if gflops is not None:
        plural = gflops_per_view(model) + GENERATE["upstream_extra"](method, size, ratio)
        assert plural == pytest.approx(gflops, rel=0.004)
    if millions is not None:
        assert parameter_count(model) / 1e6 == pytest.approx(millions, rel=0.01)


def test_every_setting_is_explained() -> None:
    from tubelet.recipe.help import explain

    for task in ("pretrain", "finetune", "evaluate"):
        unexplained = [key for key, _, _, meaning in explain(task) if not meaning]
        assert unexplained == []
