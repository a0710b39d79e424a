"""Windows of long videos: each video is decoded once, from window to window."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tubelet.clips import AnyClip, Views
from tubelet.data.crash_guard import CrashGuard
from tubelet.data.dataset import (
    Batch,
    all_crops,
    label_rows,
    no_rows,
    only_user_errors,
    view_frames,
    whole_frames,
)
from tubelet.data.manifest import segment_name
from tubelet.errors import UserError
from tubelet.video.reader import VideoError, VideoFile, VideoIndex, open_video


class Window(NamedTuple):
    """A part of a video: its frames, and its start and end in seconds."""

    frames: range
    start_s: float
    end_s: float


@dataclass(frozen=True)
class SlidingWindows:
    """Windows of one length at equal distances that together cover a video.

    The last one is moved back so that it ends with the video; a shorter video is one window.

    Attributes:
        length: length of a window, in `unit`s.
        hop: distance from the start of a window to the start of the next, in `unit`s.
        unit: `s` for seconds, `f` for frames.
    """

    length: float
    hop: float
    unit: Literal["s", "f"] = "s"

    @classmethod
    def parse(cls, window: float | str, hop: float | str | None = None) -> Self:
        """Return windows from texts such as `2s` and `16f`, or seconds. A hop of None is half a window.

        Raises:
            UserError: a text is not a length, a length is not above 0, or the units differ.
        """
        length, unit = _length("window", window)
        if hop is None:
            return cls(length, length / 2 if unit == "s" else max(1, length // 2), unit)
        distance, hop_unit = _length("hop", hop)
        if hop_unit != unit:
            raise UserError(f"hop must be in the unit of window={window}, found {hop}: use s or f for both")
        return cls(length, distance, unit)

    def of(self, index: VideoIndex) -> list[Window]:
        """Return the windows of a video, in order; those without a frame are left out."""
        total = len(index) if self.unit == "f" else index.duration_s
        tolerance = 0.0 if self.unit == "f" else 0.5 / (index.fps or 25)
        num_whole = math.floor((total + tolerance - self.length) / self.hop) + 1
        starts = [k * self.hop for k in range(num_whole)]
        if not starts or starts[-1] + self.length < total - tolerance:
            starts.append(max(0, total - self.length))
        found = [self._window(index, start, min(start + self.length, total)) for start in starts]
        return [window for window in found if window.frames]

    def _window(self, index: VideoIndex, start: float, end: float) -> Window:
        if self.unit == "s":
            return Window(index.frames_between(start, end), start, end)
        frames = range(int(start), int(end))
        end_s = index.shown_at(frames.stop) if frames.stop < len(index) else index.duration_s
        return Window(frames, index.shown_at(frames.start), end_s)


def _length(name: str, given: float | str) -> tuple[float, Literal["s", "f"]]:
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)(s|f)?", str(given).strip())
    if not match or float(match[1]) <= 0 or (match[2] == "f" and not match[1].isdecimal()):
        raise UserError(f"{name} must be seconds such as 2s, or frames such as 16f, found {given}")
    return (int(match[1]), "f") if match[2] == "f" else (float(match[1]), "s")


class WindowViews(Dataset[Batch]):
    """All views of windows of videos.

    Each key is the number of a video, its path, and the number of a window. The item has the views of up to
    `count` windows from that one on, named as segments of the video, and no rows after the last window or if
    the video cannot be read. It decodes on from where the item before ended, if that is of the same video.

    Args:
        windows: the windows.
        clip: which frames of a window make a clip.
        views: how many clips and crops of a window.
        size: side of the crops in pixels.
        count: windows of an item.
    """

    def __init__(
        self, windows: SlidingWindows, clip: AnyClip, views: Views, *, size: int, count: int = 1
    ) -> None:
        self.windows, self.clip, self.views, self.size, self.count = windows, clip, views, size, count
        self.crash_guard = CrashGuard()
        self._reading: Iterator[tuple[Window, Tensor]] = iter(())
        self._next: tuple[int, int] | None = None  # video and window that it continues with

    def __getitem__(self, key: tuple[int, str, int]) -> Batch:
        """Return the views of windows, uint8 (windows * views, T, C, size, size), window by window."""
        number, path, first = key
        try:
            with only_user_errors(path), self.crash_guard.decoding(number, path):
                if self._next != (number, first):
                    self._reading = self._read(path, first)
                found = list(islice(self._reading, self.count))
            self._next = (number, first + self.count)
        except VideoError as error:
            self._next = None
            return no_rows(self.clip, self.size, None, {path: str(error)})
        if not found:
            return no_rows(self.clip, self.size, None, {})
        numbers = torch.arange(first, first + len(found)).repeat_interleave(self.views.count)
        names = [segment_name(path, window.start_s, window.end_s) for window, _ in found]
        return Batch(
            video=torch.cat([video for _, video in found]),
            label=label_rows([()] * len(numbers), None),
            seed=torch.zeros_like(numbers),
            index=numbers,
            names=[name for name in names for _ in range(self.views.count)],
            failures={},
        )

    def _read(self, path: str, first: int) -> Iterator[tuple[Window, Tensor]]:
        """Yield windows from `first` on with their views; a frame is kept until its last window."""
        with open_video(path, exact=True) as video:
            if not isinstance(video, VideoFile):
                raise VideoError(f"{path}: a folder of images has no times; windows need a video file")
            windows = self.windows.of(video.index)[first:]
            numbers = [self._frames(window, video.index.fps) for window in windows]
            wanted = sorted({number for clips in numbers for clip in clips for number in clip})
            if not wanted:
                return
            frames = video.stream(whole_frames(wanted, video.index, self.views, self.size))
            kept: dict[int, Tensor] = {}
            for window, clips in zip(windows, numbers, strict=True):
                kept = {number: frame for number, frame in kept.items() if number >= window.frames.start}
                last = max(map(max, clips))
                while last not in kept and (decoded := next(frames, None)):
                    kept[decoded[0]] = decoded[1]
                if lost := sorted({number for clip in clips for number in clip} - kept.keys()):
                    raise VideoError(f"{path}: {len(lost)} frames of a window do not decode: {lost[:5]}")
                parts = [torch.stack([kept[number] for number in clip]) for clip in clips]
                yield window, all_crops(parts, self.views)

    def _frames(self, window: Window, fps: float) -> list[list[int]]:
        """Return the frame numbers of each clip of a window."""
        clips = view_frames(self.clip, self.views, len(window.frames), fps)
        return [[window.frames.start + number for number in clip] for clip in clips]
