"""The bar, where there is no terminal."""

import pytest

from tubelet.progress import Bar


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
