"""The clips of the motion data set: motion shows the class, and a single frame does not."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.demo import motion_clips
from tubelet.demo.motion_clips import CLASSES, render
from tubelet.errors import UserError


def test_there_are_twelve_classes():
    assert len(set(CLASSES)) == len(CLASSES) == 12


def test_shape_and_frame_rate_are_in_the_documented_ranges():
    for size in (32, 50, 64):
        for index in range(6):
            frames, fps = render(index, seed=0, index=index, size=size)
            assert frames.dtype == np.uint8, (size, index)
            assert frames.shape[1:] == (size, size, 3), (size, index)
            assert fps in (6, 8, 10, 12), (size, index)
            assert 2 * fps <= len(frames) <= 3 * fps, (size, index)


def test_frames_depend_only_on_seed_and_index():
    first, _ = render(4, seed=1, index=2, size=32)
    again, _ = render(4, seed=1, index=2, size=32)
    np.testing.assert_array_equal(first, again)
    for other in (render(4, seed=2, index=2, size=32), render(4, seed=1, index=3, size=32)):
        assert not np.array_equal(first[:12], other[0][:12])


def test_an_unknown_label_is_refused():
    for label in (-1, 12):
        with pytest.raises(UserError, match=r"0\.\.11"):
            render(label, seed=0, index=0)


@pytest.mark.slow
def test_labels_differ_only_in_the_motion_of_the_actors():
    for index in range(4):
        clips, rates = zip(*[render(label, seed=5, index=index, size=48) for label in range(12)], strict=True)
        assert len({clip.shape for clip in clips}) == len(set(rates)) == 1
        for one, other in itertools.combinations(range(12), 2):
            same = (clips[one] == clips[other]).all(axis=-1)  # where neither clip shows an actor
            assert same.mean() > 0.35, (index, CLASSES[one], CLASSES[other])
            assert not same.all(), (index, CLASSES[one], CLASSES[other])


@pytest.mark.slow
def test_opposite_classes_are_each_other_played_backwards():
    for label in range(0, 10, 2):
        backwards, forwards = 0.0, 0.0
        for index in range(4):
            one = render(label, seed=6, index=index, size=48)[0].astype(float)
            other = render(label + 1, seed=6, index=index, size=48)[0].astype(float)
            # Backwards, only light, distractors and noise differ; forwards, only the actors.
            backwards += np.median(np.abs(one - other[::-1]).mean(axis=(0, 3)))
            forwards += np.abs(one[0] - other[0]).mean() + np.abs(one[-1] - other[-1]).mean()
        assert backwards < forwards, CLASSES[label]


def test_objects_move_in_the_direction_of_the_class():
    for name, axis, sign in (
        ("moving left", 2, -1),
        ("moving right", 2, 1),
        ("moving up", 1, -1),
        ("moving down", 1, 1),
    ):
        shift = 0.0
        for index in range(6):
            frames = render(CLASSES.index(name), seed=8, index=index, size=32)[0].astype(float)
            stands_out = np.maximum(np.abs(frames - np.median(frames, axis=0)).sum(axis=-1) - 60, 0)
            position = np.arange(32).reshape((-1, 1) if axis == 1 else (1, -1))
            center = (stands_out * position).sum(axis=(1, 2)) / np.maximum(stands_out.sum(axis=(1, 2)), 1)
            shift += center[-3:].mean() - center[:3].mean()
        assert sign * shift / 6 > 4, name


def test_size_gap_and_angle_change_in_the_direction_of_the_class():
    time = np.linspace(0, 1, 30, dtype=np.float32)
    for name, (parameter, sign) in {
        "growing": ("size", 1),
        "shrinking": ("size", -1),
        "turning clockwise": ("angle", 1),
        "turning anticlockwise": ("angle", -1),
        "two things approaching": ("gap", -1),
        "two things parting": ("gap", 1),
    }.items():
        motion = motion_clips._motion(CLASSES.index(name), np.random.default_rng(0), time)
        assert (sign * np.diff(motion.pop(parameter)) > 0).all(), name
        assert all(np.ptp(still) == 0 for still in motion.values()), name


def test_angles_grow_clockwise():
    def hand(angle: float) -> np.ndarray:
        """Return the direction at an angle of a clock hand that points right at angle 0."""
        sprite = np.zeros((motion_clips._SPRITE, motion_clips._SPRITE, 4), dtype=np.float32)
        sprite[:, motion_clips._SPRITE // 2 :] = (255, 255, 255, 1)
        sprite[:, : motion_clips._SPRITE // 2, 3] = -1
        frames, one = np.zeros((1, 32, 32, 3), dtype=np.float32), np.ones(1, dtype=np.float32)
        motion_clips._draw_sprite(frames, sprite, 0.5 * one, 0.5 * one, 0.3 * one, angle * one)
        rows, columns = np.nonzero(frames[0, :, :, 0] > 128)
        return np.array([columns.mean() - 15.5, rows.mean() - 15.5])

    np.testing.assert_allclose(hand(0.0) / np.abs(hand(0.0)).max(), [1, 0], atol=0.1)
    np.testing.assert_allclose(hand(np.pi / 2) / np.abs(hand(np.pi / 2)).max(), [0, 1], atol=0.1)


def draw_clips(first: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return clips (N, 3, 8, 32, 32), one random frame of each (N, 3, 1, 32, 32), and labels (N,)."""
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
    """Train a small 3D network from seed 0 and return its scores (N, 12) for the unseen clips."""
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
    """Return how often the true class scores above its reverse; chance is one half."""
    reversible = labels < 10
    scores, labels = scores[reversible], labels[reversible]
    pair = (labels // 2 * 2)[:, None] + torch.arange(2)
    return accuracy(scores.gather(1, pair), labels % 2)


@pytest.mark.science
def test_a_single_frame_does_not_show_the_class():
    clips, stills, labels = draw_clips(0, 1344)
    unseen_clips, unseen_stills, truth = draw_clips(100_000, 384)

    with torch.random.fork_rng(devices=[]):
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
