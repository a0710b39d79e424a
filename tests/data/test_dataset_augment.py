"""Clips by the videos' own frame rates, and flips by the class names."""

from pathlib import Path

import torch

from tests.videos import decode_all, moving_frames, write_video
from tubelet.clips import DenseClip, FixedDurationClip, Views
from tubelet.data.augment import Augment, ResizedCrop
from tubelet.data.dataset import TrainDataset, ViewDataset
from tubelet.data.manifest import Manifest, Sample

CLASSES = ("moving left", "moving right", "turning left", "opening")
WHOLE = ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))


def manifest_of(root: Path, *labels: int, fps: int = 25) -> Manifest:
    for k in range(len(labels)):
        write_video(root / f"{k}.mp4", moving_frames(90, 32, 32, seed=k), fps=fps)
    samples = tuple(Sample(f"{k}.mp4", label=label) for k, label in enumerate(labels))
    return Manifest(root, "train", samples, CLASSES)


def nearest_frames(clip: torch.Tensor, frames: torch.Tensor) -> list[int]:
    """The numbers of the video's frames that are most similar to the clip's."""
    differences = (clip[:, None].float() - frames.float()).abs().flatten(2).mean(2)
    return differences.argmin(1).tolist()


def test_interval_clips_follow_the_videos_own_rate(tmp_path: Path):
    clip = FixedDurationClip(frames=4, stride=4)  # 16 frames at 30 a second: 6.4 of these
    listed = manifest_of(tmp_path, 0, fps=12)
    frames = torch.from_numpy(decode_all(tmp_path / "0.mp4")).permute(0, 3, 1, 2)
    views = ViewDataset(listed, clip, Views(clips=2), size=32)[0].video
    # Frames of the window's 5.4 steps, thirds of it apart; the second clip starts floor(83.6) later.
    for view, start in zip(views, (0, 83), strict=True):
        assert nearest_frames(view, frames) == [int(start + 5.4 * k / 3) for k in range(4)]
    train = TrainDataset(listed, clip, Augment(crop=WHOLE), size=32)[0, 0].video[0]
    starts = torch.arange(0, 83.6, 0.05).tolist()
    assert nearest_frames(train, frames) in [[int(start + 5.4 * k / 3) for k in range(4)] for start in starts]


def test_all_classes_of_a_video_are_swapped_with_the_clips_that_are_flipped(tmp_path: Path):
    labels = [(0, 3), (3, 1, 0), (1, 2), ()]  # turning left, 2, has no counterpart
    listed = manifest_of(tmp_path, 0, 0, 0, 0)
    samples = tuple(Sample(f"{k}.mp4", labels=classes) for k, classes in enumerate(labels))
    listed = Manifest(tmp_path, "train", samples, CLASSES)
    clip = DenseClip(frames=2, stride=1)
    plain = TrainDataset(listed, clip, Augment(crop=WHOLE), size=32)
    always = TrainDataset(listed, clip, Augment(crop=WHOLE, flip=1.0, flip_labels="swap"), size=32)
    expected = [([0, 1, 0, 1], True), ([1, 1, 0, 1], True), ([0, 1, 1, 0], False), ([0, 0, 0, 0], True)]
    for index, (row, flipped) in enumerate(expected):
        before, after = plain[0, index], always[0, index]
        assert after.label.int().tolist() == [row]
        assert torch.equal(after.video, before.video.flip(-1) if flipped else before.video)


def test_labels_are_swapped_with_the_clips_that_are_flipped(tmp_path: Path):
    listed = manifest_of(tmp_path, 0, 1, 2, 3)
    clip = DenseClip(frames=2, stride=1)
    plain = TrainDataset(listed, clip, Augment(crop=WHOLE), size=32, repeats=4)
    swapping = Augment(crop=WHOLE, flip=0.5, flip_labels="swap")
    swapped = TrainDataset(listed, clip, swapping, size=32, repeats=4)
    seen = set()
    for index, label in enumerate((0, 1, 2, 3)):
        for epoch in range(5):
            before, after = plain[epoch, index], swapped[epoch, index]
            assert before.label.tolist() == [label] * 4
            for clip_before, clip_after, found in zip(
                before.video, after.video, after.label.tolist(), strict=True
            ):
                flipped = not torch.equal(clip_before, clip_after)
                assert torch.equal(clip_after, clip_before.flip(-1) if flipped else clip_before)
                seen.add((label, flipped, found))
    assert seen == {
        (0, False, 0), (0, True, 1), (1, False, 1), (1, True, 0), (2, False, 2), (3, False, 3), (3, True, 3),
    }  # fmt: skip
