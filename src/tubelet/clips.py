"""Which frames make a clip, and which views a test averages over: pure functions of a video's length.

`DenseClip` and `SegmentClip` are for new recipes, the other samplings reproduce published code. All have two
methods that return frame numbers: `sample` for training and `view` for clip `clip` of `clips` in a test. Both
take the video's length in frames and its frames per second, which may be unknown (None).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
import torch

from tubelet.errors import UserError, require_at_least, require_between
from tubelet.settings import BY_KIND

_MAX_FRAMES = 2**16  # in a clip, and between two of its frames
MAX_VIEWS = 1000
"""Clips of a video, and crops or copies of a clip."""


@dataclass(frozen=True, kw_only=True)
class _Sampling:
    """The setting that all samplings have; each has `sample` and `view`, too."""

    kind: str
    frames: int = field(default=16, kw_only=False)

    def __post_init__(self) -> None:
        require_between(1, _MAX_FRAMES, frames=self.frames)


@dataclass(frozen=True, kw_only=True)
class _StridedSampling(_Sampling):
    stride: int = field(default=4, kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(1, _MAX_FRAMES, stride=self.stride)


@dataclass(frozen=True, kw_only=True)
class _SegmentSampling(_Sampling):
    """One frame of each segment, which `_at` finds by its position in the segment, in [0, 1)."""

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """Return a random frame of each segment."""
        return self._at(rng.random(self.frames), length)

    def _at(self, part: np.ndarray | float, length: int) -> list[int]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class VideoMAEClip(_StridedSampling):
    """VideoMAE's and V2's fine-tuning and test on Kinetics, UCF101 and HMDB51 (arXiv 2203.12602, 2303.16727).

    Training spreads the frames over frames * stride + 1 frames of the video, both ends included, so at 16 x 4
    the distance is 64/15. A test takes every stride-th frame of the whole video and cuts its clips from
    those. In a shorter video, training spreads length // stride frames over it and repeats the last one.

    Attributes:
        frames: frames of a clip.
        stride: frames of the video for one frame of the clip.
    """

    kind: Literal["videomae"] = "videomae"

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """Return a clip that starts at random."""
        span = self.frames * self.stride
        return self._before(int(rng.integers(span, length)) if length > span else length, length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return one of `clips` evenly spaced clips; a single one, V2's validation, is in the middle."""
        if clips == 1:
            span = self.frames * self.stride
            return self._before((span + length) // 2 if length > span else length, length)
        strided = list(range(0, length, self.stride))
        strided += strided[-1:] * (self.frames - len(strided))
        start = int(clip * ((len(strided) - self.frames) / (clips - 1)))
        return strided[start : start + self.frames]

    def _before(self, end: int, length: int) -> list[int]:
        span = self.frames * self.stride
        if length > span:
            numbers = np.linspace(end - span, end, self.frames)
        else:
            reached = length // self.stride
            numbers = np.append(np.linspace(0, length, reached), np.full(self.frames - reached, length))
        return np.minimum(numbers, end - 1).astype(int).tolist()


@dataclass(frozen=True, kw_only=True)
class VideoMAESegmentClip(_Sampling):
    """VideoMAE's and V2's fine-tuning and test on Something-Something v2 (arXiv 2203.12602, 2303.16727).

    Training takes a random frame from each of equal segments of a whole number of frames, so up to
    `frames` - 1 frames at the video's end are never sampled; a test covers the whole video.

    Attributes:
        frames: frames of a clip, which is also the number of segments.
        pad: in a video with fewer frames than that, `first_only` repeats the first frame `frames` times
            (VideoMAE), `front` repeats it only before the frames of the video (V2).
    """

    kind: Literal["videomae_segment"] = "videomae_segment"
    pad: Literal["first_only", "front"] = "first_only"

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """Return a random frame of each segment."""
        width = length // self.frames
        return self._in_segments(length, rng.integers(width, size=self.frames) if width else 0)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return the frames at clip / clips of each segment; a single clip (V2's validation): middles."""
        if clips == 1:
            return self._in_segments(length, length // self.frames // 2)
        tick = length / self.frames
        return [int(clip * tick / clips + tick * k) for k in range(self.frames)]

    def _in_segments(self, length: int, offset: np.ndarray | int) -> list[int]:
        if length < self.frames:
            kept = list(range(length)) if self.pad == "front" else []
            return [0] * (self.frames - len(kept)) + kept
        return (np.arange(self.frames) * (length // self.frames) + offset).tolist()


@dataclass(frozen=True, kw_only=True)
class FixedDurationClip(_StridedSampling):
    """MAE-ST's clips, as in PySlowFast, and MAR's on Kinetics (arXiv 2205.09113, 2207.11660).

    A clip lasts as long as frames * stride frames at the target rate, at any rate of the video. Its frames
    are spread over that window from the first to the last, rounded down, so at 30 frames per second and 16 x
    4 the distance is 63/15. If the video ends before the window, its last frame is repeated.

    Attributes:
        frames: frames of a clip.
        stride: frames at the target rate for one frame of the clip.
        target_fps: the target rate in frames per second, also used for videos of unknown rate.
        middle: a single clip of a test starts `exact`ly in the middle (MAR), or there rounded down to a whole
            frame (`floor`, MAE-ST).
    """

    kind: Literal["fixed_duration"] = "fixed_duration"
    target_fps: float = 30.0
    middle: Literal["exact", "floor"] = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_fps <= 0:
            raise UserError(f"target_fps must be above 0, found {self.target_fps}")

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """Return a clip that starts at a random time."""
        window = self._window(fps)
        return self._from(rng.uniform(0, max(length - window, 0)), window, length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return one of `clips` clips, whole frames apart; a single one is in the middle."""
        window = self._window(fps)
        slack = max(length - window, 0)
        if clips > 1:
            start: float = clip * math.floor(slack / (clips - 1))
        else:
            start = math.floor(slack / 2) if self.middle == "floor" else slack / 2
        return self._from(start, window, length)

    def _window(self, fps: float | None) -> float:
        return self.frames * self.stride / self.target_fps * (fps or self.target_fps)

    def _from(self, start: float, window: float, length: int) -> list[int]:
        # PyTorch's float32, as published: it decides how positions that are almost whole numbers are rounded.
        numbers = torch.linspace(start, start + window - 1, self.frames)
        return numbers.clamp(0, length - 1).long().tolist()


@dataclass(frozen=True, kw_only=True)
class MARSegmentClip(_SegmentSampling):
    """MAR's clips on Something-Something v2 (arXiv 2207.11660): equal segments, rounded half to even.

    Attributes:
        frames: frames of a clip, which is also the number of segments.
    """

    kind: Literal["mar_segment"] = "mar_segment"

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return the frames at clip / (clips - 1) of each segment; a single clip has the middles."""
        return self._at(clip / (clips - 1) if clips > 1 else 0.5, length)

    def _at(self, part: np.ndarray | float, length: int) -> list[int]:
        edges = np.linspace(0, length, self.frames + 1)
        positions = edges[:-1] + part * np.diff(edges)
        return np.rint(np.minimum(positions, length - 1)).astype(int).tolist()


@dataclass(frozen=True, kw_only=True)
class MMAction2Clip(_StridedSampling):
    """MMAction2's `SampleFrames`, with which it tests VideoMAE; past the end a clip continues at frame 0.

    Attributes:
        frames: frames of a clip.
        stride: frames of the video from one frame of the clip to the next.
    """

    kind: Literal["mmaction2"] = "mmaction2"

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """Return a clip that starts at random."""
        return self._from(int(rng.integers(max(length - self.frames * self.stride, 0) + 1)), length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return one of `clips` clips, evenly spaced from the first start to the last one that fits."""
        slack = max(length - ((self.frames - 1) * self.stride + 1), 0)
        start = slack // 2 if clips == 1 else round(clip * (slack / (clips - 1)))
        return self._from(start, length)

    def _from(self, start: int, length: int) -> list[int]:
        return [(start + k * self.stride) % length for k in range(self.frames)]


@dataclass(frozen=True, kw_only=True)
class MMAction2DenseClip(_StridedSampling):
    """MMAction2's `DenseSampleFrames`: clips that start where `sample_range` frames fit.

    Training never starts at the last such frame, as published. Past the end a clip continues at frame 0.

    Attributes:
        frames: frames of a clip.
        stride: frames of the video from one frame of the clip to the next.
        sample_range: frames of the video to keep after a start.
    """

    kind: Literal["mmaction2_dense"] = "mmaction2_dense"
    sample_range: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(1, _MAX_FRAMES, sample_range=self.sample_range)

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """Return a clip that starts at random."""
        return self._from(int(rng.integers(max(length - self.sample_range, 1))), length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return one of `clips` clips, evenly spaced over the starts; a single one is at the first frame."""
        starts = np.linspace(0, max(length - self.sample_range, 0), clips, dtype=int)
        return self._from(int(starts[clip]), length)

    def _from(self, start: int, length: int) -> list[int]:
        return [(start + k * self.stride) % length for k in range(self.frames)]


@dataclass(frozen=True, kw_only=True)
class MMAction2UniformClip(_Sampling):
    """MMAction2's `UniformSample`, and PySlowFast's sampling on Something-Something v2.

    The frames before the last one are divided into equal segments, whose borders are rounded half to even.
    In a video with fewer frames than segments, frames are repeated.

    Attributes:
        frames: frames of a clip, which is also the number of segments.
    """

    kind: Literal["mmaction2_uniform"] = "mmaction2_uniform"

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """Return a random frame of each segment, both borders included."""
        borders = self._borders(length)
        return rng.integers(borders[:-1], borders[1:] + 1).tolist()

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return the frame at (clip + 1) / (clips + 1) of each segment."""
        offset = int(self._width(length) / (clips + 1) * (clip + 1))
        return (self._borders(length)[:-1] + offset).tolist()

    def _width(self, length: int) -> float:
        return (length - 1) / self.frames

    def _borders(self, length: int) -> np.ndarray:
        return np.rint(self._width(length) * np.arange(self.frames + 1)).astype(int)


@dataclass(frozen=True, kw_only=True)
class MMAction2UniformFramesClip(_Sampling):
    """MMAction2's `UniformSampleFrames`: a random frame of each segment, in tests too, from a fixed seed.

    A video with fewer frames than segments is repeated from a random start; one with fewer than twice as many
    loses random frames.

    Attributes:
        frames: frames of a clip, which is also the number of segments.
        seed: of the frames of a test.
    """

    kind: Literal["mmaction2_uniform_frames"] = "mmaction2_uniform_frames"
    seed: int = 255

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, seed=self.seed)

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """Return a random frame of each segment."""
        if length < self.frames:
            return self._looped(int(rng.integers(length)), length)
        return self._one_each(length, rng.choice, rng.integers)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return the frames that the seed draws for one of `clips` clips, which are drawn one by one."""
        if length < self.frames:
            return self._looped(clip if length < clips else clip * length // clips, length)
        rng = np.random.RandomState(self.seed)  # what np.random.seed, as published, sets the state of
        return [self._one_each(length, rng.choice, rng.randint) for _ in range(clip + 1)][clip]

    def _looped(self, start: int, length: int) -> list[int]:
        return [(start + k) % length for k in range(self.frames)]

    def _one_each(
        self, length: int, choice: Callable[..., np.ndarray], integers: Callable[..., np.ndarray]
    ) -> list[int]:
        if length < 2 * self.frames:
            skips = np.zeros(self.frames + 1, int)
            skips[choice(self.frames + 1, length - self.frames, replace=False)] = 1
            return (np.arange(self.frames) + skips.cumsum()[:-1]).tolist()
        borders = np.arange(self.frames + 1) * length // self.frames
        return (borders[:-1] + integers(np.diff(borders))).tolist()


@dataclass(frozen=True, kw_only=True)
class HuggingFaceClip(_Sampling):
    """The sampling of Hugging Face's video processors: the first frame of each of equal segments.

    No training is published with it; here it takes a random frame of each segment, as `SegmentClip` does. A
    video with fewer frames than segments, which their code refuses, repeats frames.

    Attributes:
        frames: frames of a clip, which is also the number of segments.
    """

    kind: Literal["huggingface"] = "huggingface"

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """Return a random frame of each segment."""
        return SegmentClip(frames=self.frames).sample(length, rng)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return the frame at clip / clips of each segment."""
        return [(k * clips + clip) * length // (self.frames * clips) for k in range(self.frames)]


@dataclass(frozen=True, kw_only=True)
class DenseClip(_StridedSampling):
    """Frames a fixed stride apart (VideoMAE's and V2's pre-training, arXiv 2203.12602, section 4.1).

    Attributes:
        frames: frames of a clip.
        stride: frames of the video from one frame of the clip to the next.
        pad: a clip that does not fit repeats the last frame that the stride reaches; `last` counts the
            video's last frame as reachable, `before_last` does not (VideoMAE's code, in which a clip of
            stride 1 at the end of a video therefore shows the frame before the last one twice).
    """

    kind: Literal["dense"] = "dense"
    pad: Literal["last", "before_last"] = "last"

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """Return a clip that starts at random."""
        return self._from(int(rng.integers(self._slack(length) + 1)), length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return one of `clips` clips, evenly spaced over the video; a single one is in the middle."""
        part = clip / (clips - 1) if clips > 1 else 0.5
        return self._from(round(part * self._slack(length)), length)

    def _slack(self, length: int) -> int:
        return max(length - self.frames * self.stride, 0)

    def _from(self, start: int, length: int) -> list[int]:
        end = length - 2 if self.pad == "before_last" else length - 1
        last = start + max(end - start, 0) // self.stride * self.stride
        return [min(start + k * self.stride, last) for k in range(self.frames)]


@dataclass(frozen=True, kw_only=True)
class SegmentClip(_SegmentSampling):
    """One frame from each of equal segments of the whole video (TSN, arXiv 1608.00859, section 3.1).

    Attributes:
        frames: frames of a clip, which is also the number of segments.
    """

    kind: Literal["segment"] = "segment"

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return the frame at (clip + 1/2) / clips of each segment."""
        return self._at((clip + 0.5) / clips, length)

    def _at(self, part: np.ndarray | float, length: int) -> list[int]:
        positions = (np.arange(self.frames) + part) * (length / self.frames)
        return np.minimum(positions.astype(int), length - 1).tolist()


AnyClip = Annotated[
    DenseClip
    | SegmentClip
    | VideoMAEClip
    | VideoMAESegmentClip
    | FixedDurationClip
    | MARSegmentClip
    | MMAction2Clip
    | MMAction2DenseClip
    | MMAction2UniformClip
    | MMAction2UniformFramesClip
    | HuggingFaceClip,
    BY_KIND,
]

GeometryName = Literal["default", "videomae", "mae_st", "mar", "mmaction2", "huggingface"]
ScoresName = Literal["mean_probability", "mean_logit", "max_probability"]


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views of a video in a test: its class scores are averaged over clips x crops views.

    Attributes:
        clips: clips, evenly spaced over the video.
        crops: square crops, evenly spaced along the longer side of each clip.
        geometry: the project whose scaling of frames and positions of crops are reproduced; null is that of
            the test's protocol or the model's card, or else `default`.
        scores: how the views' scores are combined: the mean of their probabilities, the probability of their
            mean logits, or each class's highest probability (PySlowFast on multi-label data sets); null is as
            for `geometry`, or else `mean_probability`.
    """

    clips: int = 1
    crops: int = 1
    geometry: GeometryName | None = None
    scores: ScoresName | None = None

    def __post_init__(self) -> None:
        require_between(1, MAX_VIEWS, clips=self.clips, crops=self.crops)

    @property
    def count(self) -> int:
        """The number of views of a video."""
        return self.clips * self.crops

    def with_defaults_of(self, other: "Views") -> "Views":
        """Return these views, with the geometry and the scores of others where these have none."""
        return replace(self, geometry=self.geometry or other.geometry, scores=self.scores or other.scores)
