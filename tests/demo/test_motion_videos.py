"""The motion data set: how it is written, and how writing it resumes."""

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from tubelet.data.manifest import SPLITS, read_manifest
from tubelet.demo import motion_videos
from tubelet.demo.motion_clips import CLASSES, render
from tubelet.demo.motion_videos import SyntheticConfig, write_synthetic
from tubelet.errors import UserError

SMALL = SyntheticConfig(size=32, train=25, val=12, test=13, seed=3)


def decode(path: Path) -> tuple[np.ndarray, float]:
    with av.open(path) as container:
        rate = container.streams.video[0].average_rate
        assert rate is not None
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames), float(rate)


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    write_synthetic(root, SMALL, workers=0)
    return root


@pytest.mark.slow
def test_every_file_has_the_properties_in_the_manifest(small: Path):
    for split in SPLITS:
        manifest = read_manifest(small, split)
        assert manifest.classes == CLASSES
        assert len(manifest) == getattr(SMALL, split)
        for sample in manifest.samples:
            frames, fps = decode(Path(manifest.locate(sample)))
            assert frames.shape == (sample.frames, sample.height, sample.width, 3)
            assert fps == sample.fps
            assert sample.codec == "h264"


@pytest.mark.slow
def test_files_contain_the_rendered_clips_and_no_clip_twice(small: Path):
    first_frames = set()
    for number, split in enumerate(SPLITS):
        manifest = read_manifest(small, split)
        for i, sample in enumerate(manifest.samples):
            assert sample.label is not None
            frames, _ = decode(Path(manifest.locate(sample)))
            drawn, _ = render(sample.label, seed=3, index=3 * i + number, size=32)
            assert np.abs(frames.mean(axis=(1, 2)) - drawn.mean(axis=(1, 2))).max() < 8
            first_frames.add(frames[0].tobytes())
    assert len(first_frames) == 25 + 12 + 13


def test_classes_are_balanced_and_in_random_order(small: Path):
    orders = []
    for split in SPLITS:
        labels = [sample.label for sample in read_manifest(small, split).samples]
        counts = Counter(labels)
        assert len(counts) == 12
        assert max(counts.values()) - min(counts.values()) <= 1
        orders.append(labels[:12])
    assert len({tuple(order) for order in orders}) == 3

    def labels_of(seed: int) -> list[int]:
        config = SyntheticConfig(train=2400, seed=seed)
        return [clip.label for clip in motion_videos._clips(Path(), config, "train")]

    drawn = labels_of(0)
    previous = Counter(pairwise(drawn))
    by_remainder = Counter((i % 12, label) for i, label in enumerate(drawn))
    # 144 cells each with 16.7 on average: neither the clip before nor the number predicts the label.
    assert max(previous.values()) < 45
    assert max(by_remainder.values()) < 45
    assert drawn != labels_of(1)


def test_names_do_not_depend_on_the_class(small: Path):
    names = [sample.path for sample in read_manifest(small, "val").samples]
    assert names == [f"videos/val/{i:05d}.mp4" for i in range(12)]


@pytest.mark.slow
def test_workers_write_the_same_files(small: Path, tmp_path: Path):
    write_synthetic(tmp_path, SMALL, workers=2)
    assert files(tmp_path) == files(small)


@pytest.mark.slow
def test_a_daemonic_process_writes_them_itself(small: Path, tmp_path: Path, daemonic: None):
    write_synthetic(tmp_path, SMALL, workers=2)
    assert files(tmp_path) == files(small)


@pytest.mark.slow
def test_writing_resumes_where_it_stopped(small: Path, tmp_path: Path):
    write_synthetic(tmp_path, SMALL, workers=1)
    lost = [tmp_path / "videos/train/00003.mp4", tmp_path / "videos/test/00012.mp4", tmp_path / "val.csv"]
    for path in lost:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    calls: list[tuple[int, int]] = []
    write_synthetic(tmp_path, SMALL, workers=0, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(48, 50), (49, 50), (50, 50)]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert files(tmp_path) == files(small)


@pytest.mark.slow
def test_files_cut_short_by_a_power_cut_are_written_again(small: Path, tmp_path: Path):
    write_synthetic(tmp_path, SMALL, workers=0)
    (tmp_path / "videos/train/00000.mp4").write_bytes(b"")
    (tmp_path / "videos/train/.00007.mp4.partial").write_bytes(b"half")
    (tmp_path / ".synthetic.json.partial").write_bytes(b"{")
    write_synthetic(tmp_path, SMALL, workers=2)
    assert files(tmp_path) == files(small)


def test_a_clip_gets_its_name_after_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_synthetic(tmp_path, SMALL, workers=0)
    assert files(tmp_path) == {}


@pytest.mark.slow
def test_a_full_disk_is_reported_and_finished_clips_are_kept(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, room = Path.write_bytes, 5

    def fill_up(path: Path, content: bytes) -> int:
        nonlocal room
        room -= 1
        if room < 0:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill_up)
        with pytest.raises(UserError, match="5 finished clips") as caught:
            write_synthetic(tmp_path, SMALL, workers=0)
    assert str(tmp_path) in str(caught.value)
    assert len(files(tmp_path)) == 2 + 5  # the lock, the settings and five clips, none of them partial
    write_synthetic(tmp_path, SMALL, workers=0)
    assert files(tmp_path) == files(small)


def test_other_disk_errors_are_raised_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, content: bytes) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(PermissionError):
        write_synthetic(tmp_path, SMALL, workers=0)


def test_a_build_without_the_encoder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(av.codec, "codecs_available", set())
    with pytest.raises(UserError, match="pip install av"):
        write_synthetic(tmp_path, SMALL, workers=0)


def test_other_settings_in_the_same_folder_are_refused(small: Path):
    before = files(small)
    with pytest.raises(UserError, match=r"(?s)settings.*seed: 3 -> 4"):
        write_synthetic(small, SyntheticConfig(size=32, train=25, val=12, test=13, seed=4), workers=0)
    assert files(small) == before
    assert json.loads(before["synthetic.json"]) == {"size": 32, "train": 25, "val": 12, "test": 13, "seed": 3}


def test_a_folder_with_other_content_is_refused(tmp_path: Path):
    listed = tmp_path / "own"
    listed.mkdir()
    (listed / "train.csv").write_text("path\na.mp4\n")
    with pytest.raises(UserError, match="another data set"):
        write_synthetic(listed, SMALL, workers=0)
    assert files(listed) == {"train.csv": b"path\na.mp4\n"}

    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        write_synthetic(tmp_path / "file", SMALL, workers=0)

    broken = tmp_path / "broken"
    broken.mkdir()
    for text in ("{", "[1]"):
        (broken / "synthetic.json").write_text(text)
        with pytest.raises(UserError, match=r"synthetic\.json"):
            write_synthetic(broken, SMALL, workers=0)


def test_settings_without_a_data_set_are_refused():
    for settings, match in (
        ({"size": 30}, "size .* found 30"),
        ({"size": 33}, "size .* found 33"),
        ({"train": 0}, "train .* found 0"),
        ({"val": -1}, "val .* found -1"),
        ({"test": 0}, "test .* found 0"),
        ({"seed": -1}, "seed .* found -1"),
    ):
        with pytest.raises(UserError, match=match):
            SyntheticConfig(**settings)


def test_the_module_does_not_import_torch():
    code = "import sys, tubelet.demo.motion_videos; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
