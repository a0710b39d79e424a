"""Videos as items: a training item is random clips of one video, a test item all of its views."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tubelet.clips import AnyClip, Views
from tubelet.data.augment import Augment, mirrored_classes
from tubelet.data.crash_guard import CrashGuard
from tubelet.data.manifest import Manifest, Sample
from tubelet.errors import UserError, require_at_least
from tubelet.video.crop import GEOMETRIES, spread_crops
from tubelet.video.reader import Crop, IndexChanged, LastVideo, Video, VideoError, VideoIndex, open_video

_MAX_FAILED = 10  # videos of one item that cannot be read
_T = TypeVar("_T")
_P = ParamSpec("_P")


@dataclass(frozen=True)
class Batch:
    """Clips with their labels and names; a video with more than one clip has more than one row.

    Attributes:
        video: uint8 (B, T, C, H, W).
        label: (B,) int64 class index, -1 for no label; of a multi-label data set of K classes (B, K) bool,
            true for each class that the video shows.
        seed: (B,) int64, a random number of each clip, on the CPU.
        index: (B,) int64, the video's number in its manifest.
        names: each clip's sample, as `Sample.name`.
        failures: the reason by name, for videos that could not be read.
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
        """Copy to another device, except the seeds, which stay on the CPU to avoid a synchronization."""
        return replace(self._map(lambda x: x.to(device, non_blocking=True)), seed=self.seed)

    def record_stream(self, stream: torch.Stream) -> None:
        """Mark the memory as used by a CUDA stream, too, so that it is not reused before."""
        for tensor in (self.video, self.label, self.index):
            tensor.record_stream(stream)

    def pin_memory(self) -> "Batch":
        """Copy to page-locked memory."""
        return replace(self._map(Tensor.pin_memory), seed=self.seed.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(self, video=change(self.video), label=change(self.label), index=change(self.index))


def collate(items: Sequence[Batch]) -> Batch:
    """Concatenate items, each a small batch of one video."""
    return Batch(
        video=torch.cat([item.video for item in items]),
        label=torch.cat([item.label for item in items]),
        seed=torch.cat([item.seed for item in items]),
        index=torch.cat([item.index for item in items]),
        names=[name for item in items for name in item.names],
        failures={name: reason for item in items for name, reason in item.failures.items()},
    )


class TrainDataset(Dataset[Batch]):
    """Random clips: a pure function of (seed, epoch, index), so any item can be made again on its own.

    A video that cannot be read is replaced by another, always the same one, and named in the batch. After ten
    such videos, or without another one, the item has no rows and names them all.

    Args:
        manifest: the videos.
        clip: which frames of a video make a clip.
        augment: the random changes to the pixels.
        size: side of the clips in pixels.
        repeats: clips of a video, each of different frames; they share one decoding.
        augmented_copies: differently augmented copies of each of those clips, of the same frames.
        seed: of the run.
        clips: the rule of each video, where they are not all the same; all have the frames of `clip`.
    """

    def __init__(
        self,
        manifest: Manifest,
        clip: AnyClip,
        augment: Augment,
        *,
        size: int,
        repeats: int = 1,
        augmented_copies: int = 1,
        seed: int = 0,
        clips: Sequence[AnyClip] | None = None,
    ) -> None:
        self.manifest = manifest
        self.clip = clip
        self.clips = clips
        self.augment = augment
        self.size = size
        self.repeats = repeats
        self.augmented_copies = augmented_copies
        self.seed = seed
        self.mirrored = mirrored_classes(manifest.classes)
        self.num_classes = _multi_label_classes(manifest)
        self.crash_guard = CrashGuard()

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def num_clips(self) -> int:
        """Clips of one video."""
        return self.repeats * self.augmented_copies

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """Return the clips of item (epoch, index)."""
        epoch, index = key
        rng = np.random.default_rng((self.seed, 1, epoch, index))
        failures: dict[str, str] = {}
        failed: set[int] = set()
        while len(failed) < min(_MAX_FAILED, len(self)):
            sample = self.manifest.samples[index]
            path = self.manifest.locate(sample)
            try:
                with (
                    self.crash_guard.decoding(index, path),
                    open_video(path, start=sample.start, end=sample.end) as video,
                ):
                    return read_again(self._item, video, index, rng, failures)
            except VideoError as error:
                failures[sample.name] = str(error)
                failed.add(index)
                index = int(rng.integers(len(self)))
        return no_rows(self.clip, self.size, self.num_classes, failures)

    def _item(self, video: Video, index: int, rng: np.random.Generator, failures: dict[str, str]) -> Batch:
        rng = deepcopy(rng)  # reading again draws the same
        sample = self.manifest.samples[index]
        clips = self._clips(video, sample, self.clips[index] if self.clips else self.clip, rng)
        return Batch(
            video=torch.stack([clip for clip, _ in clips]),
            label=label_rows([classes for _, classes in clips], self.num_classes),
            seed=torch.from_numpy(rng.integers(2**62, size=self.num_clips)),
            index=_repeat(index, self.num_clips),
            names=[sample.name] * self.num_clips,
            failures=failures,
        )

    def _clips(
        self, video: Video, sample: Sample, rule: AnyClip, rng: np.random.Generator
    ) -> list[tuple[Tensor, tuple[int, ...]]]:
        """Draw, read and augment a video's clips; each comes with its classes, which a flip may change."""
        index, augment = video.index, self.augment
        frames = [rule.sample(len(index), rng, index.fps or None) for _ in range(self.repeats)]
        if augment.whole_frames:
            whole = video.read_crops([Crop(numbers, None, (index.height, index.width)) for numbers in frames])
            return [
                augment.labeled(clip, self.size, rng, sample.classes, self.mirrored)
                for clip in whole
                for _ in range(self.augmented_copies)
            ]
        frames = [numbers for numbers in frames for _ in range(self.augmented_copies)]
        draws = [
            augment.draw_crop(index.height, index.width, self.size, rng, sample.classes, self.mirrored)
            for _ in frames
        ]
        clips = video.read_crops(
            [
                Crop(numbers, draw.box, (self.size, self.size), draw.flip)
                for numbers, draw in zip(frames, draws, strict=True)
            ]
        )
        return [(augment.finish(clip, rng), draw.classes) for clip, draw in zip(clips, draws, strict=True)]


class _AllViews(Dataset[Batch]):
    """All views of a video, from one decoding. A video that cannot be read has no rows and is named."""

    def __init__(self, clip: AnyClip, views: Views, *, size: int, num_classes: int | None = None) -> None:
        self.clip = clip
        self.views = views
        self.size = size
        self.num_classes = num_classes
        self.crash_guard = CrashGuard()

    def _item(
        self, number: int, sample: Sample, path: Path | str, opened: AbstractContextManager[Video]
    ) -> Batch:
        """Return the views.count views of a sample, which is opened here, clip by clip, or no rows."""
        count = self.views.count
        try:
            with self.crash_guard.decoding(number, path):
                video = _read_views(opened, path, self.clip, self.views, self.size)
        except VideoError as error:
            return no_rows(self.clip, self.size, self.num_classes, {sample.name: _reason(error, sample)})
        return Batch(
            video=video,
            label=label_rows([sample.classes] * count, self.num_classes),
            seed=torch.tensor([_view_seed(sample.name, view) for view in range(count)]),
            index=_repeat(number, count),
            names=[sample.name] * count,
            failures={},
        )


def _reason(error: VideoError, sample: Sample) -> str:
    """Return why a video, or which segment of it, cannot be read."""
    segment = sample.name.removeprefix(sample.path)
    return f"{error} ({segment})" if segment else str(error)


class ViewDataset(_AllViews):
    """All views of each video of a manifest, each from one decoding.

    A video that cannot be read has no rows and is named.

    Args:
        manifest: the videos.
        clip: which frames of a video make a clip.
        views: how many clips and crops.
        size: side of the crops in pixels.
    """

    def __init__(self, manifest: Manifest, clip: AnyClip, views: Views, *, size: int) -> None:
        super().__init__(clip, views, size=size, num_classes=_multi_label_classes(manifest))
        self.manifest = manifest
        self._last_video = LastVideo()

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> Batch:
        """Return the views.count views of video `index`, clip by clip, or no rows."""
        sample = self.manifest.samples[index]
        path = self.manifest.locate(sample)
        return self._item(index, sample, path, self._last_video.open(path, sample.start, sample.end))


class SampleViews(_AllViews):
    """All views of videos that are not listed before: each key is a number and a sample.

    No two videos have the same number. A video that cannot be read has no rows and is named.
    """

    def __getitem__(self, key: tuple[int, Sample]) -> Batch:
        """Return the views.count views of a sample, clip by clip, or no rows."""
        number, sample = key
        opened = open_video(sample.path, start=sample.start, end=sample.end)
        return self._item(number, sample, sample.path, opened)


def read_views(
    path: str | Path,
    clip: AnyClip,
    views: Views,
    size: int,
    *,
    start: float | None = None,
    end: float | None = None,
) -> Tensor:
    """Read all views of a video: clips evenly spread over its length, crops along its longer side.

    The shorter side of the frames is scaled to `size`, and square crops are cut from the result, in the
    geometry of `views`. The file is decoded once.

    Args:
        path: a file, a folder of numbered images, or the URL of a file.
        clip: which frames make a clip.
        views: how many clips, and crops of each.
        size: side of the crops in pixels.
        start: seconds at which the segment to read begins; None for the start of the video.
        end: seconds at which it ends (exclusive); None for the end of the video.

    Returns:
        uint8 (clips * crops, T, C=3, size, size), RGB, clip by clip.

    Raises:
        VideoError: the video cannot be read: any failure that its content causes.
        FetchError: it is remote and could not be fetched; a VideoError, too.
    """
    require_at_least(1, size=size)
    return _read_views(open_video(path, start=start, end=end), path, clip, views, size)


def _read_views(
    opened: AbstractContextManager[Video], path: str | Path, clip: AnyClip, views: Views, size: int
) -> Tensor:
    """As `read_views`, of a video that is opened here."""

    def read(video: Video) -> list[Tensor]:
        frames = view_frames(clip, views, len(video.index), video.index.fps)
        return video.read_crops([whole_frames(numbers, video.index, views, size) for numbers in frames])

    with only_user_errors(path), opened as video:
        return all_crops(read_again(read, video), views)


def view_frames(clip: AnyClip, views: Views, length: int, fps: float) -> list[list[int]]:
    """Return the frame numbers of each clip of a video, or of a part of it, with `length` frames."""
    return [clip.view(length, k, views.clips, fps or None) for k in range(views.clips)]


def whole_frames(numbers: Sequence[int], index: VideoIndex, views: Views, size: int) -> Crop:
    """Return whole frames of a video, scaled as the views need it."""
    geometry = GEOMETRIES[views.geometry or "default"]
    return Crop(numbers, None, geometry.scaled(*index.size, size), scaling=geometry.scaling)


def all_crops(clips: Sequence[Tensor], views: Views) -> Tensor:
    """Return the crops of clips of whole frames, uint8 (clips * crops, T, C, size, size), clip by clip."""
    geometry = GEOMETRIES[views.geometry or "default"]
    return torch.cat([spread_crops(clip, views.crops, geometry) for clip in clips])


@contextmanager
def only_user_errors(path: str | Path) -> Iterator[None]:
    """Turn any other error into a VideoError: no file may stop the others, even if broken in a new way."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise VideoError(f"{path}: cannot be read as a video ({reason})") from error


def read_clip(
    path: str | Path, clip: AnyClip, *, size: int, start: float | None = None, end: float | None = None
) -> Tensor:
    """Read the central clip of a video or of a segment of it, and of its frames the central square.

    Args:
        path: a file, a folder of numbered images, or the URL of a file.
        clip: which frames make a clip.
        size: side of the clip in pixels, to which the frames' shorter side is scaled.
        start: seconds at which the segment begins; None for the start of the video.
        end: seconds at which it ends (exclusive); None for the end of the video.

    Returns:
        uint8 (T, C=3, size, size), RGB.

    Raises:
        VideoError: the video cannot be read.
        FetchError: it is remote and could not be fetched; a VideoError, too.
    """
    return read_views(path, clip, Views(), size, start=start, end=end)[0]


def read_again(read: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function that reads an open video, and once again if the video's header turns out to be wrong.

    It chooses frames and crops by `video.index`, so it must begin with that each time.
    """
    try:
        return read(*args, **kwargs)
    except IndexChanged:
        return read(*args, **kwargs)


def _multi_label_classes(manifest: Manifest) -> int | None:
    """Return the number of classes of a multi-label data set, None of any other."""
    return len(manifest.classes) if manifest.multi_label else None


def no_rows(clip: AnyClip, size: int, num_classes: int | None, failures: dict[str, str]) -> Batch:
    """Return a batch of only the videos that cannot be read."""
    return Batch(
        video=torch.empty(0, clip.frames, 3, size, size, dtype=torch.uint8),
        label=label_rows([], num_classes),
        seed=_repeat(0, 0),
        index=_repeat(0, 0),
        names=[],
        failures=failures,
    )


def _view_seed(name: str, view: int) -> int:
    """Return a seed in [0, 2**63): the same for a video's view in every list, process and run."""
    digest = hashlib.blake2b(f"{view} {name}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _repeat(value: int, count: int) -> Tensor:
    return torch.full((count,), value, dtype=torch.int64)


def label_rows(classes: Sequence[Sequence[int]], num_classes: int | None) -> Tensor:
    """Return the labels of clips.

    Args:
        classes: the class numbers of each clip.
        num_classes: how many classes a multi-label data set has; None where a clip has one class or none.

    Returns:
        (B,) int64 class index, -1 for no label; with `num_classes` bool (B, num_classes), true for each class
        of the clip.
    """
    if num_classes is None:
        return torch.tensor([next(iter(of_clip), -1) for of_clip in classes], dtype=torch.int64)
    rows = torch.zeros(len(classes), num_classes, dtype=torch.bool)
    for row, of_clip in zip(rows, classes, strict=True):
        row[list(of_clip)] = True
    return rows
