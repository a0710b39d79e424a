"""A segment of a video is read as a video: its frames are those with times in [start, end)."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.videos import decode_all, index_of, moving_frames, write_video
from tubelet.video import reader
from tubelet.video.reader import Crop, LastVideo, VideoError, open_video
from tubelet.video.sources import Deadline, OpenFile, open_container


def test_a_segment_has_the_frames_with_times_from_its_start_to_before_its_end(tmp_path: Path):
    even = write_video(tmp_path / "even.mp4", moving_frames(40), options={"g": "8", "bf": "2"})
    times = [0, 40, 90, 200, 210, 300, 500, 900, 1000, 1200]
    uneven = write_video(tmp_path / "uneven.mkv", moving_frames(10), times=times, codec="mpeg4")
    for path, seconds in ((even, [k / 25 for k in range(40)]), (uneven, [t / 1000 for t in times])):
        pixels = decode_all(path)
        for start, end in [(0, 0.4), (0.2, 0.92), (0.21, 0.91), (None, 0.2), (0.9, None), (0.04, 0.08)]:
            wanted = [k for k, t in enumerate(seconds) if t >= (start or 0) and (end is None or t < end)]
            with open_video(path, start=start, end=end) as video:
                assert len(video.index) == len(wanted), (path, start, end)
                assert video.index.keys[0] == 0
                frames = video.read(range(len(wanted)))
                (crop,) = video.read_crops([Crop([len(wanted) - 1], None, (24, 32))])
            with open_video(path) as video:
                (of_whole,) = video.read_crops([Crop([wanted[-1]], None, (24, 32))])
            assert np.array_equal(frames.permute(0, 2, 3, 1).numpy(), pixels[wanted]), (path, start, end)
            assert torch.equal(crop, of_whole)


def test_times_count_from_the_first_frame(tmp_path: Path):
    path = write_video(tmp_path / "late.ts", moving_frames(20), times=[5000 + 40 * k for k in range(20)])
    with open_video(path, start=0.2, end=0.4) as video:
        assert len(video.index) == 5
    assert index_of(path).duration_s == pytest.approx(0.8)


def test_a_segment_without_frames_is_a_broken_video(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", moving_frames(25))
    (tmp_path / "images").mkdir()
    Image.fromarray(moving_frames(1)[0]).save(tmp_path / "images" / "1.png")
    for name, start, end, message in [
        ("a.mp4", 7.5, 9, r"a.mp4: no frame between 7.5 s and 9 s; the video lasts 1.00 s"),
        ("a.mp4", 0.41, 0.42, "no frame between"),
        ("a.mp4", 0.4, 0.2, "no frame between"),
        ("images", 0, 1, "images: a folder of images has no times"),
    ]:
        with pytest.raises(VideoError, match=message), open_video(tmp_path / name, start=start, end=end):
            pytest.fail(f"{name} from {start} to {end}")
    with open_video(path, start=0.2, end=0.4) as video, pytest.raises(VideoError, match="5 frames"):
        video.read([5])


def test_segments_of_one_file_in_a_row_open_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = [
        write_video(tmp_path / f"{seed}.mp4", moving_frames(40, seed=seed), options={"g": "8", "bf": "2"})
        for seed in (1, 2)
    ]
    opened: list[str] = []

    def counted(path: Path, deadline: Deadline) -> AbstractContextManager[OpenFile]:
        opened.append(path.name)
        return open_container(path, deadline)

    asked = [(0, 0.8, 1.2), (0, 0.0, 0.4), (1, 0.2, None), (0, None, 0.4), (0, 0.2, 0.4)]
    expected = []
    for video, start, end in asked:
        with open_video(paths[video], start=start, end=end) as segment:
            expected.append(segment.read(range(len(segment.index))))
    monkeypatch.setattr(reader, "open_container", counted)
    last = LastVideo()
    for (video, start, end), frames in zip(asked, expected, strict=True):
        with last.open(paths[video], start, end) as segment:
            assert torch.equal(segment.read(range(len(segment.index))), frames), (video, start, end)
    assert opened == ["1.mp4", "2.mp4", "1.mp4"]
    with pytest.raises(VideoError, match="no frame between"), last.open(paths[0], 9, 10):
        pytest.fail("9 s")
    with last.open(paths[0], 0.2, 0.4) as segment:  # opened again after a failure
        assert len(segment.index) == 5
    assert opened[3:] == ["1.mp4"]
    with last.open(paths[1], None, None) as whole:
        assert len(whole.index) == 40
    last.close()
