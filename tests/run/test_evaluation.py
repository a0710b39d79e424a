"""Multi-view tests of a classifier."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tubelet.checkpoints.load import load_model
from tubelet.clips import SegmentClip, Views
from tubelet.data.dataset import read_views
from tubelet.data.manifest import read_manifest, write_manifest
from tubelet.errors import UserError
from tubelet.masking import RunningCellMasking
from tubelet.models.classifier import VideoClassifier
from tubelet.recipe.loading import evaluate_recipe
from tubelet.run.evaluation import Evaluation, evaluate, run_evaluation
from tubelet.train.runtime import Runtime, RuntimeConfig


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


def outcome_of(labels: np.ndarray, probabilities: np.ndarray, broken: int = 0) -> Evaluation:
    return Evaluation(
        names=[f"{k}.mp4" for k in range(len(labels))],
        labels=labels,
        probabilities=probabilities,
        broken={f"b{k}.mp4": f"b{k}.mp4: no such file" for k in range(broken)},
        clips_per_second=2.5,
    )


SHOWN = np.array([[1, 0, 0, 1], [0, 0, 0, 1], [1, 0, 1, 1]], dtype=bool)
SCORES = np.array([[0.9, 0.2, 0.1, 0.5], [0.8, 0.9, 0.3, 0.5], [0.7, 0.1, 0.2, 0.5]], dtype=np.float32)


def test_the_mean_average_precision_is_over_the_classes_that_are_shown() -> None:
    outcome = outcome_of(SHOWN, SCORES)
    # Of class 0 ranks 1 and 3 are right, nothing shows class 1, class 2 is second, class 3 is everywhere.
    expected = ((1 + 2 / 3) / 2 + 1 / 2 + 1) / 3
    assert outcome.mean_average_precision() == pytest.approx(expected)
    assert outcome.metrics() == {"mAP": pytest.approx(expected)}
    assert outcome.summary() == (
        f"mAP {expected:.2%}  of 3 videos, over the 3 of 4 classes that they show  (2.5 views/s)"
    )
    all_shown = outcome_of(SHOWN[:, [0, 2, 3]], SCORES[:, [0, 2, 3]])
    assert "of 3 videos, over 3 classes  (" in all_shown.summary()


def test_videos_that_show_nothing_at_all_have_no_precision() -> None:
    outcome = outcome_of(np.zeros((2, 3), dtype=bool), SCORES[:2, :3])
    assert outcome.mean_average_precision() == 0
    assert "over the 0 of 3 classes" in outcome.summary()


def test_what_has_no_meaning_for_the_labels_is_refused() -> None:
    multi_label, one = outcome_of(SHOWN, SCORES), outcome_of(np.array([0, 3, 2]), SCORES)
    for ask in (lambda: multi_label.top(1), multi_label.confusion):
        with pytest.raises(ValueError, match="a video may show several classes"):
            ask()
    with pytest.raises(ValueError, match="each video shows one class"):
        one.mean_average_precision()
    assert one.metrics() == {"top1": one.top(1), "top5": one.top(5)}


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (1, "1 video could not be read and is in none of these numbers:"),
        (2, "2 videos could not be read and are in none of these numbers:"),
    ],
)
def test_broken_videos_are_counted_and_named_under_the_numbers(broken: int, line: str) -> None:
    lines = outcome_of(np.array([0, 3, 2]), SCORES, broken).summary().splitlines()
    assert lines[1] == line
    assert lines[2:] == [f"  b{k}.mp4: no such file" for k in range(broken)]
    assert len(outcome_of(SHOWN, SCORES).summary().splitlines()) == 1


def test_videos_of_several_classes_are_tested_each_class_by_itself(
    model: VideoClassifier, tested: Callable[..., Evaluation], tagged: Path, tmp_path: Path
) -> None:
    model.card = replace(model.card, multi_label=True)
    views = Views(clips=2)
    outcome = tested(tagged, views, batch=5)
    samples = read_manifest(tagged, "test").samples
    assert outcome.labels.dtype == bool
    assert [tuple(np.flatnonzero(row)) for row in outcome.labels] == [
        tuple(sorted(s.labels)) for s in samples
    ]
    for name, probabilities in zip(outcome.names, outcome.probabilities, strict=True):
        video = read_views(name, SegmentClip(frames=4), views, 32)
        with torch.no_grad():
            expected = torch.stack([1 / (1 + (-model(view[None])[0]).exp()) for view in video]).mean(0)
        np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-6)
    assert outcome.summary().startswith(f"mAP {outcome.mean_average_precision():.2%}  of 12 videos, over 12")
    outcome.save(tmp_path / "outcome.npz")
    again = Evaluation.load(tmp_path / "outcome.npz")
    assert again.labels.dtype == bool
    assert again.metrics() == outcome.metrics()


def test_a_list_of_one_class_a_video_does_for_a_model_of_several(
    model: VideoClassifier, tested: Callable[..., Evaluation], motion: Path
) -> None:
    model.card = replace(model.card, multi_label=True)
    outcome = tested(motion)
    expected = [sample.label for sample in read_manifest(motion, "test").samples]
    assert outcome.labels.sum(1).tolist() == [1] * 12
    assert outcome.labels.argmax(1).tolist() == expected


def test_a_model_of_one_class_a_video_is_not_tested_on_several(
    tested: Callable[..., Evaluation], tagged: Path
) -> None:
    with pytest.raises(UserError, match=r"test.csv has videos of several classes, but the model was trained"):
        tested(tagged)


def test_a_list_of_more_or_fewer_classes_than_the_models_is_refused(
    tested: Callable[..., Evaluation], motion: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(motion, "test")
    samples = [replace(sample, label=0) for sample in manifest.samples]
    write_manifest(tmp_path, "test", samples, manifest.classes[:5])
    with pytest.raises(UserError, match=r"tells 12 classes apart, but the videos of .*test.csv are of 5"):
        tested(tmp_path)


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


def test_clips_of_other_frames_than_the_models_are_refused(trained: Path, motion: Path) -> None:
    recipe = evaluate_recipe(f"data.root={motion}", "data.clip.kind=dense")
    with pytest.raises(
        UserError, match=r"frames is 16, but the model takes 4 frames: set data\.clip\.frames=4"
    ):
        run_evaluation(str(trained / "finetune"), recipe)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25])
def test_a_complementary_test_needs_masks_that_fill_the_clip(
    tested: Callable[..., Evaluation], motion: Path, ratio: float
) -> None:
    with pytest.raises(UserError, match=r"0\.5 or 0\.75"):
        tested(motion, complementary=True, masking=RunningCellMasking(ratio=ratio))


def test_a_complementary_test_of_a_model_that_sees_all_is_refused(trained: Path, motion: Path) -> None:
    recipe = evaluate_recipe(f"data.root={motion}", "data.workers=0", "complementary=true")
    with pytest.raises(UserError, match="complementary=true needs a masking"):
        run_evaluation(str(trained / "finetune"), recipe)
