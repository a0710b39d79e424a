"""Files that are whole or not there."""

from pathlib import Path

import pytest

from tubelet.files import replacing


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    with path.open() as reader:
        with replacing(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert reader.read() == "old"  # who reads meanwhile sees the whole old file
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
