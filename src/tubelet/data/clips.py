"""Which frames make a clip: pure functions from a video's length to frame numbers.

Here are the two that new recipes start from; `protocols` has the published ones, and says what all take.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tubelet.data.protocols import (
    IntervalClip,
    MARSegmentClip,
    MMAction2Clip,
    VideoMAEClip,
    VideoMAESegmentClip,
)
from tubelet.errors import require_at_least


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


AnyClip = (
    DenseClip
    | SegmentClip
    | VideoMAEClip
    | VideoMAESegmentClip
    | IntervalClip
    | MARSegmentClip
    | MMAction2Clip
)


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
