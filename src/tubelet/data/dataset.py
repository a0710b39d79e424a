"""Videos as items: a training item is some random clips of one video, a test item all of its views."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tubelet.clips import AnyClip, Views
from tubelet.data.augment import Augment, Placed, mirrored_classes
from tubelet.data.crash_guard import Watch
from tubelet.data.manifest import Manifest
from tubelet.video.crop import spread_crops
from tubelet.video.reader import Crop, VideoError, VideoIndex, read_crops


@dataclass(frozen=True)
class Batch:
    """Clips with what is known of them; videos with several clips give several rows.

    Attributes:
        video: uint8 (B, T, C, H, W).
        label: (B,) int64 class index, -1 where there is none; of a data set whose videos may show several of
            its K classes (B, K) bool, true for each that the video shows.
        seed: (B,) int64, a random number of each clip's own, on the CPU.
        index: (B,) int64, the video's place in its manifest.
        names: each clip's video, as in the manifest.
        failures: videos that could not be read, with the reason.
    """

    video: Tensor
    label: Tensor
    seed: Tensor
    index: Tensor
    names: list[str]
    failures: dict[str, str]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device, but for the seeds: to read them there would be to wait for it."""
        return replace(self._each(lambda x: x.to(device, non_blocking=True)), seed=self.seed)

    def record_stream(self, stream: torch.Stream) -> None:
        """Say that a CUDA stream uses its memory too, so that it is not given away before."""
        for tensor in (self.video, self.label, self.index):
            tensor.record_stream(stream)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory."""
        return replace(self._each(Tensor.pin_memory), seed=self.seed.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(self, video=change(self.video), label=change(self.label), index=change(self.index))


def collate(items: Sequence[Batch]) -> Batch:
    """Join items, each a small batch of one video."""
    return Batch(
        video=torch.cat([item.video for item in items]),
        label=torch.cat([item.label for item in items]),
        seed=torch.cat([item.seed for item in items]),
        index=torch.cat([item.index for item in items]),
        names=[name for item in items for name in item.names],
        failures={name: reason for item in items for name, reason in item.failures.items()},
    )


class TrainDataset(Dataset[Batch]):
    """Random clips: a pure function of (seed, epoch, index), so any item can be made again alone.

    A video that cannot be read is replaced by another, always the same one, and named in the batch. After ten
    such videos, or where there is no other, the item has no rows and names them all.

    Args:
        manifest: the videos.
        clip: which frames of a video make a clip.
        augment: what happens to the pixels.
        size: side of the clips in pixels.
        repeats: clips of a video, each of frames of its own; all come from one decode.
        crops: of each of those, the same frames augmented anew.
        seed: of the run.
    """

    def __init__(
        self,
        manifest: Manifest,
        clip: AnyClip,
        augment: Augment,
        *,
        size: int,
        repeats: int = 1,
        crops: int = 1,
        seed: int = 0,
    ) -> None:
        self.manifest = manifest
        self.clip = clip
        self.augment = augment
        self.size = size
        self.repeats = repeats
        self.crops = crops
        self.seed = seed
        self.mirrored = mirrored_classes(manifest.classes)
        self.num_classes = _multi_label_classes(manifest)
        self.watch = Watch()

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def count(self) -> int:
        """Clips of one video."""
        return self.repeats * self.crops

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """The clips of item (epoch, index)."""
        epoch, index = key
        rng = np.random.default_rng((self.seed, 1, epoch, index))
        failures: dict[str, str] = {}
        tried: set[int] = set()
        while True:
            try:
                return self._clips(index, rng, failures)
            except VideoError as error:
                failures[self.manifest.samples[index].path] = str(error)
                tried.add(index)
                if len(tried) >= min(10, len(self)):
                    return _no_rows(self.clip, self.size, self.num_classes, failures)
                index = int(rng.integers(len(self)))

    def _clips(self, index: int, rng: np.random.Generator, failures: dict[str, str]) -> Batch:
        sample = self.manifest.samples[index]
        path = self.manifest.locate(sample)
        square, augment, state = (self.size, self.size), self.augment, rng.bit_generator.state
        placed: list[Placed] = []

        def plan(index: VideoIndex) -> list[Crop]:
            rng.bit_generator.state = state  # it may be asked again
            size, rate = (index.height, index.width), _rate(index)
            frames = [self.clip.sample(len(index), rng, rate) for _ in range(self.repeats)]
            if augment.whole_frames:
                return [Crop(numbers, None, size) for numbers in frames]
            frames = [numbers for numbers in frames for _ in range(self.crops)]
            placed[:] = [augment.place(*size, self.size, rng, sample.classes, self.mirrored) for _ in frames]
            return [
                Crop(numbers, place.box, square, place.flip)
                for numbers, place in zip(frames, placed, strict=True)
            ]

        with self.watch.over(index, path):
            clips = read_crops(path, plan)
        if augment.whole_frames:
            made = [
                augment.labeled(clip, self.size, rng, sample.classes, self.mirrored)
                for clip in clips
                for _ in range(self.crops)
            ]
        else:
            made = [
                (augment.finish(clip, rng), place.classes) for clip, place in zip(clips, placed, strict=True)
            ]
        return Batch(
            video=torch.stack([clip for clip, _ in made]),
            label=label_rows([classes for _, classes in made], self.num_classes),
            seed=torch.from_numpy(rng.integers(2**62, size=self.count)),
            index=_repeat(index, self.count),
            names=[sample.path] * self.count,
            failures=failures,
        )


class ViewDataset(Dataset[Batch]):
    """All views of a video, from one decode. A video that cannot be read has no rows and is named.

    Args:
        manifest: the videos.
        clip: which frames of a video make a clip.
        views: how many clips and crops.
        size: side of the crops in pixels.
    """

    def __init__(self, manifest: Manifest, clip: AnyClip, views: Views, *, size: int) -> None:
        self.manifest = manifest
        self.clip = clip
        self.views = views
        self.size = size
        self.num_classes = _multi_label_classes(manifest)
        self.watch = Watch()

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> Batch:
        """The views.count views of video `index`, clip by clip, or none."""
        sample = self.manifest.samples[index]
        count, path = self.views.count, str(self.manifest.locate(sample))
        try:
            with self.watch.over(index, path):
                video = read_views(path, self.clip, self.views, self.size)
        except VideoError as error:
            return _no_rows(self.clip, self.size, self.num_classes, {sample.path: str(error)})
        return Batch(
            video=video,
            label=label_rows([sample.classes] * count, self.num_classes),
            seed=torch.zeros(count, dtype=torch.int64),
            index=_repeat(index, count),
            names=[sample.path] * count,
            failures={},
        )


def read_views(path: str, clip: AnyClip, views: Views, size: int) -> Tensor:
    """All views of a video, from one decode: uint8 (clips * crops, T, C, size, size), clip by clip.

    Raises:
        VideoError: the video cannot be read.
    """

    def plan(index: VideoIndex) -> list[Crop]:
        short = min(index.height, index.width)
        height, width = (int(side * size / short) for side in (index.height, index.width))
        rate = _rate(index)
        numbers = (clip.view(len(index), k, views.clips, rate) for k in range(views.clips))
        return [Crop(frames, None, (height, width)) for frames in numbers]

    return torch.cat([spread_crops(part, views.crops) for part in read_crops(path, plan)])


def read_clip(path: str, clip: AnyClip, *, size: int) -> Tensor:
    """The central clip of a video and of its frame: uint8 (T, C, size, size).

    Raises:
        VideoError: the video cannot be read.
    """
    return read_views(path, clip, Views(), size)[0]


def _rate(index: VideoIndex) -> float | None:
    """The video's frames per second, None where they are not known."""
    return index.fps or None


def _multi_label_classes(manifest: Manifest) -> int | None:
    """Return the number of classes of a multi-label data set, None of any other."""
    return len(manifest.classes) if manifest.multi_label else None


def _no_rows(clip: AnyClip, size: int, num_classes: int | None, failures: dict[str, str]) -> Batch:
    return Batch(
        video=torch.empty(0, clip.frames, 3, size, size, dtype=torch.uint8),
        label=label_rows([], num_classes),
        seed=_repeat(0, 0),
        index=_repeat(0, 0),
        names=[],
        failures=failures,
    )


def _repeat(value: int, count: int) -> Tensor:
    return torch.full((count,), value, dtype=torch.int64)


def label_rows(shown: Sequence[Sequence[int]], num_classes: int | None) -> Tensor:
    """The labels of clips.

    Args:
        shown: the classes of each clip, by number.
        several: how many classes there are, where a clip may show any number of them; None where one each.

    Returns:
        (B,) int64 class index, -1 for no label; with `num_classes` bool (B, num_classes), true for each class
        of the clip.
    """
    if num_classes is None:
        return torch.tensor([next(iter(classes), -1) for classes in shown], dtype=torch.int64)
    rows = torch.zeros(len(shown), num_classes, dtype=torch.bool)
    for row, classes in zip(rows, shown, strict=True):
        row[list(classes)] = True
    return rows
