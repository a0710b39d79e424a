"""`tubelet sweep` on the command line."""

from collections.abc import Callable
from pathlib import Path

from tubelet.sweep.schema import sweep_names

Tubelet = Callable[..., tuple[int, str, str]]


def test_sweeps_are_listed_and_shown(tubelet: Tubelet) -> None:
    listed = tubelet("sweep", "list")[1]
    assert [line.split()[0] for line in listed.splitlines()[1:]] == sweep_names()
    code, shown, _ = tubelet("sweep", "show", "mar/head")
    assert code == 0
    assert "bridging" in shown


def test_a_dry_run_lists_the_runs_and_writes_nothing(tubelet: Tubelet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("mar/head", "--out", out, "--dry-run", "--seeds", "0,1", "--share", "2/2")
    for verb in ((), ("run",)):
        code, listed, _ = tubelet("sweep", *verb, *words)
        assert code == 0
        assert [line.partition(":")[0] for line in listed.splitlines()] == [
            "MLP, 512 wide, seed 0 (new)",
            "linear, seed 1 (new)",
            "bridging, 512 wide, 2 blocks, seed 1 (new)",
        ]
    assert not out.exists()


def test_mistakes_end_with_code_2_before_the_first_run(tubelet: Tubelet, tmp_path: Path) -> None:
    for words, named in (
        (("mar/heads",), "mar/head"),
        (("mar/head", "data.rot=x"), "data.rot"),
        (("mar/head", "pretrain.optim.epochs=3"), "pre-training"),
        (("mar/head", "--share", "3/2"), "3/2"),
        (("mar/head", "--seeds", "x"), "--seeds"),
        (("mar/head", f"data.root={tmp_path}"), str(tmp_path)),
    ):
        out = tmp_path / "out"
        code, _, error = tubelet("sweep", *words, "--out", out)
        assert code == 2, words
        assert named in error, words
        assert not out.exists()
