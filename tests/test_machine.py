"""What is known of the machine."""

from pathlib import Path

import pytest

from tubelet.machine import processor


@pytest.mark.parametrize(
    ("text", "name"),
    [("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: x\n", "Some CPU @ 2 GHz"),
     ("processor\t: 0\nBogoMIPS\t: 50.0\n", "aarch64"), (None, "aarch64")],
)  # fmt: skip
def test_the_processor_has_its_name_or_that_of_its_kind(
    text: str | None, name: str, monkeypatch: pytest.MonkeyPatch
):
    def read_text(path: Path, encoding: str) -> str:
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor() == name
