"""Which frames make a clip: pure functions from a video's length to frame numbers.

Here are the two that new recipes start from; `protocols` has the published ones, and says what all take.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch

from tubelet.errors import UserError, require_at_least
from tubelet.settings import BY_KIND


@dataclass(frozen=True, kw_only=True)
class VideoMAEClip:
    """VideoMAE's and V2's fine-tuning and test on Kinetics, UCF101 and HMDB51 (arXiv 2203.12602, 2303.16727).

    Training spreads the frames over frames * stride + 1 of the video's, both ends included, so that at
    16 x 4 they lie 64/15 apart. A test takes every stride-th frame of the whole video and cuts its clips out
    of those. A shorter video is spread over in training, and repeats its last frame.

    Attributes:
        frames: frames of a clip.
        stride: frames of the video for one frame of the clip.
    """

    kind: Literal["videomae"] = "videomae"
    frames: int = 16
    stride: int = 4

    def __post_init__(self) -> None:
        require_at_least(1, frames=self.frames, stride=self.stride)

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """A clip at a random place in a video of `length` frames."""
        span = self.frames * self.stride
        return self._before(int(rng.integers(span, length)) if length > span else length, length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Clip number `clip` of `clips`; a single one, which is V2's validation, lies in the middle."""
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
            places = np.linspace(end - span, end, self.frames)
        else:
            reached = length // self.stride
            places = np.append(np.linspace(0, length, reached), np.full(self.frames - reached, length))
        return np.minimum(places, end - 1).astype(int).tolist()


@dataclass(frozen=True, kw_only=True)
class VideoMAESegmentClip:
    """VideoMAE's and V2's fine-tuning and test on Something-Something v2 (arXiv 2203.12602, 2303.16727).

    Training takes a random frame from each of equal segments of a whole number of frames, so up to
    `frames` - 1 frames at the video's end are never seen; a test spreads over the whole video.

    Attributes:
        frames: frames of a clip, which is also the number of segments.
        short: a video with fewer frames than that shows its `first` frame throughout (VideoMAE), or that
            frame until what is left is just enough to `lead` up to the last (V2).
    """

    kind: Literal["videomae_segment"] = "videomae_segment"
    frames: int = 16
    short: Literal["first", "lead"] = "first"

    def __post_init__(self) -> None:
        require_at_least(1, frames=self.frames)

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """A random frame from each segment of a video of `length` frames."""
        width = length // self.frames
        return self._in_segments(length, rng.integers(width, size=self.frames) if width else 0)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Clip number `clip` of `clips`: the frame clip / clips of the way through every segment.

        A single one, which is V2's validation, takes the segments' middles.
        """
        if clips == 1:
            return self._in_segments(length, length // self.frames // 2)
        tick = length / self.frames
        return [int(clip * tick / clips + tick * k) for k in range(self.frames)]

    def _in_segments(self, length: int, offset: np.ndarray | int) -> list[int]:
        if length < self.frames:
            led = list(range(length)) if self.short == "lead" else []
            return [0] * (self.frames - len(led)) + led
        return (np.arange(self.frames) * (length // self.frames) + offset).tolist()


@dataclass(frozen=True, kw_only=True)
class IntervalClip:
    """MAE-ST's clips, as in PySlowFast, and MAR's on Kinetics (arXiv 2205.09113, 2207.11660).

    The window lasts as long as frames * stride frames do at the target rate, whatever the video's own rate;
    the frames spread over it from the first to the last, rounded down, so that at 30 frames per second and
    16 x 4 they lie 63/15 apart. Where the video ends before the window, its last frame is repeated.

    Attributes:
        frames: frames of a clip.
        stride: frames, at the target rate, for one frame of the clip.
        target_fps: the target rate in frames per second; a video of unknown rate is taken to have it.
    """

    kind: Literal["interval"] = "interval"
    frames: int = 16
    stride: int = 4
    target_fps: float = 30.0

    def __post_init__(self) -> None:
        require_at_least(1, frames=self.frames, stride=self.stride)
        if self.target_fps <= 0:
            raise UserError(f"target_fps must be above 0, found {self.target_fps}")

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """A clip at a random time of a video of `length` frames at `fps` frames per second."""
        window = self._window(fps)
        return self._from(rng.uniform(0, max(length - window, 0)), window, length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Clip number `clip` of `clips`, whole frames apart; a single one lies in the middle (MAR)."""
        window = self._window(fps)
        slack = max(length - window, 0)
        start = slack / 2 if clips == 1 else clip * math.floor(slack / (clips - 1))
        return self._from(start, window, length)

    def _window(self, fps: float | None) -> float:
        return self.frames * self.stride / self.target_fps * (fps or self.target_fps)

    def _from(self, start: float, window: float, length: int) -> list[int]:
        # Torch's single precision, as published: it decides which whole number a place just at it becomes.
        places = torch.linspace(start, start + window - 1, self.frames)
        return places.clamp(0, length - 1).long().tolist()


@dataclass(frozen=True, kw_only=True)
class MARSegmentClip:
    """MAR's clips on Something-Something v2 (arXiv 2207.11660): equal segments, rounded half to even.

    Attributes:
        frames: frames of a clip, which is also the number of segments.
    """

    kind: Literal["mar_segment"] = "mar_segment"
    frames: int = 16

    def __post_init__(self) -> None:
        require_at_least(1, frames=self.frames)

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """A random place in each segment of a video of `length` frames."""
        return self._at(rng.random(self.frames), length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Clip number `clip` of `clips`, from the segments' starts to their ends; a single one: middles."""
        return self._at(clip / (clips - 1) if clips > 1 else 0.5, length)

    def _at(self, part: np.ndarray | float, length: int) -> list[int]:
        edges = np.linspace(0, length, self.frames + 1)
        places = edges[:-1] + part * np.diff(edges)
        return np.rint(np.minimum(places, length - 1)).astype(int).tolist()


@dataclass(frozen=True, kw_only=True)
class MMAction2Clip:
    """MMAction2's `SampleFrames`, with which it tests VideoMAE; a clip goes past the end to the beginning.

    Attributes:
        frames: frames of a clip.
        stride: frames of the video from one frame of the clip to the next.
    """

    kind: Literal["mmaction2"] = "mmaction2"
    frames: int = 16
    stride: int = 4

    def __post_init__(self) -> None:
        require_at_least(1, frames=self.frames, stride=self.stride)

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """A clip at a random start in a video of `length` frames."""
        return self._from(int(rng.integers(max(length - self.frames * self.stride, 0) + 1)), length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Clip number `clip` of `clips`, spread from the first frame to the last place that fits."""
        slack = max(length - ((self.frames - 1) * self.stride + 1), 0)
        start = slack // 2 if clips == 1 else round(clip * (slack / (clips - 1)))
        return self._from(start, length)

    def _from(self, start: int, length: int) -> list[int]:
        return [(start + k * self.stride) % length for k in range(self.frames)]


@dataclass(frozen=True, kw_only=True)
class DenseClip:
    """Frames a fixed stride apart (VideoMAE's and V2's pre-training, arXiv 2203.12602, section 4.1).

    A video shorter than the clip repeats the last frame that the stride reaches.

    Attributes:
        frames: frames of a clip.
        stride: frames of the video from one frame of the clip to the next.
        short: in a video shorter than frames * stride, the stride may reach the video's `last` frame, or
            only the ones `before` it (VideoMAE's code).
    """

    kind: Literal["dense"] = "dense"
    frames: int = 16
    stride: int = 4
    short: Literal["last", "before"] = "last"

    def __post_init__(self) -> None:
        require_at_least(1, frames=self.frames, stride=self.stride)

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """A clip at a random start in a video of `length` frames."""
        return self._from(int(rng.integers(self._slack(length) + 1)), length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Clip number `clip` of `clips` spread evenly over the video; a single one lies in the middle."""
        part = clip / (clips - 1) if clips > 1 else 0.5
        return self._from(round(part * self._slack(length)), length)

    def _slack(self, length: int) -> int:
        return max(length - self.frames * self.stride, 0)

    def _from(self, start: int, length: int) -> list[int]:
        reach = length - 1 - start
        if self.short == "before" and length < self.frames * self.stride:
            reach = max(length - 2, 0)
        last = start + reach // self.stride * self.stride
        return [min(start + k * self.stride, last) for k in range(self.frames)]


@dataclass(frozen=True, kw_only=True)
class SegmentClip:
    """One frame from each of equal segments of the whole video (TSN, arXiv 1608.00859, section 3.1).

    Attributes:
        frames: frames of a clip, which is also the number of segments.
    """

    kind: Literal["segment"] = "segment"
    frames: int = 16

    def __post_init__(self) -> None:
        require_at_least(1, frames=self.frames)

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        """A random frame from each segment of a video of `length` frames."""
        return self._at(rng.random(self.frames), length)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """The frame at the same place in every segment: (clip + 1/2) / clips of the way through it."""
        return self._at(np.full(self.frames, (clip + 0.5) / clips), length)

    def _at(self, offset: np.ndarray, length: int) -> list[int]:
        place = (np.arange(self.frames) + offset) * (length / self.frames)
        return np.minimum(place.astype(int), length - 1).tolist()


AnyClip = Annotated[
    DenseClip
    | SegmentClip
    | VideoMAEClip
    | VideoMAESegmentClip
    | IntervalClip
    | MARSegmentClip
    | MMAction2Clip,
    BY_KIND,
]


@dataclass(frozen=True, kw_only=True)
class Views:
    """How often a video is looked at in a test: class probabilities are averaged over clips x crops views.

    Attributes:
        clips: clips spread over the video.
        crops: square crops spread along the longer side of each clip.
    """

    clips: int = 1
    crops: int = 1

    def __post_init__(self) -> None:
        require_at_least(1, clips=self.clips, crops=self.crops)

    @property
    def count(self) -> int:
        """Views of one video."""
        return self.clips * self.crops
