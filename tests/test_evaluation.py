"""Multi-view tests of a classifier."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tubelet.data.clips import SegmentClip, Views
from tubelet.data.dataset import read_views
from tubelet.data.manifest import read_manifest, write_manifest
from tubelet.errors import UserError
from tubelet.evaluation import Evaluation, evaluate, run_evaluation
from tubelet.masking import RunningCellMasking
from tubelet.models.classifier import VideoClassifier
from tubelet.recipe import evaluate_recipe
from tubelet.train.runtime import Runtime, RuntimeConfig
from tubelet.zoo import load_model


@pytest.fixture
def model(trained: Path) -> VideoClassifier:
    loaded = load_model(trained / "mar")
    assert isinstance(loaded, VideoClassifier)
    return loaded


@pytest.fixture
def tested(model: VideoClassifier) -> Callable[..., Evaluation]:
    def run(root: Path, views: Views | None = None, **options: object) -> Evaluation:
        views = views or Views()
        manifest = read_manifest(root, "test")
        with Runtime(RuntimeConfig(precision="fp32")) as runtime:
            return evaluate(
                model,
                manifest,
                clip=SegmentClip(frames=4),
                views=views,
                runtime=runtime,
                workers=0,
                **options,  # type: ignore[arg-type]
            )

    return run


def test_probabilities_are_the_mean_over_each_videos_views(
    model: VideoClassifier, tested: Callable[..., Evaluation], motion: Path
) -> None:
    views = Views(clips=3, crops=2)
    outcome = tested(motion, views, batch=5)
    for name, probabilities in zip(outcome.names, outcome.probabilities, strict=True):
        video = read_views(str(motion / name), SegmentClip(frames=4), views, 32)
        with torch.no_grad():
            expected = torch.stack([model(view[None]).softmax(1)[0] for view in video]).mean(0)
        np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-6)


def test_top_k_and_confusion_count_by_hand() -> None:
    outcome = Evaluation(
        names=["a", "b", "c"],
        labels=np.array([0, 2, 1]),
        probabilities=np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.4, 0.35, 0.25]], dtype=np.float32),
        broken={},
        clips_per_second=1.0,
    )
    assert outcome.top(1) == pytest.approx(1 / 3)
    assert outcome.top(2) == pytest.approx(2 / 3)
    assert outcome.top(3) == 1
    assert outcome.confusion().tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_a_broken_video_is_listed_and_never_replaced(
    tested: Callable[..., Evaluation], motion: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    (data / "videos/test/00004.mp4").write_text("no video")
    outcome = tested(data)
    assert list(outcome.broken) == ["videos/test/00004.mp4"]
    assert len(outcome.names) == 11
    whole = tested(motion)
    kept = [i for i, name in enumerate(whole.names) if name != "videos/test/00004.mp4"]
    np.testing.assert_allclose(outcome.probabilities, whole.probabilities[kept], atol=1e-6)
    assert "of 11 videos" in outcome.summary()
    assert "00004.mp4" in outcome.summary()


def test_videos_of_the_same_name_in_different_folders_stay_apart(
    tested: Callable[..., Evaluation], motion: Path, tmp_path: Path
) -> None:
    samples = read_manifest(motion, "test").samples[:2]
    for folder, sample in zip("ab", samples, strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(motion / sample.path, tmp_path / folder / "clip.mp4")
    twins = [replace(sample, path=f"{folder}/clip.mp4") for folder, sample in zip("ab", samples, strict=True)]
    write_manifest(tmp_path, "test", twins, read_manifest(motion, "test").classes)
    assert tested(tmp_path).names == ["a/clip.mp4", "b/clip.mp4"]


def test_the_outcome_comes_back_from_disk(
    tested: Callable[..., Evaluation], motion: Path, tmp_path: Path
) -> None:
    outcome = tested(motion)
    outcome.broken["x.mp4"] = "why"
    outcome.save(tmp_path / "outcome.npz")
    again = Evaluation.load(tmp_path / "outcome.npz")
    assert again.names == outcome.names
    assert again.broken == {"x.mp4": "why"}
    np.testing.assert_array_equal(again.probabilities, outcome.probabilities)
    np.testing.assert_array_equal(again.labels, outcome.labels)


def test_masking_at_test_is_a_choice(tested: Callable[..., Evaluation], motion: Path) -> None:
    own = tested(motion)
    half = tested(motion, masking=RunningCellMasking(ratio=0.5))
    whole = tested(motion, masking=RunningCellMasking(ratio=0.0))
    np.testing.assert_array_equal(own.probabilities, half.probabilities)
    assert not np.allclose(own.probabilities, whole.probabilities)


def test_the_command_takes_what_the_card_says(trained: Path, motion: Path) -> None:
    recipe = evaluate_recipe(f"data.root={motion}", "data.workers=0")
    outcome = run_evaluation(str(trained / "finetune"), recipe)
    assert len(outcome.names) == 12


def test_other_classes_are_refused(trained: Path, motion: Path, tmp_path: Path) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    names = (data / "classes.txt").read_text().splitlines()
    (data / "classes.txt").write_text("\n".join(reversed(names)))
    with pytest.raises(UserError, match="trained on other classes"):
        run_evaluation(str(trained / "finetune"), evaluate_recipe(f"data.root={data}"))


def test_an_autoencoder_is_refused(trained: Path, motion: Path) -> None:
    with pytest.raises(UserError, match="autoencoder"):
        run_evaluation(str(trained / "pretrain"), evaluate_recipe(f"data.root={motion}"))


def test_videos_without_labels_are_refused(
    tested: Callable[..., Evaluation], motion: Path, tmp_path: Path
) -> None:
    samples = [replace(sample, label=None) for sample in read_manifest(motion, "test").samples]
    write_manifest(tmp_path, "test", samples, read_manifest(motion, "test").classes)
    with pytest.raises(UserError, match="12 videos have no label"):
        tested(tmp_path)


def test_a_complementary_test_averages_the_scores_of_masks_that_cover_the_clip(
    model: VideoClassifier, tested: Callable[..., Evaluation], motion: Path
) -> None:
    outcome = tested(motion, complementary=True)
    even, odd = RunningCellMasking(ratio=0.5).complements(model.grid)
    for name, probabilities in zip(outcome.names, outcome.probabilities, strict=True):
        video = read_views(str(motion / name), SegmentClip(frames=4), Views(), 32)
        with torch.no_grad():
            scores = (model(video, even) + model(video, odd)) / 2
        np.testing.assert_allclose(probabilities, scores.softmax(1)[0].numpy(), atol=1e-6)


def test_a_complementary_test_needs_masks_that_fill_the_clip(
    tested: Callable[..., Evaluation], motion: Path
) -> None:
    with pytest.raises(UserError, match=r"0\.5 or 0\.75"):
        tested(motion, complementary=True, masking=RunningCellMasking(ratio=0.25))
