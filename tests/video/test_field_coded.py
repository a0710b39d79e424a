"""Field-coded H.264: two packets a frame."""

from pathlib import Path

import numpy as np
import pytest

from tests.video.field_coded import bars, write_field_coded
from tests.videos import index_of, read_crops, read_frames
from tubelet.video.reader import Crop, IndexChanged, open_video

FRAMES = bars(20)


def shown(luma: np.ndarray) -> np.ndarray:
    """Gray levels of limited-range luma."""
    return (luma.astype(float) - 16) * 255 / 219


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mkv", "a.h264"])
def test_two_fields_are_one_frame(tmp_path: Path, name: str):
    path = write_field_coded(tmp_path / name, FRAMES)
    index = index_of(path)
    assert (len(index), index.fps, index.height, index.width) == (20, 25, 32, 16)
    truth = shown(FRAMES)
    for wanted in (range(20), [19, 3, 3, 12], *([number] for number in range(20))):
        frames = read_frames(path, wanted)[:, 0].numpy()
        assert np.abs(frames - truth[list(wanted)]).max() < 1.5, (name, wanted)
    (clip,) = read_crops(path, [Crop([7, 8], None, (32, 16))])
    assert np.abs(clip[:, 1].numpy() - truth[[7, 8]]).max() < 1.5


def test_both_fields_in_one_packet_are_one_frame(tmp_path: Path):
    path = write_field_coded(tmp_path / "a.ts", FRAMES, one_packet=True)
    assert (len(index_of(path)), index_of(path).fps) == (20, 25)
    assert np.abs(read_frames(path, range(20))[:, 0].numpy() - shown(FRAMES)).max() < 1.5


def test_a_header_that_counts_fields_is_mended(tmp_path: Path):
    path = write_field_coded(tmp_path / "a.mp4", FRAMES)
    with open_video(path) as video:
        assert len(video.index) == 40
        with pytest.raises(IndexChanged):
            video.read([3])
        assert (len(video.index), video.index.fps) == (20, 25)
        assert np.abs(video.read([3])[0, 0].numpy() - shown(FRAMES[3])).max() < 1.5


def test_a_field_without_its_other_one_is_not_shown(tmp_path: Path):
    path = write_field_coded(tmp_path / "a.ts", FRAMES, single=[5, 10])
    kept = [number for number in range(20) if number not in (5, 10)]
    assert len(index_of(path)) == 18
    assert np.abs(read_frames(path, range(18))[:, 0].numpy() - shown(FRAMES[kept])).max() < 1.5
