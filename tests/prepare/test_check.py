"""Checking a file: its properties, what is wrong with it, and what is unusual."""

from pathlib import Path
from typing import Any

import av
import pytest

from tests.prepare.files import cut, small, upright, write_audio, write_rotated
from tests.videos import moving_frames, write_video
from tubelet.prepare import check
from tubelet.prepare.check import CheckResult


def check_file(path: str) -> CheckResult:
    found = check.check_file(path)
    assert isinstance(found, CheckResult)
    return found


def test_a_check_has_the_properties_of_a_video(tmp_path: Path):
    found = check_file(str(write_rotated(tmp_path / "a.mp4", upright(8, 64, 48), 90)))
    assert (found.frames, found.width, found.height, found.codec) == (8, 48, 64, "h264")
    assert (found.error, found.note) == ("", "")
    assert found.fps == 25


def test_a_check_has_the_error_of_a_file(tmp_path: Path):
    whole = small(tmp_path / "whole.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    assert check_file(str(tmp_path / "empty.mp4")).error == "the file is empty"
    assert check_file(str(write_audio(tmp_path / "audio.mp4"))).error == "no video in this file"
    for path in (cut(tmp_path / "cut.mp4", whole), tmp_path / "text.mp4"):
        assert check_file(str(path)).error.startswith("cannot be read as a video")
    assert "No such file" in check_file(str(tmp_path / "gone.mp4")).error


def test_a_video_that_is_cut_off_is_noted(tmp_path: Path):
    path = write_video(
        tmp_path / "a.webm", moving_frames(75), codec="libvpx", options={"deadline": "realtime"}
    )
    found = check_file(str(cut(tmp_path / "cut.webm", path, 0.5)))
    assert found.error == ""
    assert "of 3.0 s; it may be cut off" in found.note
    assert check_file(str(path)).note == ""


def test_a_file_is_opened_once_to_index_and_decode_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = small(tmp_path / "a.mp4")
    opened: list[object] = []

    def count(source: str, **options: Any) -> object:
        opened.append(source)
        return open_container(source, **options)

    open_container = av.open
    monkeypatch.setattr(av, "open", count)
    assert check_file(str(path)).error == ""
    assert opened == [str(path)]
