"""A test that was interrupted resumes: finished videos are kept, and nothing else is trusted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tubelet
from tubelet.checkpoints.load import load_model
from tubelet.clips import SegmentClip, Views
from tubelet.data.dataset import Batch
from tubelet.data.manifest import Manifest, Sample, read_manifest
from tubelet.errors import UserError
from tubelet.files import exclusive
from tubelet.masking import RunningCellMasking
from tubelet.models.classifier import VideoClassifier
from tubelet.results import stored
from tubelet.results.accuracy import Evaluation
from tubelet.results.stored import record_type, stored_results, write_part
from tubelet.run import evaluation
from tubelet.run.evaluation import EvaluationConfig, evaluate
from tubelet.train.runtime import Runtime


class Interrupted(BaseException):
    """Ends a test in its middle, as Ctrl-C does."""


@pytest.fixture
def model(trained: Path) -> VideoClassifier:
    loaded = load_model(trained / "finetune")
    assert isinstance(loaded, VideoClassifier)
    return loaded


@pytest.fixture
def data(motion: Path, tmp_path: Path) -> Path:
    return shutil.copytree(motion, tmp_path / "data")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def tested(model: VideoClassifier) -> Callable[..., Evaluation]:
    def run(source: Path | Manifest, stop_after: int | None = None, **options: Any) -> Evaluation:
        def stop(done: int, total: int) -> None:
            if done == stop_after:
                raise Interrupted

        chosen: dict[str, Any] = {"workers": 0, "batch_size": 2, "precision": "fp32", "progress": stop}
        return evaluate(model, source, **(chosen | options))

    return run


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the videos whose probabilities are computed."""
    names: list[str] = []
    compute = evaluation._probabilities

    def seen(model: VideoClassifier, batch: Batch, config: EvaluationConfig, *rest: Any) -> torch.Tensor:
        names.extend(batch.names[:: config.views.count])
        return compute(model, batch, config, *rest)

    monkeypatch.setattr(evaluation, "_probabilities", seen)
    return names


def same(one: Evaluation, other: Evaluation) -> bool:
    return one.names == other.names and np.array_equal(one.probabilities, other.probabilities)


def parts(out: Path) -> list[Path]:
    return sorted(out.rglob("*.npy"))


def test_an_interrupted_test_resumes_and_its_result_is_that_of_an_uninterrupted_one(
    tested: Callable[..., Evaluation], data: Path, out: Path, computed: list[str]
) -> None:
    whole = tested(data)
    with pytest.raises(Interrupted):
        tested(data, out=out, stop_after=6)
    assert len(parts(out)) == 1
    computed.clear()
    resumed = tested(data, out=out)
    assert computed == whole.names[6:]
    assert same(resumed, whole)
    assert (resumed.reused, whole.reused) == (6, 0)
    assert "6 videos of these were tested by an earlier run" in resumed.summary()
    assert "reused" not in whole.summary()
    assert resumed.metrics() == whole.metrics()
    np.testing.assert_array_equal(resumed.labels, whole.labels)
    np.testing.assert_array_equal(resumed.confusion(), whole.confusion())


def test_a_finished_test_is_not_computed_again(
    tested: Callable[..., Evaluation], data: Path, out: Path, computed: list[str]
) -> None:
    first = tested(data, out=out)
    (joined,) = parts(out)
    computed.clear()
    again = tested(data, out=out)
    assert (computed, again.reused, again.views_per_second) == ([], 12, 0)
    assert "views/s" not in again.summary()
    assert same(again, first)
    assert parts(out) == [joined]


def test_the_files_of_a_test_are_joined_at_its_end(
    tested: Callable[..., Evaluation], data: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tested(data)
    monkeypatch.setattr(stored, "SAVE_EVERY_S", 0.0)
    with pytest.raises(Interrupted):
        tested(data, out=out, stop_after=8)
    assert len(parts(out)) == 4
    assert same(tested(data, out=out), whole)
    assert len(parts(out)) == 1


def test_damaged_and_incomplete_files_are_computed_again_and_named(
    tested: Callable[..., Evaluation],
    data: Path,
    out: Path,
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = tested(data)
    monkeypatch.setattr(stored, "SAVE_EVERY_S", 0.0)
    with pytest.raises(Interrupted):
        tested(data, out=out, stop_after=8)
    flipped, cut, empty, intact = parts(out)
    content = bytearray(flipped.read_bytes())
    content[-5] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-1])
    empty.write_bytes(b"")
    (intact.parent / ".x.partial").write_text("of a killed process")
    computed.clear()
    resumed = tested(data, out=out)
    assert (len(computed), resumed.reused) == (10, 2)
    assert same(resumed, whole)
    assert [record.getMessage().split()[0] for record in caplog.records] == [
        str(path) for path in (flipped, cut, empty)
    ]
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
def test_only_what_the_probabilities_depend_on_makes_another_test(
    model: VideoClassifier, tested: Callable[..., Evaluation], data: Path, out: Path
) -> None:
    tested(data, out=out)
    tested(data, out=out, batch_size=5)
    tested(data, out=out, workers=1)
    assert len(list(out.iterdir())) == 1
    changes: tuple[dict[str, Any], ...] = (
        {"views": Views(clips=1)},
        {"clip": SegmentClip(frames=4), "views": Views(crops=2)},
        {"masking": RunningCellMasking(ratio=0.5)},
        {"masking": RunningCellMasking(ratio=0.5), "complementary": True},
        {"precision": "bf16"},
    )
    for number, change in enumerate(changes):
        assert tested(data, out=out, **change).reused == 0, change
        assert len(list(out.iterdir())) == 2 + number, change
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert tested(data, out=out).reused == 0
    model.card = replace(model.card, multi_label=True)
    assert tested(data, out=out).reused == 0


def test_a_video_that_has_changed_is_tested_again(
    tested: Callable[..., Evaluation], data: Path, out: Path, computed: list[str]
) -> None:
    tested(data, out=out)
    videos = data / "videos/test"
    shutil.copy(videos / "00003.mp4", videos / "00007.mp4")
    os.utime(videos / "00005.mp4", ns=(0, 0))
    computed.clear()
    again = tested(data, out=out)
    assert computed == ["videos/test/00005.mp4", "videos/test/00007.mp4"]
    assert again.reused == 10
    np.testing.assert_allclose(again.probabilities[7], again.probabilities[3], atol=1e-6)


def test_an_image_folder_that_has_changed_in_place_is_tested_again(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    manifest = Manifest(tmp_path, "test", (Sample("a", 0),), ("x",))
    before = stored.video_keys(manifest)
    assert stored.video_keys(manifest) == before
    os.utime(folder / "1.png", ns=(0, folder.stat().st_mtime_ns + 10**9))
    assert stored.video_keys(manifest) != before


def test_other_lists_and_labels_of_the_same_videos_use_the_same_results(
    tested: Callable[..., Evaluation], data: Path, out: Path
) -> None:
    manifest = read_manifest(data, "test")
    whole = tested(manifest)
    tested(replace(manifest, samples=manifest.samples[2:8]), out=out)
    reordered = replace(manifest, samples=manifest.samples[::-1])
    assert tested(reordered, out=out).reused == 6
    twice = replace(manifest, samples=manifest.samples[:2] * 2)
    result = tested(twice, out=out)
    assert result.reused == 4
    np.testing.assert_allclose(result.probabilities, whole.probabilities[[0, 1, 0, 1]], atol=1e-6)
    relabeled = tuple(replace(sample, label=0) for sample in manifest.samples)
    again = tested(replace(manifest, samples=relabeled), out=out)
    assert (again.reused, again.labels.tolist()) == (12, [0] * 12)
    np.testing.assert_allclose(again.probabilities, whole.probabilities, atol=1e-6)
    cut = replace(manifest.samples[0], frames=3)
    assert tested(replace(manifest, samples=(cut,)), out=out).reused == 0


def test_a_video_that_could_not_be_read_is_tried_again(
    tested: Callable[..., Evaluation], data: Path, out: Path
) -> None:
    path = data / "videos/test/00004.mp4"
    content = path.read_bytes()
    path.write_text("not a video")
    first = tested(data, out=out)
    assert list(first.broken) == list(tested(data, out=out).broken) == ["videos/test/00004.mp4"]
    path.write_bytes(content)
    mended = tested(data, out=out)
    assert (mended.reused, mended.broken, len(mended.names)) == (11, {}, 12)


def test_a_test_without_a_readable_video_keeps_nothing(
    tested: Callable[..., Evaluation], data: Path, out: Path
) -> None:
    for path in (data / "videos/test").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="none of the 12 videos can be read"):
        tested(data, out=out)
    assert not parts(out)


def test_two_runs_of_the_same_test_do_not_use_a_folder_at_once(
    tested: Callable[..., Evaluation], data: Path, out: Path
) -> None:
    tested(data, out=out)
    (folder,) = out.iterdir()
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom tubelet.files import exclusive\n"
        "with exclusive(Path(sys.argv[1])):\n    print('locked', flush=True)\n    sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match=f"{folder} is in use"):
            tested(data, out=out)
    tested(data, out=out)
    with exclusive(folder):
        pass


def test_the_results_of_a_multi_label_test_are_in_files_and_the_same(
    model: VideoClassifier, tested: Callable[..., Evaluation], tagged: Path, out: Path, tmp_path: Path
) -> None:
    model.card = replace(model.card, multi_label=True)
    plain, kept = tested(tagged), tested(tagged, out=out)
    assert isinstance(kept.probabilities, np.memmap)
    assert isinstance(kept.labels, np.memmap)
    assert same(kept, plain)
    np.testing.assert_array_equal(kept.labels, plain.labels)
    assert kept.metrics() == plain.metrics()
    kept.save(tmp_path / "kept.npz")
    loaded = Evaluation.load(tmp_path / "kept.npz")
    assert same(loaded, plain)
    np.testing.assert_array_equal(loaded.labels, plain.labels)
    assert len(parts(out)) == 1


def test_a_result_stays_readable_while_later_tests_join_files(
    tested: Callable[..., Evaluation], data: Path, out: Path
) -> None:
    manifest = read_manifest(data, "test")
    first = tested(replace(manifest, samples=manifest.samples[:4]), out=out)
    expected = np.array(first.probabilities)
    tested(manifest, out=out)
    np.testing.assert_array_equal(first.probabilities, expected)


@pytest.mark.slow
def test_joining_many_files_opens_one_at_a_time(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    manifest = Manifest(tmp_path, "test", tuple(Sample(f"{k}.mp4", label=0) for k in range(200)), ("a", "b"))
    shown = np.random.default_rng(0).random((200, 2), dtype=np.float32)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Runtime() as runtime, stored_results(tmp_path, {}, manifest, 2, runtime) as kept:
        for number in np.random.default_rng(1).permutation(200):
            kept.add(np.array([number]), shown[[number]])
            kept.save()
        assert len(parts(tmp_path)) == 200
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
        try:
            index, probabilities = kept.join(runtime)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert index.tolist() == list(range(200))
    np.testing.assert_array_equal(probabilities, shown)


def test_a_part_is_an_array_that_numpy_reads(tmp_path: Path) -> None:
    records = np.zeros(3, record_type(5))
    records["key"] = [b"a" * 16, b"b" * 15 + b"\0", b"\0" * 16]
    records["values"] = np.arange(15).reshape(3, 5)
    name = write_part(tmp_path, 3, records.dtype, [records[:1], records[1:]])
    np.testing.assert_array_equal(np.load(tmp_path / name), records)
    assert [path.name for path in tmp_path.iterdir()] == [name]


KILLED = """
import os, signal, sys
from tubelet.results import stored
from tubelet.run.evaluation import evaluate

model, data, out = sys.argv[1:]
stored.SAVE_EVERY_S = 0

def kill(done, total):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)

chosen = {"workers": 1, "precision": "fp32", "device": "cpu", "threads": 1, "batch_size": 2}
evaluate(model, data, out=out, progress=kill, **chosen)
"""


@pytest.mark.slow
def test_a_test_of_two_processes_that_were_killed_is_finished_by_one(
    trained: Path, motion: Path, tmp_path: Path, computed: list[str]
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(KILLED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*torchrun, "--log-dir", tmp_path / "logs", script, trained / "finetune", motion, out]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tubelet.__file__).parents[1])}
    killed = subprocess.run(
        list(map(str, words)), env=environment, capture_output=True, text=True, check=False
    )
    assert killed.returncode != 0
    num_kept = sum(len(np.load(path)) for path in parts(out))
    assert 4 <= num_kept <= 8
    options: dict[str, Any] = {
        "workers": 0, "precision": "fp32", "device": "cpu", "threads": 1, "batch_size": 2,
    }  # fmt: skip
    resumed = evaluate(trained / "finetune", motion, out=out, **options)
    assert (resumed.reused, len(computed)) == (num_kept, 12 - num_kept)
    assert same(resumed, evaluate(trained / "finetune", motion, **options))
