"""Videos as items: a training item is some random clips of one video, a test item all of its views."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tubelet.data.clips import AnyClip, Views
from tubelet.data.manifest import Manifest
from tubelet.data.transforms import Augment, spread_crops
from tubelet.data.video import VideoError, read_frames


@dataclass(frozen=True)
class Batch:
    """Clips with what is known of them; videos with several clips give several rows.

    Attributes:
        video: uint8 (B, T, C, H, W).
        label: (B,) int64 class index, -1 where there is none.
        seed: (B,) int64, a random number of each clip's own.
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
        """The same batch on another device."""
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            video=change(self.video),
            label=change(self.label),
            seed=change(self.seed),
            index=change(self.index),
        )


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
        repeats: clips from one decoded video.
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
        seed: int = 0,
    ) -> None:
        self.manifest = manifest
        self.clip = clip
        self.augment = augment
        self.size = size
        self.repeats = repeats
        self.seed = seed

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """The clips of item (epoch, index)."""
        epoch, index = key
        rng = np.random.default_rng((self.seed, 1, epoch, index))
        failures: dict[str, str] = {}
        while True:
            try:
                return self._clips(index, rng, failures)
            except VideoError as error:
                failures[self.manifest.samples[index].path] = str(error)
                if len(failures) >= min(10, len(self)):
                    return _no_rows(self.clip, self.size, failures)
                index = int(rng.integers(len(self)))

    def _clips(self, index: int, rng: np.random.Generator, failures: dict[str, str]) -> Batch:
        sample = self.manifest.samples[index]
        path = self.manifest.locate(sample)

        def choose(length: int) -> list[int]:
            return [number for _ in range(self.repeats) for number in self.clip.sample(length, rng)]

        frames = read_frames(path, choose)
        clips = [self.augment(clip, self.size, rng) for clip in frames.chunk(self.repeats)]
        return Batch(
            video=torch.stack(clips),
            label=_repeat(-1 if sample.label is None else sample.label, self.repeats),
            seed=torch.from_numpy(rng.integers(2**62, size=self.repeats)),
            index=_repeat(index, self.repeats),
            names=[sample.path] * self.repeats,
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

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> Batch:
        """The views.count views of video `index`, clip by clip, or none."""
        sample = self.manifest.samples[index]
        count = self.views.count
        try:
            video = read_views(str(self.manifest.locate(sample)), self.clip, self.views, self.size)
        except VideoError as error:
            return _no_rows(self.clip, self.size, {sample.path: str(error)})
        return Batch(
            video=video,
            label=_repeat(-1 if sample.label is None else sample.label, count),
            seed=torch.zeros(count, dtype=torch.int64),
            index=_repeat(index, count),
            names=[sample.path] * count,
            failures={},
        )


def read_views(path: str, clip: AnyClip, views: Views, size: int) -> Tensor:
    """All views of a video, from one decode: uint8 (clips * crops, T, C, size, size), clip by clip."""

    def choose(length: int) -> list[int]:
        return [number for k in range(views.clips) for number in clip.view(length, k, views.clips)]

    frames = read_frames(path, choose)
    return torch.cat([spread_crops(part, size, views.crops) for part in frames.chunk(views.clips)])


def read_clip(path: str, clip: AnyClip, *, size: int) -> Tensor:
    """The central clip of a video and of its frame: uint8 (T, C, size, size)."""
    return read_views(path, clip, Views(), size)[0]


def _no_rows(clip: AnyClip, size: int, failures: dict[str, str]) -> Batch:
    return Batch(
        video=torch.empty(0, clip.frames, 3, size, size, dtype=torch.uint8),
        label=_repeat(0, 0),
        seed=_repeat(0, 0),
        index=_repeat(0, 0),
        names=[],
        failures=failures,
    )


def _repeat(value: int, count: int) -> Tensor:
    return torch.full((count,), value, dtype=torch.int64)
