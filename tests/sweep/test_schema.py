"""Sweep files: what they may contain, and what is refused with the right name."""

from pathlib import Path
from textwrap import dedent

import pytest

from tubelet.errors import UserError
from tubelet.sweep.schema import Arm, Sweep, read_sweep, sweep_names, with_seeds


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "sweep.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return str(path)


def test_a_grid_has_an_arm_for_each_combination(tmp_path: Path) -> None:
    sweep = read_sweep(
        written(
            tmp_path,
            """
            recipe: demo/finetune_mar
            arms: {base: {}}
            grid:
              masking.ratio: [0.25, 0.5]
              width:
                narrow: {head.dim: 32, head.heads: 1}
                wide: {head.dim: 64}
            published: {'masking.ratio 0.25, width wide': 70}
            """,
        )
    )
    assert list(sweep.all_arms()) == [
        "base",
        "masking.ratio 0.25, width narrow",
        "masking.ratio 0.25, width wide",
        "masking.ratio 0.5, width narrow",
        "masking.ratio 0.5, width wide",
    ]
    assert sweep.changes_of("masking.ratio 0.5, width narrow") == "masking.ratio=0.5 head.dim=32 head.heads=1"
    assert sweep.changes_of("base") == "no change"


def test_rows_are_named_by_arm_and_test() -> None:
    tests = {"all": {"masking.ratio": 0}, "half": {}}
    sweep = Sweep(recipe="x", arms={"a": Arm(), "b": Arm(tests=tests)}, published={"a": 1, "b, half": 2})
    assert [sweep.row(arm, test) for arm in "ab" for test in sweep.tests_of(arm)] == [
        "a",
        "b, all",
        "b, half",
    ]


def test_mistakes_are_named(tmp_path: Path) -> None:
    for text, words in (
        ("recipe: x\narms: {a: {setings: {}}}", "did you mean 'arms.a.settings'"),
        ("recipe: x\nars: {a: {}}", "'arms'"),
        ("arms: {a: {}}", "recipe is missing"),
        ("recipe: x", "arms is missing"),
        ("recipe: x\narms: {a: {}}\nseeds: [1, 1]", "seeds"),
        ("recipe: x\narms: {a: {}}\nseeds: []", "seeds"),
        ("recipe: x\narms: {ab: {}}\npublished: {ba: 70}", "'ba' is not a row"),
        ("recipe: x\narms: {ab: {}}\npublished: {ab: high}", "published.ab"),
        ("recipe: x\ngrid: {optim.epochs: 5}", "grid.optim.epochs"),
        ("recipe: x\narms: {optim.epochs 5: {}}\ngrid: {optim.epochs: [5]}", "optim.epochs 5"),
        ("recipe: x\nmetric: top2\narms: {a: {}}", "metric"),
        ("- recipe", "must contain a sweep"),
        ("recipe: x\nrecipe: y", "'recipe' is given twice"),
    ):
        name = written(tmp_path, text)
        with pytest.raises(UserError) as error:
            read_sweep(name)
        assert words in str(error.value), text
        assert name in str(error.value), text


def test_a_sweep_that_is_not_found_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'mar/mask_scheme'"):
        read_sweep("mar/mask_schemes")
    with pytest.raises(UserError, match=r"gone\.yaml"):
        read_sweep(str(tmp_path / "gone.yaml"))


def test_seeds_of_the_command_line() -> None:
    sweep = Sweep(recipe="x", arms={"a": Arm()})
    assert with_seeds(sweep, "3,1").seeds == (3, 1)
    for wrong in ("", "1,", "1,1", "-1", "a"):
        with pytest.raises(UserError, match="seeds"):
            with_seeds(sweep, wrong)


def test_shipped_sweeps_are_those_of_the_papers() -> None:
    ablations = {name.split("/")[0] for name in sweep_names()}
    assert ablations == {"mar", "mae_st", "science"}
