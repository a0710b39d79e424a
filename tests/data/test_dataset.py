"""Items: training clips that follow from (seed, epoch, index), and all views of a test video."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from tests.prepare.files import upright, write_rotated
from tests.videos import decode_all
from tubelet.clips import DenseClip, SegmentClip, Views
from tubelet.data.augment import Augment, MultiScaleCrop, RandomErasing, ResizedCrop
from tubelet.data.dataset import Batch, TrainDataset, ViewDataset, collate, read_clip, read_views
from tubelet.data.manifest import Manifest, Sample
from tubelet.data.randaugment import RandAugment
from tubelet.video import reader
from tubelet.video.crop import Box, crop_resize, spread_crops
from tubelet.video.index import VideoIndex, header_index
from tubelet.video.reader import Crop, open_video

MakeManifest = Callable[..., Manifest]
CLIP = DenseClip(frames=4, stride=2)


def training(manifest: Manifest, *, repeats: int = 1, seed: int = 0) -> TrainDataset:
    return TrainDataset(manifest, CLIP, Augment(flip=0.5), size=32, repeats=repeats, seed=seed)


def same(a: Batch, b: Batch) -> bool:
    tensors = ("video", "label", "seed", "index")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors) and a.names == b.names


def similar(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether pixels are equal up to rounding; one frame or two pixels apart they differ by 5 and more."""
    return a.shape == b.shape and float((a.float() - b.float()).abs().mean()) < 4


def small(frames: torch.Tensor) -> torch.Tensor:
    """Frames of 40 x 56 with a short side of 32."""
    return functional.resize(frames, [32, 44], antialias=True)


def test_an_item_has_the_documented_shapes(manifest: MakeManifest):
    item = training(manifest(), repeats=3)[0, 7]
    assert item.video.shape == (3, 4, 3, 32, 32)
    assert item.video.dtype == torch.uint8
    assert item.label.tolist() == [7 % 3] * 3
    assert item.index.tolist() == [7] * 3
    assert item.names == ["7.mp4"] * 3
    assert item.failures == {}
    assert len(item) == 3


def test_an_item_follows_from_seed_epoch_and_index(manifest: MakeManifest):
    used, fresh = training(manifest()), training(manifest())
    for index in (3, 9, 1):
        used[0, index]
    assert same(used[2, 5], fresh[2, 5])


@pytest.mark.parametrize(("seed", "epoch", "index"), [(1, 2, 5), (0, 3, 5), (0, 2, 6)])
def test_another_seed_epoch_or_index_is_another_item(
    manifest: MakeManifest, seed: int, epoch: int, index: int
):
    item = training(manifest())[2, 5]
    other = training(manifest(), seed=seed)[epoch, index]
    assert not torch.equal(item.video, other.video)
    assert int(item.seed) != int(other.seed)


def test_repeats_are_different_clips_with_different_seeds(manifest: MakeManifest):
    item = training(manifest(), repeats=4)[0, 11]
    assert len(set(item.seed.tolist())) == 4
    assert len({clip.numpy().tobytes() for clip in item.video}) == 4


def test_copies_show_the_same_frames_and_repeats_others(manifest: MakeManifest):
    whole = Augment(crop=ResizedCrop(scale=(1, 1), ratio=(7 / 5, 7 / 5)))
    clips = TrainDataset(manifest(), CLIP, whole, size=32, repeats=2, augmented_copies=3)[0, 11].video
    assert torch.equal(clips, clips[[0, 0, 0, 3, 3, 3]])
    assert not torch.equal(clips[0], clips[3])


@pytest.mark.parametrize("cropped", [True, False])
def test_copies_are_augmented_differently(manifest: MakeManifest, cropped: bool):
    augment = Augment(randaugment=RandAugment(cropped=cropped), flip=0.5, erasing=RandomErasing())
    item = TrainDataset(manifest(), CLIP, augment, size=32, augmented_copies=4)[0, 11]
    assert item.video.shape == (4, 4, 3, 32, 32)
    assert len({clip.numpy().tobytes() for clip in item.video}) == 4
    assert len(set(item.seed.tolist())) == 4
    assert item.names == ["11.mp4"] * 4


def test_a_clip_is_made_of_the_frames_of_its_video(manifest: MakeManifest, videos: Path):
    whole = Augment(crop=MultiScaleCrop(scales=(1.0,)))
    clip = TrainDataset(manifest(), SegmentClip(frames=8), whole, size=40)[0, 0].video[0]
    frames = torch.from_numpy(decode_all(videos / "0.mp4")).permute(0, 3, 1, 2)  # exactly 8
    assert frames.shape == (8, 3, 40, 56)
    assert any(similar(clip, crop_resize(frames, Box(0, left, 40, 40), (40, 40))) for left in range(0, 17, 4))


def test_a_video_without_label_has_minus_one(videos: Path):
    unlabeled = Manifest(videos, "train", (Sample("3.mp4"),), ())
    assert training(unlabeled)[0, 0].label.tolist() == [-1]
    assert ViewDataset(unlabeled, CLIP, Views(), size=32)[0].label.tolist() == [-1]


def test_a_multi_label_video_has_a_row_of_its_classes(videos: Path):
    samples = (
        Sample("3.mp4", labels=(0, 2)),
        Sample("gone.mp4", labels=(1,)),
        Sample("4.mp4"),
        Sample("5.mp4", label=1),
    )
    listed = Manifest(videos, "train", samples, ("a", "b", "c"))
    views = ViewDataset(listed, CLIP, Views(clips=2), size=32)
    batch = collate([views[k] for k in range(4)])  # the second has no rows
    assert batch.label.dtype == torch.bool
    assert batch.label.int().tolist() == [[1, 0, 1]] * 2 + [[0, 0, 0]] * 2 + [[0, 1, 0]] * 2
    assert batch.to(torch.device("meta")).label.shape == (6, 3)
    assert training(listed, repeats=2)[0, 0].label.int().tolist() == [[1, 0, 1]] * 2
    missing = Manifest(videos, "train", (Sample("gone.mp4", labels=(1,)),), ("a", "b", "c"))
    assert training(missing)[0, 0].label.shape == (0, 3)


AUGMENTS = {
    "cropped": Augment(flip=0.5, erasing=RandomErasing()),
    "whole frames": Augment(randaugment=RandAugment(), crop=ResizedCrop(), flip=0.5),
}


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
def test_an_item_is_drawn_by_the_size_of_the_rotated_frames(tmp_path: Path, augment: Augment):
    path = write_rotated(tmp_path / "a.mp4", upright(40), 90)
    listed = Manifest(tmp_path, "train", (Sample("a.mp4"),), ())
    clip = TrainDataset(listed, CLIP, augment, size=32, seed=3)[1, 0].video[0]
    rng = np.random.default_rng((3, 1, 1, 0))
    numbers = CLIP.sample(40, rng, 25.0)
    with open_video(path, exact=True) as video:
        height, width = video.index.height, video.index.width
        assert (height, width) == (64, 48)
        if augment.whole_frames:
            (frames,) = video.read_crops([Crop(numbers, None, (height, width))])
            expected = augment(frames, 32, rng)
        else:
            draw = augment.draw_crop(height, width, 32, rng)
            (frames,) = video.read_crops([Crop(numbers, draw.box, (32, 32), draw.flip)])
            expected = augment.finish(frames, rng)
    assert torch.equal(clip, expected)


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
def test_an_item_does_not_depend_on_a_wrong_header(
    manifest: MakeManifest, augment: Augment, monkeypatch: pytest.MonkeyPatch
):
    dataset = TrainDataset(manifest(), CLIP, augment, size=32, repeats=2, augmented_copies=2)
    views = ViewDataset(manifest(), CLIP, Views(clips=3), size=32)
    item, view = dataset[0, 9], views[9]
    num_read = []

    def longer_and_later(*opened: Any) -> VideoIndex | None:
        index = header_index(*opened)
        assert index is not None
        num_read.append(len(index))
        step = index.times[1] - index.times[0]
        return replace(index, times=tuple(range(step // 2, step * (len(index) + 5), step)))

    monkeypatch.setattr(reader, "header_index", longer_and_later)
    assert same(dataset[0, 9], item)
    assert same(views[9], view)
    assert num_read == [35, 35]


def test_errors_of_a_clip_are_raised_unchanged(manifest: MakeManifest):
    error = IndexError("no such segment")

    class FailingClip(DenseClip):
        def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
            raise error

    with pytest.raises(IndexError) as caught:
        TrainDataset(manifest(), FailingClip(frames=4), Augment(), size=32)[0, 0]
    assert caught.value is error


@pytest.mark.parametrize("broken", ["cut off.mp4", "not a video.mp4", "gone.mp4"])
def test_a_broken_video_is_replaced_and_named(manifest: MakeManifest, videos: Path, broken: str):
    item = training(manifest(extra={4: broken}))[0, 4]
    assert list(item.failures) == [broken]
    assert str(videos / broken) in item.failures[broken]
    assert item.names[0] != broken
    assert item.names[0] == f"{int(item.index) - (int(item.index) > 4)}.mp4"
    assert item.label.tolist() == [int(item.names[0].removesuffix(".mp4")) % 3]


def test_a_broken_video_is_always_replaced_by_the_same_one(manifest: MakeManifest):
    listed = manifest(extra={4: "gone.mp4"})
    assert same(training(listed)[1, 4], training(listed)[1, 4])
    replacements = {training(listed)[epoch, 4].names[0] for epoch in range(8)}
    assert len(replacements) > 1


def test_a_broken_video_does_not_change_the_others(manifest: MakeManifest):
    sound, damaged = manifest(), manifest(count=11, extra={11: "gone.mp4"})
    assert same(training(sound)[0, 6], training(damaged)[0, 6])


def test_an_item_without_any_readable_video_has_no_rows_and_names_all(videos: Path):
    names = [f"gone{k}.mp4" for k in range(5)]
    item = training(Manifest(videos, "train", tuple(map(Sample, names)), ()))[0, 2]
    assert len(item) == 0
    assert item.video.shape == (0, 4, 3, 32, 32)
    assert sorted(item.failures) == names


def test_the_search_for_a_readable_video_ends_where_lines_share_one(videos: Path):
    item = training(Manifest(videos, "train", (Sample("gone.mp4"), Sample("gone.mp4")), ()))[0, 0]
    assert len(item) == 0
    assert list(item.failures) == ["gone.mp4"]


def test_views_come_clip_by_clip_with_their_crops(manifest: MakeManifest, videos: Path):
    item = ViewDataset(manifest(), CLIP, Views(clips=3, crops=2), size=32)[9]
    frames = torch.from_numpy(decode_all(videos / "9.mp4")).permute(0, 3, 1, 2)
    expected = torch.cat([spread_crops(small(frames[CLIP.view(len(frames), k, 3)]), 2) for k in range(3)])
    assert similar(item.video, expected)
    assert item.label.tolist() == [0] * 6
    assert item.index.tolist() == [9] * 6
    assert item.names == ["9.mp4"] * 6


def test_a_broken_video_has_no_views_and_is_named(manifest: MakeManifest, videos: Path):
    item = ViewDataset(manifest(extra={2: "gone.mp4"}), CLIP, Views(clips=2), size=32)[2]
    assert len(item) == 0
    assert item.video.shape == (0, 4, 3, 32, 32)
    assert item.failures == {"gone.mp4": f"{videos / 'gone.mp4'}: no such file"}


def test_collating_keeps_order_and_all_failures(manifest: MakeManifest):
    dataset = ViewDataset(manifest(extra={1: "gone.mp4"}), CLIP, Views(clips=2), size=32)
    batch = collate([dataset[k] for k in range(3)])
    assert batch.names == ["0.mp4", "0.mp4", "1.mp4", "1.mp4"]
    assert batch.index.tolist() == [0, 0, 2, 2]
    assert batch.video.shape[0] == 4
    assert list(batch.failures) == ["gone.mp4"]


def test_a_batch_moves_except_its_seeds(manifest: MakeManifest):
    batch = training(manifest())[0, 0].to(torch.device("meta"))
    assert {batch.video.device.type, batch.label.device.type, batch.index.device.type} == {"meta"}
    assert batch.seed.device.type == "cpu"
    assert batch.names == ["0.mp4"]


def test_a_single_clip_is_the_central_view(videos: Path):
    path = str(videos / "10.mp4")
    assert torch.equal(read_clip(path, CLIP, size=32), read_views(path, CLIP, Views(), 32)[0])
    frames = torch.from_numpy(decode_all(videos / "10.mp4")).permute(0, 3, 1, 2)
    central = spread_crops(small(frames[15:23:2]), 1)[0]  # 38 frames: (38 - 8) / 2 = 15
    assert similar(read_clip(path, CLIP, size=32), central)


def test_two_segments_of_one_broken_video_are_two_failures(videos: Path):
    samples = tuple(Sample("gone.mp4", label=0, start=start, end=start + 1) for start in (0.0, 1.0))
    dataset = ViewDataset(Manifest(videos, "test", samples, ("a",)), CLIP, Views(), size=32)
    assert list(collate([dataset[0], dataset[1]]).failures) == ["gone.mp4#t=0,1", "gone.mp4#t=1,2"]
