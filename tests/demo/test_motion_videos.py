"""The synthetic data set: what motion alone tells, how it is written, and how writing it goes on."""

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.data.manifest import SPLITS, read_manifest
from tubelet.demo import motion_videos as synthetic
from tubelet.demo.motion_videos import CLASSES, SyntheticConfig, render, write_synthetic
from tubelet.errors import UserError

SMALL = SyntheticConfig(size=32, train=25, val=12, test=13, seed=3)


def decode(path: Path) -> tuple[np.ndarray, float]:
    with av.open(path) as container:
        rate = container.streams.video[0].average_rate
        assert rate is not None
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), float(
            rate
        )


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    write_synthetic(root, SMALL, workers=0)
    return root


# ---------------------------------------------------------------------------------------------- one clip


def test_there_are_twelve_classes():
    assert len(set(CLASSES)) == len(CLASSES) == 12


@pytest.mark.parametrize("size", [32, 50, 64])
def test_a_clip_has_the_shape_promised(size: int):
    for index in range(6):
        frames, fps = render(index, seed=0, index=index, size=size)
        assert frames.dtype == np.uint8
        assert frames.shape[1:] == (size, size, 3)
        assert fps in (12, 15, 20, 24)
        assert 2 * fps <= len(frames) <= 3 * fps


def test_the_same_seed_draws_the_same_frames_and_another_seed_or_index_others():
    first, _ = render(4, seed=1, index=2, size=32)
    again, _ = render(4, seed=1, index=2, size=32)
    np.testing.assert_array_equal(first, again)
    for other in (render(4, seed=2, index=2, size=32), render(4, seed=1, index=3, size=32)):
        assert not np.array_equal(first[:24], other[0][:24])


@pytest.mark.parametrize("label", [-1, 12])
def test_a_label_without_a_class_is_refused(label: int):
    with pytest.raises(UserError, match=r"0\.\.11"):
        render(label, seed=0, index=0)


@pytest.mark.parametrize("index", range(4))
def test_another_label_shows_the_same_things_in_another_motion(index: int):
    clips, rates = zip(*[render(label, seed=5, index=index, size=48) for label in range(12)], strict=True)
    assert len({clip.shape for clip in clips}) == len(set(rates)) == 1
    for label, clip in enumerate(clips):
        for other in clips[label + 1 :]:
            same = (clip == other).all(axis=-1)  # light and noise too, where no actor is in either
            assert same.mean() > 0.35
            assert not same.all()


@pytest.mark.parametrize("pair", range(0, 10, 2))
def test_opposite_classes_show_each_other_backwards(pair: int):
    backwards, straight = 0.0, 0.0
    for index in range(4):
        one = render(pair, seed=6, index=index, size=48)[0].astype(float)
        other = render(pair + 1, seed=6, index=index, size=48)[0].astype(float)
        # Backwards, only light, distractors and noise differ; straight, only the actors.
        backwards += np.median(np.abs(one - other[::-1]).mean(axis=(0, 3)))
        straight += np.abs(one[0] - other[0]).mean() + np.abs(one[-1] - other[-1]).mean()
    assert backwards < straight


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("moving left", 2, -1), ("moving right", 2, 1), ("moving up", 1, -1), ("moving down", 1, 1)],
)
def test_things_move_where_the_name_says(name: str, axis: int, sign: int):
    shift = 0.0
    for index in range(6):
        frames = render(CLASSES.index(name), seed=8, index=index, size=32)[0].astype(float)
        stands_out = np.maximum(np.abs(frames - np.median(frames, axis=0)).sum(axis=-1) - 60, 0)
        place = np.arange(32).reshape((-1, 1) if axis == 1 else (1, -1))
        center = (stands_out * place).sum(axis=(1, 2)) / np.maximum(stands_out.sum(axis=(1, 2)), 1)
        shift += center[-3:].mean() - center[:3].mean()
    assert sign * shift / 6 > 4


def test_sizes_gaps_and_turns_go_where_the_name_says():
    time = np.linspace(0, 1, 30, dtype=np.float32)
    for name, (parameter, sign) in {
        "growing": ("size", 1),
        "shrinking": ("size", -1),
        "turning clockwise": ("angle", 1),
        "turning anticlockwise": ("angle", -1),
        "two things approaching": ("gap", -1),
        "two things parting": ("gap", 1),
    }.items():
        motion = synthetic._motion(CLASSES.index(name), np.random.default_rng(0), time)
        assert (sign * np.diff(motion.pop(parameter)) > 0).all()
        assert all(np.ptp(still) == 0 for still in motion.values())


def test_angles_grow_clockwise():
    def hand(angle: float) -> np.ndarray:
        """Where a hand that points right at angle 0 points."""
        sprite = np.zeros((synthetic._SPRITE, synthetic._SPRITE, 4), dtype=np.float32)
        sprite[:, synthetic._SPRITE // 2 :] = (255, 255, 255, 1)
        sprite[:, : synthetic._SPRITE // 2, 3] = -1
        frames, one = np.zeros((1, 32, 32, 3), dtype=np.float32), np.ones(1, dtype=np.float32)
        synthetic._paint(frames, sprite, 0.5 * one, 0.5 * one, 0.3 * one, angle * one)
        rows, columns = np.nonzero(frames[0, :, :, 0] > 128)
        return np.array([columns.mean() - 15.5, rows.mean() - 15.5])

    np.testing.assert_allclose(hand(0.0) / np.abs(hand(0.0)).max(), [1, 0], atol=0.1)
    np.testing.assert_allclose(hand(np.pi / 2) / np.abs(hand(np.pi / 2)).max(), [0, 1], atol=0.1)


# ------------------------------------------------------------------------------ what a classifier can see


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)


def draw(first: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clips (N, 3, 8, 32, 32), single frames at a random moment (N, 3, 1, 32, 32), and labels (N,)."""
    rng = np.random.default_rng(first)
    labels = torch.arange(count) % len(CLASSES)
    clips, stills = [], []
    for i, label in enumerate(labels.tolist()):
        frames, _ = render(label, seed=7, index=first + i, size=32)
        clips.append(frames[((np.arange(8) + 0.5) / 8 * len(frames)).astype(int)])
        stills.append(frames[[rng.integers(len(frames))]])
    return torch.tensor(np.stack(clips)).movedim(-1, 1), torch.tensor(np.stack(stills)).movedim(-1, 1), labels


def shuffle(clips: Tensor) -> Tensor:
    return torch.stack([clip[:, torch.randperm(clip.shape[1])] for clip in clips])


def learn(clips: Tensor, labels: Tensor, unseen: Tensor) -> Tensor:
    """Scores (N, 12) of the unseen by a small 3D network, trained from one start and for one time."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels, width, kernel, stride in (
        (3, 16, (3, 5, 5), (1, 2, 2)),
        (16, 32, (3, 3, 3), (2, 2, 2)),
        (32, 64, (3, 3, 3), (1, 2, 2)),
    ):
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        layers += [nn.Conv3d(channels, width, kernel, stride, padding), nn.BatchNorm3d(width), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 4 * 4 * 4, len(CLASSES)))
    batches = [batch for _ in range(6) for batch in torch.randperm(len(clips)).split(32)]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=len(batches) + 1)
    for batch in batches:
        loss = F.cross_entropy(network(clips[batch] / 255 - 0.5), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        return torch.cat([network(part / 255 - 0.5) for part in unseen.split(120)])


def accuracy(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(dim=1) == labels).float().mean())


def accuracy_within_pairs(scores: Tensor, labels: Tensor) -> float:
    """How often the right one of a class and its reverse has the higher score; chance is one half."""
    reversible = labels < 10
    scores, labels = scores[reversible], labels[reversible]
    pair = (labels // 2 * 2)[:, None] + torch.arange(2)
    return accuracy(scores.gather(1, pair), labels % 2)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_single_frame_does_not_tell_the_class():
    clips, stills, labels = draw(0, 1344)
    unseen_clips, unseen_stills, truth = draw(100_000, 384)

    moving = learn(clips, labels, unseen_clips)
    still = learn(stills.expand_as(clips), labels, unseen_stills.expand_as(unseen_clips))
    torch.manual_seed(1)
    shuffled = learn(shuffle(clips), labels, shuffle(unseen_clips))
    print(
        f"clip {accuracy(moving, truth):.3f}, one frame {accuracy(still, truth):.3f}; within pairs: "
        f"clip {accuracy_within_pairs(moving, truth):.3f}, "
        f"shuffled {accuracy_within_pairs(shuffled, truth):.3f}"
    )

    assert accuracy(moving, truth) > 0.5
    assert accuracy_within_pairs(moving, truth) > 0.75
    assert accuracy(still, truth) < 0.2
    assert accuracy_within_pairs(shuffled, truth) < 0.65


# ------------------------------------------------------------------------------------------- the data set


def test_every_file_is_what_the_manifest_says(small: Path):
    for split in SPLITS:
        manifest = read_manifest(small, split)
        assert manifest.classes == CLASSES
        assert len(manifest) == getattr(SMALL, split)
        for sample in manifest.samples:
            frames, fps = decode(Path(manifest.locate(sample)))
            assert frames.shape == (sample.frames, sample.height, sample.width, 3)
            assert fps == sample.fps
            assert sample.codec == "h264"


def test_files_show_the_clips_drawn_and_no_clip_twice(small: Path):
    opening = set()
    for number, split in enumerate(SPLITS):
        manifest = read_manifest(small, split)
        for i, sample in enumerate(manifest.samples):
            assert sample.label is not None
            frames, _ = decode(Path(manifest.locate(sample)))
            drawn, _ = render(sample.label, seed=3, index=3 * i + number, size=32)
            assert np.abs(frames.mean(axis=(1, 2)) - drawn.mean(axis=(1, 2))).max() < 8
            opening.add(frames[0].tobytes())
    assert len(opening) == 25 + 12 + 13


def test_classes_are_balanced_and_in_no_telling_order(small: Path):
    orders = []
    for split in SPLITS:
        labels = [sample.label for sample in read_manifest(small, split).samples]
        counts = Counter(labels)
        assert len(counts) == 12
        assert max(counts.values()) - min(counts.values()) <= 1
        orders.append(labels[:12])
    assert len({tuple(order) for order in orders}) == 3

    large = SyntheticConfig(train=2400)
    labels = [job.label for job in synthetic._jobs(Path(), large, "train")]
    previous = Counter(pairwise(labels))
    by_remainder = Counter((i % 12, label) for i, label in enumerate(labels))
    # 144 cells each with 16.7 on average: neither the clip before nor the number foretells the label.
    assert max(previous.values()) < 45
    assert max(by_remainder.values()) < 45
    assert labels != [
        job.label for job in synthetic._jobs(Path(), SyntheticConfig(train=2400, seed=1), "train")
    ]


def test_names_do_not_tell_the_class(small: Path):
    names = [sample.path for sample in read_manifest(small, "val").samples]
    assert names == [f"videos/val/{i:05d}.mp4" for i in range(12)]


def test_workers_write_the_same_files(small: Path, tmp_path: Path):
    write_synthetic(tmp_path, SMALL, workers=2)
    assert files(tmp_path) == files(small)


def test_writing_goes_on_where_it_stopped(small: Path, tmp_path: Path):
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


def test_what_a_power_cut_left_is_written_anew(small: Path, tmp_path: Path):
    write_synthetic(tmp_path, SMALL, workers=0)
    (tmp_path / "videos/train/00000.mp4").write_bytes(b"")
    (tmp_path / "videos/train/.00007.mp4.partial").write_bytes(b"half")
    (tmp_path / ".synthetic.json.partial").write_bytes(b"{")
    write_synthetic(tmp_path, SMALL, workers=2)
    assert files(tmp_path) == files(small)


def test_a_clip_takes_its_name_once_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_synthetic(tmp_path, SMALL, workers=0)
    assert files(tmp_path) == {}


def test_a_full_disk_is_told_and_what_was_written_stays(
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
        with pytest.raises(UserError, match="5 clips written so far are kept") as caught:
            write_synthetic(tmp_path, SMALL, workers=0)
    assert str(tmp_path) in str(caught.value)
    assert "run the same again" in str(caught.value)
    assert len(files(tmp_path)) == 2 + 5  # the lock, the settings and five clips, none of them partial
    write_synthetic(tmp_path, SMALL, workers=0)
    assert files(tmp_path) == files(small)


def test_other_errors_of_the_disk_pass_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, content: bytes) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(PermissionError):
        write_synthetic(tmp_path, SMALL, workers=0)


def test_a_build_without_the_encoder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(av.codec, "codecs_available", set())
    with pytest.raises(UserError, match="pip install av"):
        write_synthetic(tmp_path, SMALL, workers=0)


def test_other_settings_in_the_same_folder_are_refused(small: Path):
    before = files(small)
    with pytest.raises(UserError, match=r"seed is 3 there and 4 here.*another folder"):
        write_synthetic(small, SyntheticConfig(size=32, train=25, val=12, test=13, seed=4), workers=0)
    assert files(small) == before
    assert json.loads(before["synthetic.json"]) == {"size": 32, "train": 25, "val": 12, "test": 13, "seed": 3}


def test_a_folder_in_other_use_is_refused(tmp_path: Path):
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
        with pytest.raises(UserError, match="does not parse"):
            write_synthetic(broken, SMALL, workers=0)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"size": 30}, "at least 32 pixels, found 30"),
        ({"size": 33}, "even"),
        ({"train": 0}, "train must be at least 1"),
        ({"val": -1}, "val must be at least 1"),
        ({"test": 0}, "test must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_settings_that_make_no_data_set_are_refused(settings: dict[str, int], match: str):
    with pytest.raises(UserError, match=match):
        SyntheticConfig(**settings)


def test_the_module_does_not_import_torch():
    code = "import sys, tubelet.demo.motion_videos; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
