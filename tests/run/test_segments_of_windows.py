"""Windows of a video are smoothed, merged into segments, and written as subtitles."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import tubelet
from tests.videos import moving_frames, write_video
from tubelet.checkpoints.load import load_model
from tubelet.run.segments import Segment, merged, smoothed, srt_entry


def windows(best: Sequence[int], length: float, hop: float) -> list[tubelet.Prediction]:
    rows = np.full((len(best), 3), 0.1, np.float32)
    rows[range(len(best)), best] = 0.8
    return [
        tubelet.Prediction(row, ("a", "b", "c"), "x.mp4", k * hop, k * hop + length)
        for k, row in enumerate(rows)
    ]


def test_smoothing_is_a_moving_average() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 7):
        rows = rng.random((count, 3))
        found = [tubelet.Prediction(row, (), "x", float(k), k + 2.0) for k, row in enumerate(rows)]
        for num in (1, 2, 3, 5, 20):
            expected = [rows[max(0, k - num // 2) : k + (num - 1) // 2 + 1].mean(0) for k in range(len(rows))]
            result = list(smoothed(found, num))
            assert [each.start for each in result] == [each.start for each in found]
            for each, mean in zip(result, expected, strict=True):
                np.testing.assert_allclose(each.probabilities, mean)


def test_neighbors_of_one_class_are_a_segment() -> None:
    for best, length, hop, expected in (
        ([0, 0, 1], 2, 2, [(0, 4, "a"), (4, 6, "b")]),
        ([0, 0, 1, 0], 2, 1, [(0, 2.5, "a"), (2.5, 3.5, "b"), (3.5, 5, "a")]),
        ([0, 0, 1], 1, 3, [(0, 1, "a"), (3, 4, "a"), (6, 7, "b")]),
        ([2], 2, 1, [(0, 2, "c")]),
        ([], 2, 1, []),
    ):
        found = list(merged(windows(best, length, hop)))
        assert [(each.start, each.end, each.name) for each in found] == expected
        assert all(each.probability == pytest.approx(0.8) for each in found)


def test_windows_before_a_failure_are_finished() -> None:
    read = windows([0, 0, 1], 1, 1)

    def breaking() -> Iterator[tubelet.Prediction]:
        yield from read
        raise tubelet.VideoError("x.mp4: cut off")

    for smooth in (1, 2, 9):
        found: list[tubelet.Prediction] = []
        with pytest.raises(tubelet.VideoError, match="cut off"):
            found.extend(smoothed(breaking(), smooth))
        expected = list(smoothed(read, smooth))
        assert [each.start for each in found] == [0, 1, 2]
        assert all((a.probabilities == b.probabilities).all() for a, b in zip(found, expected, strict=True))
    segments: list[Segment] = []
    with pytest.raises(tubelet.VideoError, match="cut off"):
        segments.extend(merged(smoothed(breaking(), 1)))
    assert [(each.start, each.end, each.name) for each in segments] == [(0, 2, "a"), (2, 3, "b")]


def test_times_of_subtitles_are_rounded_to_milliseconds() -> None:
    entry = srt_entry(3, Segment(59.9996, 3725.5, "jump", 0.934))
    assert entry == "3\n00:01:00,000 --> 01:02:05,500\njump 93%\n\n"


@pytest.mark.slow
def test_windows_are_predicted_as_segments_of_the_video(trained: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", moving_frames(60, 40, 56), options={"g": "12", "bf": "2"})
    model = load_model(trained / "mar")
    for workers, batch_size in ((0, 1), (2, 3)):
        predictor = tubelet.Predictor(model, precision="fp32", workers=workers, batch_size=batch_size)
        found = list(predictor.windows(video, "1s", "0.1s"))
        assert [round(each.start or 0, 6) for each in found] == [round(0.1 * k, 6) for k in range(15)]
        for each in found:
            expected = tubelet.predict(model, video, start=each.start, end=each.end, precision="fp32")
            np.testing.assert_allclose(each.probabilities, expected.probabilities, atol=1e-6)
        again = list(predictor.windows(video, "1s", "0.1s", smooth=3))
        mean = np.mean([each.probabilities for each in found[4:7]], axis=0)
        np.testing.assert_allclose(again[5].probabilities, mean, atol=1e-6)
        with pytest.raises(tubelet.VideoError, match=r"gone\.mp4"):
            next(predictor.windows("gone.mp4", 1))
        assert isinstance(predictor(video), tubelet.Prediction)


def test_subtitles_are_numbered_and_do_not_overlap(trained: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", moving_frames(60, 40, 56))
    predictor = tubelet.Predictor(trained / "finetune", workers=0, device="cpu")
    segments = list(merged(predictor.windows(video, "16f", "4f")))
    text = "".join(srt_entry(number, each) for number, each in enumerate(segments, start=1))
    entries = text.strip().split("\n\n")
    seconds = []
    for number, entry in enumerate(entries, start=1):
        first, times, *rest = entry.split("\n")
        assert (first, len(rest)) == (str(number), 1)
        parts = re.fullmatch(r"(\d\d):(\d\d):(\d\d),(\d{3}) --> (\d\d):(\d\d):(\d\d),(\d{3})", times)
        assert parts
        numbers = [int(part) for part in parts.groups()]
        seconds += [
            numbers[k] * 3600 + numbers[k + 1] * 60 + numbers[k + 2] + numbers[k + 3] / 1000 for k in (0, 4)
        ]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0
    assert seconds[-1] == pytest.approx(2.4, abs=1e-3)
