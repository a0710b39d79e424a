"""A model that stays loaded: many videos in batches, in order, past those that cannot be read."""

import os
import signal
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch

import tubelet
from tests.conftest import BROKEN
from tubelet.checkpoints.load import load_model
from tubelet.clips import SegmentClip, Views
from tubelet.data.dataset import read_views
from tubelet.data.manifest import Sample
from tubelet.errors import UserError
from tubelet.models.card import ModelCard
from tubelet.video.reader import VideoFile


@pytest.fixture
def files(motion: Path) -> list[Path]:
    return sorted((motion / "videos/test").iterdir())


@pytest.mark.slow
def test_the_answers_are_those_of_one_video_at_a_time_in_any_batch(trained: Path, files: list[Path]) -> None:
    for run in ("finetune", "mar"):
        model = load_model(trained / run)
        one_by_one = [tubelet.predict(model, file, precision="fp32") for file in files]
        for batch_size, workers in ((1, 0), (5, 0), (12, 1)):
            predictor = tubelet.Predictor(model, precision="fp32", batch_size=batch_size, workers=workers)
            for found, file, expected in zip(predictor.stream(files), files, one_by_one, strict=True):
                assert isinstance(found, tubelet.Prediction)
                assert found.video == str(file)
                np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
            again = predictor(files[3])  # after a stream, by the same processes
            np.testing.assert_allclose(again.probabilities, one_by_one[3].probabilities, atol=1e-6)


@pytest.mark.slow
def test_streams_in_turns_have_the_answers_of_streams_one_after_another(
    trained: Path, files: list[Path]
) -> None:
    model = load_model(trained / "finetune")

    def ask(kind: str, predictor: tubelet.Predictor, file: Path) -> Iterator[object]:
        return predictor.windows(file, "8f", "4f") if kind == "windows" else predictor.stream([file] * 3)

    for workers, kind in ((0, "windows"), (1, "windows"), (0, "files"), (1, "files")):
        predictor = tubelet.Predictor(model, precision="fp32", workers=workers, device="cpu")
        expected = [list(ask(kind, predictor, file)) for file in files[5:7]]
        first, second = (ask(kind, predictor, file) for file in files[5:7])
        taken = [[next(first)], list(second)]
        taken[0] += first
        for found, apart in zip(taken, expected, strict=True):
            for each, other in zip(found, apart, strict=True):
                assert isinstance(each, tubelet.Prediction)
                assert isinstance(other, tubelet.Prediction)
                assert (each.video, each.start) == (other.video, other.start)
                np.testing.assert_allclose(each.probabilities, other.probabilities, atol=1e-6)


def test_broken_videos_are_results_at_their_position(trained: Path, videos: Path) -> None:
    names = ["0.mp4", *BROKEN, "1.mp4", "0.mp4"]
    for batch_size in (1, 2, 8):
        predictor = tubelet.Predictor(trained / "finetune", device="cpu", batch_size=batch_size, workers=1)
        found = list(predictor.stream([videos / name for name in names]))
        assert [Path(each.video).name for each in found] == names
        broken = {Path(each.video).name: each for each in found if isinstance(each, tubelet.UnreadableVideo)}
        assert set(broken) == set(BROKEN)
        assert all(name in each.reason for name, each in broken.items())
        assert "no such file" in broken["gone.mp4"].reason
        with pytest.raises(tubelet.VideoError, match=r"gone\.mp4"):
            predictor(videos / "gone.mp4")


@pytest.mark.slow
def test_a_video_that_crashes_its_decoder_is_reported_and_the_others_are_predicted(
    trained: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = VideoFile.read_crops

    def crash(video: VideoFile, *crops: object) -> list[torch.Tensor]:
        if str(video._deadline.path) == str(files[1]):
            os.kill(os.getpid(), signal.SIGSEGV)
        return read(video, *crops)  # type: ignore[arg-type]

    monkeypatch.setattr(VideoFile, "read_crops", crash)
    predictor = tubelet.Predictor(load_model(trained / "finetune"), workers=2)
    for _ in range(2):
        found = list(predictor.stream(files[:4]))
        assert [isinstance(each, tubelet.Prediction) for each in found] == [True, False, True, True]
        assert isinstance(found[1], tubelet.UnreadableVideo)
        assert found[1].reason == f"{files[1]}: decoding crashed"


def test_an_endless_iterator_is_read_as_its_results_are_used(trained: Path, files: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        for file in repeat(files[0]):
            taken += 1
            yield file

    predictor = tubelet.Predictor(load_model(trained / "finetune"), workers=0)
    stream = predictor.stream(endless())
    assert isinstance(next(stream), tubelet.Prediction)
    assert taken <= 256
    stream.close()  # type: ignore[attr-defined]
    assert isinstance(predictor(files[1]), tubelet.Prediction)


def test_segments_are_predicted(trained: Path, files: list[Path]) -> None:
    model = load_model(trained / "finetune")
    predictor = tubelet.Predictor(model, workers=0)
    expected = tubelet.predict(model, files[0], start=0.2, end=0.6)
    for found in (
        predictor(files[0], start=0.2, end=0.6),
        *predictor.stream([Sample(str(files[0]), start=0.2, end=0.6)]),
    ):
        assert isinstance(found, tubelet.Prediction)
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
        assert (found.start, found.end) == (0.2, 0.6)


def test_clip_and_views_are_those_given(trained: Path, files: list[Path]) -> None:
    model = load_model(trained / "finetune")
    dense = tubelet.DenseClip(frames=4, stride=2)
    predictor = tubelet.Predictor(model, clip=dense, views=Views(clips=3), precision="fp32", workers=0)
    assert predictor.clip_and_views[0] == dense
    views = read_views(files[0], dense, Views(clips=3), 32)
    with torch.no_grad():
        expected = model(views).softmax(1).mean(0).numpy()
    np.testing.assert_allclose(predictor(files[0]).probabilities, expected, atol=1e-6)
    with pytest.raises(UserError, match=r"clip\.frames=4"):
        list(tubelet.Predictor(model, clip=SegmentClip(8)).stream(files))


def test_a_model_without_clip_sampling_predicts_clips(trained: Path, files: list[Path]) -> None:
    model = load_model(trained / "finetune")
    clip = tubelet.read_clip(files[0], SegmentClip(4), size=32)
    expected = tubelet.predict(model, clip, precision="fp32").probabilities
    model.card = ModelCard()
    predictor = tubelet.Predictor(model, precision="fp32")
    np.testing.assert_array_equal(predictor(clip).probabilities, expected)
    with pytest.raises(UserError, match="clips are sampled"):
        predictor(files[0])
