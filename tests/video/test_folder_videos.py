"""The videos of a folder: video files at any depth, or the folder itself if it has images."""

from pathlib import Path

import pytest

from tubelet.errors import UserError
from tubelet.video.folder_videos import videos_in


def test_a_folder_has_videos_or_is_one(tmp_path: Path):
    with pytest.raises(UserError, match=f"{tmp_path}: no videos"):
        videos_in(tmp_path)
    (tmp_path / "1.jpg").touch()
    assert videos_in(tmp_path) == [tmp_path]
    (tmp_path / "b").mkdir()
    for name in ("c.MP4", "b/a.webm", "notes.txt"):
        (tmp_path / name).touch()
    assert videos_in(tmp_path) == [tmp_path / "b" / "a.webm", tmp_path / "c.MP4"]
