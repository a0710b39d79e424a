"""Multi-view tests of a classifier."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tubelet
from tubelet.checkpoints.load import load_model
from tubelet.clips import DenseClip, SegmentClip, Views
from tubelet.data.dataset import read_views
from tubelet.data.manifest import Manifest, read_manifest, write_manifest
from tubelet.errors import UserError
from tubelet.masking import FrameMasking, RandomMasking, RunningCellMasking, RunningMasking
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.recipe.loading import evaluate_recipe
from tubelet.results.accuracy import Evaluation
from tubelet.run import evaluation
from tubelet.run.evaluation import evaluate
from tubelet.run.shares import Share
from tubelet.video.reader import Crop, VideoFile


@pytest.fixture
def tested(model: VideoClassifier) -> Callable[..., Evaluation]:
    def run(root: Path | Manifest, views: Views | None = None, **options: object) -> Evaluation:
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


def test_any_failure_while_a_video_is_read_is_a_fault_of_that_video(
    tested: Callable[..., Evaluation], motion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = (ZeroDivisionError("x"), KeyError("x"), MemoryError(), RuntimeError("x"), AssertionError("x"))
    read = VideoFile.read_crops

    def fail(video: VideoFile, crops: Sequence[Crop]) -> list[torch.Tensor]:
        number = int(Path(video._deadline.path).stem)
        if number % 2 == 0 and number // 2 < len(errors):
            raise errors[number // 2]
        return read(video, crops)

    monkeypatch.setattr(VideoFile, "read_crops", fail)
    outcome = tested(motion, batch_size=2)
    assert list(outcome.broken) == [f"videos/test/{2 * k:05d}.mp4" for k in range(len(errors))]
    for error, (name, reason) in zip(errors, outcome.broken.items(), strict=True):
        assert name in reason
        assert type(error).__name__ in reason
    assert len(outcome.names) == 12 - len(errors)


def test_a_model_with_broken_weights_stops_the_test_with_the_first_videos_name(
    model: VideoClassifier, tested: Callable[..., Evaluation], motion: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    for out in (None, tmp_path):
        with pytest.raises(UserError, match=r"videos/test/00000\.mp4: .* not finite"):
            tested(motion, out=out)
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
def test_a_test_of_2000_batches_keeps_no_more_files_open_than_a_short_one(
    tested: Callable[..., Evaluation], motion: Path
) -> None:
    manifest = read_manifest(motion, "test")
    many = replace(manifest, samples=(manifest.samples * 167)[:2000])
    counts: list[int] = []

    def count(done: int, total: int) -> None:
        counts.append(len(list(Path("/proc/self/fd").iterdir())))

    outcome = tested(many, batch_size=1, workers=2, progress=count)
    assert len(outcome.names) == len(counts) == 2000
    assert max(counts[1000:]) < max(counts[:100]) + 100  # the batches on their way differ


def test_the_wait_for_data_is_counted_from_the_second_batch_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("tubelet.run.shares.time.perf_counter", lambda: now)
    share = Share()

    def batches(waits: Sequence[float]) -> Iterator[Any]:
        nonlocal now
        for wait in waits:
            now += wait
            yield wait

    for _ in share.timed(batches([50, 1, 2])):
        now += 4
    assert (share.waited_s, share.elapsed_s) == (3, 11)
    single = Share()
    list(single.timed(batches([50])))
    assert (single.waited_s, single.elapsed_s) == (0, 0)


def test_a_long_wait_is_followed_by_what_to_change(tested: Callable[..., Evaluation], motion: Path) -> None:
    outcome = tested(motion, batch_size=3)
    assert 0 < outcome.data_wait < 1
    assert f"waited for data {outcome.data_wait:.0%} of the time" in outcome.summary()
    assert np.isnan(tested(motion, batch_size=12).data_wait)
    long, short, unknown = (replace(outcome, data_wait=wait) for wait in (0.6, 0.05, float("nan")))
    recipe = evaluate_recipe("data.workers=0")
    advice = evaluation.data_wait_advice(long, recipe)
    assert "data.workers=" in advice
    assert "prepare" in advice
    many = evaluation.data_wait_advice(long, evaluate_recipe("data.workers=4000"))
    assert "data.workers" not in many
    assert "--encode" in many
    assert [evaluation.data_wait_advice(one, recipe) for one in (short, unknown)] == ["", ""]


def test_the_command_prints_the_wait_for_data_and_what_to_change(
    tubelet: Callable[..., tuple[int, str, str]],
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(evaluation, "LONG_WAIT", 0.0)
    words = ("evaluate", trained / "finetune", "--out", tmp_path, "data.workers=0", "batch_size=2")
    code, out, err = tubelet(*words)
    assert code == 0, err
    assert "waited for data" in out.splitlines()[2]
    assert "`tubelet prepare ... --encode`" in out.splitlines()[-1]
    code, out, _ = tubelet(*words)  # nothing is read again
    assert code == 0
    assert "data" not in out


def test_a_result_has_the_lengths_of_the_videos_and_how_they_were_tested(
    tested: Callable[..., Evaluation], motion: Path
) -> None:
    manifest = read_manifest(motion, "test")
    samples = list(manifest.samples)
    samples[1] = replace(samples[1], frames=None)
    samples[2] = replace(samples[2], frames=None, start=0.5, end=0.75)
    outcome = tested(replace(manifest, samples=tuple(samples)), Views(clips=2))
    assert outcome.seconds is not None
    assert samples[0].frames
    assert samples[0].fps
    expected = [samples[0].frames / samples[0].fps, np.nan, 0.25]
    np.testing.assert_allclose(outcome.seconds[:3], expected)
    assert outcome.list_file == str(motion / "test.csv")
    assert outcome.facts["views"].startswith("clips 2, crops 1")


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
    threads = torch.get_num_threads()
    chosen: dict = {"clip": SegmentClip(frames=4), "views": Views(clips=2), "device": "cpu"}
    expected = evaluate(model, motion, workers=0, precision="fp32", threads=threads + 1, **chosen)
    assert torch.get_num_threads() == threads
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


@pytest.mark.slow
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


def test_a_test_may_have_any_masking_whose_masks_follow_from_the_videos(
    tested: Callable[..., Evaluation], motion: Path, tmp_path: Path
) -> None:
    """Not from a video's position, the size of a batch or the number of processes."""
    manifest = read_manifest(motion, "test")
    views = Views(clips=2)
    for masking in (RandomMasking(ratio=0.5), RunningMasking(pattern="block"), FrameMasking(ratio=0.5)):
        outcome = tested(motion, views, masking=masking, batch_size=5)
        some = replace(manifest, samples=manifest.samples[7:2:-1])
        other = tested(some, views, masking=masking, batch_size=1)
        assert other.names == outcome.names[7:2:-1]
        np.testing.assert_allclose(other.probabilities, outcome.probabilities[7:2:-1], atol=1e-6)
    full = tested(motion, views, masking=RandomMasking(ratio=0))
    assert not np.allclose(full.probabilities, outcome.probabilities, atol=1e-4)


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
    single = evaluate(trained / "finetune", data, workers=0, precision="fp32", device="cpu")
    assert together.names == single.names
    assert together.broken.keys() == single.broken.keys() == {"videos/test/00004.mp4"}
    np.testing.assert_array_equal(together.labels, single.labels)
    np.testing.assert_allclose(together.probabilities, single.probabilities, atol=1e-6)
