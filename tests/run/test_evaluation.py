"""Multi-view tests of a classifier."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tubelet
from tubelet.checkpoints.load import load_model
from tubelet.clips import DenseClip, SegmentClip, Views
from tubelet.data.dataset import read_views
from tubelet.data.manifest import read_manifest, write_manifest
from tubelet.errors import UserError
from tubelet.masking import RunningCellMasking
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.run.evaluation import Evaluation, average_precision, evaluate


@pytest.fixture
def model(trained: Path) -> VideoClassifier:
    loaded = load_model(trained / "mar")
    assert isinstance(loaded, VideoClassifier)
    return loaded


@pytest.fixture
def tested(model: VideoClassifier) -> Callable[..., Evaluation]:
    def run(root: Path, views: Views | None = None, **options: object) -> Evaluation:
        chosen: dict = {"clip": SegmentClip(frames=4), "views": views or Views(), "workers": 0} | options
        return evaluate(model, root, precision="fp32", **chosen)

    return run


def test_probabilities_are_the_mean_over_each_videos_views(
    model: VideoClassifier, tested: Callable[..., Evaluation], motion: Path
) -> None:
    views = Views(clips=3, crops=2)
    outcome = tested(motion, views, batch_size=5)
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
        views_per_second=1.0,
    )
    assert outcome.top(1) == pytest.approx(1 / 3)
    assert outcome.top(2) == pytest.approx(2 / 3)
    assert outcome.top(3) == 1
    assert (outcome.top1, outcome.top5) == (outcome.top(1), 1)
    assert outcome.confusion().tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]


def result_of(labels: np.ndarray, probabilities: np.ndarray, broken: int = 0) -> Evaluation:
    return Evaluation(
        names=[f"{k}.mp4" for k in range(len(labels))],
        labels=labels,
        probabilities=probabilities,
        broken={f"b{k}.mp4": f"b{k}.mp4: no such file" for k in range(broken)},
        views_per_second=2.5,
    )


SHOWN = np.array([[1, 0, 0, 1], [0, 0, 0, 1], [1, 0, 1, 1]], dtype=bool)
SCORES = np.array([[0.9, 0.2, 0.1, 0.5], [0.8, 0.9, 0.3, 0.5], [0.7, 0.1, 0.2, 0.5]], dtype=np.float32)


def test_the_mean_average_precision_is_over_the_classes_that_are_present() -> None:
    outcome = result_of(SHOWN, SCORES)
    # Class 0 has ranks 1 and 3, no video has class 1, class 2 is second, every video has class 3.
    expected = ((1 + 2 / 3) / 2 + 1 / 2 + 1) / 3
    assert outcome.mean_average_precision() == pytest.approx(expected)
    assert outcome.metrics() == {"mAP": pytest.approx(expected)}
    assert f"mAP {expected:.2%}  of 3 videos" in outcome.summary()
    assert "3 present of 4 classes" in outcome.summary()
    all_present = result_of(SHOWN[:, [0, 2, 3]], SCORES[:, [0, 2, 3]])
    assert "present of" not in all_present.summary()


def test_videos_without_classes_have_no_precision() -> None:
    outcome = result_of(np.zeros((2, 3), dtype=bool), SCORES[:2, :3])
    assert outcome.mean_average_precision() == 0
    assert "0 present of 3 classes" in outcome.summary()


def test_metrics_of_other_labels_are_refused() -> None:
    multi_label, one = result_of(SHOWN, SCORES), result_of(np.array([0, 3, 2]), SCORES)
    for metric in (lambda: multi_label.top(1), lambda: multi_label.top1, multi_label.confusion):
        with pytest.raises(ValueError, match="multi-label"):
            metric()
    with pytest.raises(ValueError, match="each video has one class"):
        one.mean_average_precision()
    assert one.metrics() == {"top1": one.top(1), "top5": one.top(5)}


def test_broken_videos_are_counted_and_named_under_the_numbers() -> None:
    for broken, counted in ((1, "1 video could not be read"), (2, "2 videos could not be read")):
        lines = result_of(np.array([0, 3, 2]), SCORES, broken).summary().splitlines()
        assert lines[1].startswith(counted)
        assert lines[2:] == [f"  b{k}.mp4: no such file" for k in range(broken)]
    assert len(result_of(SHOWN, SCORES).summary().splitlines()) == 1


def test_a_multi_label_test_has_a_probability_for_each_class(
    model: VideoClassifier, tested: Callable[..., Evaluation], tagged: Path, tmp_path: Path
) -> None:
    model.card = replace(model.card, multi_label=True)
    views = Views(clips=2)
    outcome = tested(tagged, views, batch_size=5)
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
    assert outcome.summary().startswith(f"mAP {outcome.mean_average_precision():.2%}  of 12 videos")
    outcome.save(tmp_path / "outcome.npz")
    again = Evaluation.load(tmp_path / "outcome.npz")
    assert again.labels.dtype == bool
    assert again.metrics() == outcome.metrics()


def test_a_multi_label_model_is_tested_on_a_list_with_one_class_per_video(
    model: VideoClassifier, tested: Callable[..., Evaluation], motion: Path
) -> None:
    model.card = replace(model.card, multi_label=True)
    outcome = tested(motion)
    expected = [sample.label for sample in read_manifest(motion, "test").samples]
    assert outcome.labels.sum(1).tolist() == [1] * 12
    assert outcome.labels.argmax(1).tolist() == expected


def test_a_single_label_model_is_not_tested_on_a_multi_label_list(
    tested: Callable[..., Evaluation], tagged: Path
) -> None:
    with pytest.raises(UserError, match=r"test\.csv.* multi-label"):
        tested(tagged)


def test_a_list_of_more_or_fewer_classes_than_the_models_is_refused(
    tested: Callable[..., Evaluation], motion: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(motion, "test")
    samples = [replace(sample, label=0) for sample in manifest.samples]
    write_manifest(tmp_path, "test", samples, manifest.classes[:5])
    with pytest.raises(UserError, match=r"test\.csv: .* 5 classes, .* 12"):
        tested(tmp_path)


def test_a_broken_video_is_listed_and_never_replaced(
    tested: Callable[..., Evaluation], motion: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    (data / "videos/test/00004.mp4").write_text("not a video")
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


def test_a_model_is_read_and_tested_as_its_card_says(trained: Path, motion: Path) -> None:
    folder, manifest = trained / "finetune", read_manifest(motion, "test")
    outcome = evaluate(str(folder), manifest, workers=0, precision="fp32")
    model = load_model(folder)
    chosen: dict = {"clip": SegmentClip(frames=4), "views": Views(clips=2), "device": "cpu"}
    expected = evaluate(model, motion, workers=0, precision="fp32", **chosen)
    assert len(outcome.names) == 12
    np.testing.assert_allclose(outcome.probabilities, expected.probabilities, atol=1e-5)


def test_a_model_in_training_mode_is_tested_in_evaluation_mode(
    model: VideoClassifier, tested: Callable[..., Evaluation], motion: Path
) -> None:
    expected = tested(motion)
    seen: list[bool] = []
    model.encoder.register_forward_hook(lambda module, *_: seen.append(module.training))
    model.train()
    np.testing.assert_array_equal(tested(motion).probabilities, expected.probabilities)
    assert model.training
    assert seen
    assert not any(seen)


def test_other_classes_are_refused(trained: Path, motion: Path, tmp_path: Path) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    names = (data / "classes.txt").read_text().splitlines()
    (data / "classes.txt").write_text("\n".join(reversed(names)))
    with pytest.raises(UserError, match="trained on other classes"):
        evaluate(trained / "finetune", data)


def test_what_does_not_classify_is_refused(trained: Path, motion: Path) -> None:
    with pytest.raises(UserError, match=f"{trained / 'pretrain'} is an autoencoder"):
        evaluate(trained / "pretrain", motion)
    encoder = VideoClassifier(ClassifierConfig(encoder=EncoderConfig(frames=4, image_size=32), classes=0))
    with pytest.raises(UserError, match="encoder without a classifier"):
        evaluate(encoder, motion)


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


def test_clips_with_another_number_of_frames_than_the_model_takes_are_refused(
    trained: Path, motion: Path
) -> None:
    with pytest.raises(UserError, match=r"data\.clip\.frames is 16.*set data\.clip\.frames=4"):
        evaluate(trained / "finetune", motion, clip=DenseClip())


def test_a_complementary_test_needs_masks_that_cover_the_clip(
    tested: Callable[..., Evaluation], motion: Path
) -> None:
    for ratio in (0.0, 0.1, 0.25):
        with pytest.raises(UserError, match=r"0\.5 or 0\.75"):
            tested(motion, complementary=True, masking=RunningCellMasking(ratio=ratio))


def test_a_complementary_test_of_a_model_without_masking_is_refused(trained: Path, motion: Path) -> None:
    with pytest.raises(UserError, match="complementary=true needs a masking"):
        evaluate(trained / "finetune", motion, workers=0, complementary=True)


TWO_PROCESSES = """
import sys
import torch.distributed as dist
from tubelet.machine import exit_process
from tubelet.run.evaluation import evaluate

model, data, out = sys.argv[1:]
first = evaluate(model, data, workers=0, precision="fp32", device="cpu", threads=1, batch_size=5)
assert not dist.is_initialized()
dist.init_process_group("gloo")  # a group of the caller is used and kept
second = evaluate(model, data, workers=0, precision="fp32", device="cpu", threads=1)
assert dist.is_initialized()
assert first.names == second.names
if dist.get_rank() == 1:
    first.save(out)
dist.barrier()
dist.destroy_process_group()
third = evaluate(model, data, workers=0, precision="fp32", device="cpu", threads=1)
assert first.names == third.names
exit_process(0)
"""


@pytest.mark.slow
def test_two_processes_find_exactly_what_one_finds(trained: Path, motion: Path, tmp_path: Path) -> None:
    data = shutil.copytree(motion, tmp_path / "data")
    (data / "videos/test/00004.mp4").write_text("not a video")
    script, out = tmp_path / "script.py", tmp_path / "out.npz"
    script.write_text(TWO_PROCESSES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*torchrun, "--log-dir", tmp_path / "logs", script, trained / "finetune", data, out]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tubelet.__file__).parents[1])}
    done = subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    together = Evaluation.load(out)
    alone = evaluate(trained / "finetune", data, workers=0, precision="fp32", device="cpu")
    assert together.names == alone.names
    assert together.broken.keys() == alone.broken.keys() == {"videos/test/00004.mp4"}
    np.testing.assert_array_equal(together.labels, alone.labels)
    np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=1e-6)


def precision_by_hand(scores: np.ndarray, labels: np.ndarray) -> float:
    """Each threshold's precision, weighted by how much recall it adds to that of the one above it."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        positive = [bool(label) for score, label in zip(scores, labels, strict=True) if score >= threshold]
        total += (sum(positive) / labels.sum() - recall) * (sum(positive) / len(positive))
        recall = sum(positive) / labels.sum()
    return total


def test_the_average_precision_of_the_best_and_the_worst_order() -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.1])
    assert average_precision(scores, np.array([True, True, False, False])) == 1
    reverse = average_precision(scores, np.array([False, False, True, True]))
    assert reverse == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_the_average_precision_of_equal_scores_is_the_share_of_videos_with_the_class() -> None:
    assert average_precision(np.full(8, 0.5), np.arange(8) < 3) == pytest.approx(3 / 8)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40), st.randoms())
def test_the_average_precision_is_the_published_sum_for_any_ties_and_order(
    pairs: list[tuple[int, bool]], random
) -> None:
    random.shuffle(pairs)
    scores = np.array([score / 7 for score, _ in pairs], dtype=np.float32)
    labels = np.array([label for _, label in pairs])
    labels[0] = True
    assert average_precision(scores, labels) == pytest.approx(precision_by_hand(scores, labels))
