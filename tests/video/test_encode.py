"""Writing H.264."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.videos import decode_all, index_of, moving_frames
from tubelet.errors import UserError
from tubelet.video.encode import write_h264


def test_frames_are_written_with_their_rate_and_close_to_their_colors(tmp_path: Path):
    frames = moving_frames(20, 48, 64)
    path = tmp_path / "a.mp4"
    write_h264(path, frames, 29.97, {"crf": "4", "g": "8", "sc_threshold": "0"})
    index = index_of(path)
    assert (index.codec, index.width, index.height, index.keys) == ("h264", 64, 48, (0, 8, 16))
    assert index.fps == pytest.approx(29.97, abs=0.001)
    color_error = decode_all(path).mean(axis=(1, 2)) - frames.mean(axis=(1, 2))
    assert np.abs(color_error).max() < 3
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_odd_sides_get_their_last_row_and_column_twice(tmp_path: Path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 1, 1, 3), dtype=np.uint8)
    path = tmp_path / "a.mp4"
    write_h264(path, frames.repeat(33, 1).repeat(47, 2), Fraction(8), {"crf": "1"})
    decoded = decode_all(path)
    assert decoded.shape == (3, 34, 48, 3)
    assert np.abs(decoded.astype(float) - frames).max() < 12


def test_frames_may_come_from_a_generator_and_go_to_memory(tmp_path: Path):
    content = io.BytesIO()
    write_h264(content, iter(moving_frames(5)), 10)
    (tmp_path / "a.mp4").write_bytes(content.getvalue())
    assert len(index_of(tmp_path / "a.mp4")) == 5


def test_a_build_without_the_encoder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(av.codec, "codecs_available", set())
    with pytest.raises(UserError, match="libx264"):
        write_h264(tmp_path / "a.mp4", moving_frames(2), 10)
    assert not (tmp_path / "a.mp4").exists()
