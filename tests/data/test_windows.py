"""Windows of a video: where they are, and that they have the frames of segments from one decoding."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.videos import index_of, moving_frames, write_video
from tubelet.clips import DenseClip, SegmentClip, Views
from tubelet.data.dataset import read_views
from tubelet.data.manifest import segment_name, segment_times
from tubelet.data.windows import SlidingWindows, WindowViews
from tubelet.errors import UserError
from tubelet.video.packets import Decoding

CLIP, VIEWS = DenseClip(frames=4, stride=2), Views(clips=2, crops=2)


@pytest.fixture
def long_video(tmp_path: Path) -> Path:
    """90 frames at 25 per second, 3.6 s, with a key frame every 12 frames and B-frames."""
    frames = moving_frames(90, 40, 56, seed=3)
    return write_video(tmp_path / "long #t=1.mp4", frames, options={"g": "12", "bf": "2"})


def all_windows(dataset: WindowViews, path: Path) -> list[tuple[float, float, torch.Tensor]]:
    found, first, count = [], 0, dataset.views.count
    while len(batch := dataset[(0, str(path), first)]):
        assert batch.index[::count].tolist() == list(range(first, first + len(batch) // count))
        for name, views in zip(batch.names[::count], batch.video.split(count), strict=True):
            start, end = segment_times(name)
            assert start is not None
            assert end is not None
            found.append((start, end, views))
        first += dataset.count
    assert not batch.failures
    return found


def test_windows_have_the_views_of_segments(long_video: Path) -> None:
    for count in (1, 3):
        dataset = WindowViews(SlidingWindows(1, 0.5), CLIP, VIEWS, size=32, count=count)
        found = all_windows(dataset, long_video)
        assert [start for start, _, _ in found] == [0, 0.5, 1, 1.5, 2, 2.5, 2.6]
        for start, end, views in found:
            assert end == pytest.approx(start + 1)
            expected = read_views(long_video, CLIP, VIEWS, 32, start=start, end=end)
            assert torch.equal(views, expected), (start, end)


def test_each_frame_is_decoded_once(long_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decodings: list[Decoding] = []
    frames = Decoding.frames

    def counted(decoding: Decoding) -> Any:
        decodings.append(decoding)
        return frames(decoding)

    monkeypatch.setattr(Decoding, "frames", counted)
    dataset = WindowViews(SlidingWindows(1, 0.2), CLIP, VIEWS, size=32)
    assert len(all_windows(dataset, long_video)) == 14
    assert len(decodings) == 1
    assert decodings[0].num_decoded <= 90


def test_the_memory_does_not_grow_with_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", moving_frames(300, 40, 56), options={"g": "12"})
    dataset = WindowViews(SlidingWindows(16, 8, "f"), SegmentClip(frames=8), Views(), size=32)
    sizes = []
    for first in range(36):
        assert len(dataset[(0, str(tmp_path / "a.mp4"), first)]) == 1
        sizes.append(len(dataset._reading.gi_frame.f_locals["kept"]))  # type: ignore[attr-defined]
    assert max(sizes) <= 16


def test_windows_in_frames_have_times(long_video: Path) -> None:
    index = index_of(long_video)
    found = SlidingWindows.parse("16f", "32f").of(index)
    assert [window.frames for window in found] == [range(16), range(32, 48), range(64, 80), range(74, 90)]
    assert [round(window.start_s, 6) for window in found] == [0, 1.28, 2.56, 2.96]
    assert found[-1].end_s == pytest.approx(3.6)
    assert found[0].end_s == pytest.approx(0.64)


def test_written_times_of_windows_in_frames_are_those_of_their_frames(long_video: Path) -> None:
    for step, rate in ((512, 15360), (1001, 30000), (1001, 24000), (33, 1000)):  # in ticks, ticks a second
        times = [step * k for k in range(90)]
        index = replace(index_of(long_video), times=times, tick_s=1 / rate, fps=rate / step)
        for window in SlidingWindows(16, 5, "f").of(index):
            start, end = segment_times(segment_name("a.mp4", window.start_s, window.end_s))
            assert index.frames_between(start, end) == window.frames, (step, rate, window)


def test_a_short_video_is_one_window_and_gaps_have_none(long_video: Path) -> None:
    index = index_of(long_video)
    assert [(w.start_s, w.frames) for w in SlidingWindows(10, 5).of(index)] == [(0, range(90))]
    assert [w.frames for w in SlidingWindows(500, 5, "f").of(index)] == [range(90)]
    exact = SlidingWindows(1.2, 1.2).of(index)
    assert [w.frames for w in exact] == [range(30), range(30, 60), range(60, 90)]
    late = [0, 1, 2, *range(80, 90)]  # nothing is shown between 0.1 s and 3.2 s
    gap = replace(index, times=[index.times[k] for k in late], keys=(0,))
    assert [len(w.frames) for w in SlidingWindows(0.5, 0.5).of(gap)] == [3, 8, 10]


def test_a_window_may_begin_anywhere_and_another_video_may_follow(long_video: Path, videos: Path) -> None:
    dataset = WindowViews(SlidingWindows(1, 1), CLIP, Views(), size=32)
    later = dataset[(0, str(long_video), 2)]
    other = dataset[(1, str(videos / "9.mp4"), 0)]
    again = dataset[(0, str(long_video), 2)]
    assert torch.equal(later.video, again.video)
    assert torch.equal(other.video, read_views(videos / "9.mp4", CLIP, Views(), 32, start=0, end=1))


def test_a_broken_video_is_a_failure_of_the_item(videos: Path, tmp_path: Path) -> None:
    dataset = WindowViews(SlidingWindows(1, 1), CLIP, Views(), size=32)
    for path in (videos / "gone.mp4", videos / "not a video.mp4", tmp_path):
        batch = dataset[(0, str(path), 0)]
        assert len(batch) == 0
        assert str(path) in batch.failures[str(path)]


def test_lengths_are_texts_with_units() -> None:
    assert SlidingWindows.parse("2s", "0.5s") == SlidingWindows(2, 0.5, "s")
    assert SlidingWindows.parse(2.0) == SlidingWindows(2, 1, "s")
    assert SlidingWindows.parse("16f", "4f") == SlidingWindows(16, 4, "f")
    assert SlidingWindows.parse("1f") == SlidingWindows(1, 1, "f")
    for window, hop in (("0s", None), ("-1s", None), ("1.5f", None), ("2m", None), ("2s", "4f"), ("2s", "0")):
        with pytest.raises(UserError, match=r"window|hop"):
            SlidingWindows.parse(window, hop)
