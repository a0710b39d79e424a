"""The bar, where there is no terminal."""

import io
import re

import pytest
from rich.console import Console

from tubelet.progress import Bar, time_left


def test_a_plain_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(float(x) for x in range(0, 1000, 4))
    monkeypatch.setattr("tubelet.progress.time.monotonic", lambda: next(clock))
    with Bar("writing videos") as bar:
        for done in range(1, 8):
            bar.show(done, 8)
    lines = capsys.readouterr().err.split("\n")
    assert [line for line in lines if line] == [
        "writing videos: 3 of 8  less than a minute left",
        "writing videos: 6 of 8  less than a minute left",
    ]


def test_remaining_time_is_in_words() -> None:
    for seconds, words in (
        (5, "less than a minute left"), (660, "11 min left"), (3599, "1 h 00 min left"),
        (26 * 3600 + 240, "26 h 04 min left"),
    ):  # fmt: skip
        assert time_left(seconds) == words


def test_a_bar_fits_80_columns() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with Bar("downloading videomae_base_k400_800e_finetuned, megabytes", console=console) as bar:
        for done in range(20):
            bar.show(done, 1234)
            bar._progress.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n").splitlines()
    assert max(map(len, shown)) <= 80
    assert any("19 of 1234" in line for line in shown)
