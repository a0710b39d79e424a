"""The result of measuring how videos are read: as text with advice, and as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from statistics import mean

from tubelet.errors import plural
from tubelet.machine import available_cores
from tubelet.video.index import VideoIndex

_MIN_SHORT_SIDE_TO_SCALE = 1.3 * 256


@dataclass(frozen=True)
class StageTimes:
    """CPU milliseconds per clip, by stage.

    Attributes:
        open: open the file and index its frames.
        read: seek to key frames and read packets.
        decode: decode the packets and do nothing with the frames.
        convert: crop, scale, and convert to RGB.
        augment: VideoMAE's other augmentation for pre-training.
        finetune: VideoMAE's augmentation for fine-tuning: RandAugment, crop, erasing.
        collate: copy a clip into a batch.
    """

    open: float
    read: float
    decode: float
    convert: float
    augment: float
    finetune: float
    collate: float

    @property
    def clip(self) -> float:
        """From the file to a cropped RGB clip: the stages of all reading."""
        return self.open + self.read + self.decode + self.convert


@dataclass(frozen=True)
class MeasuredVideo:
    """A video that was read; `frames_per_key` is the mean number of frames from one key frame to the next."""

    path: str
    codec: str
    width: int
    height: int
    fps: float
    num_frames: int
    frames_per_key: float

    @classmethod
    def of(cls, path: str | Path, index: VideoIndex) -> "MeasuredVideo":
        """Return the properties of a video by its index."""
        per_key = len(index) / len(index.keys)
        return cls(str(path), index.codec, index.width, index.height, index.fps, len(index), per_key)


@dataclass(frozen=True)
class ReadingReport:
    """Times of reading clips of `frames` frames, `stride` frames apart: means over videos.

    Attributes:
        unreadable: why other videos were not read, by path.
        decoded: mean number of frames that are decoded for a clip.
        spanned: mean number of frames from the key frame before a clip to its last frame.
        settings_ms: CPU milliseconds per clip with a setting that takes more than one clip from a decoding.
        clips_per_second: of wall time in whole batches, by number of worker processes.
    """

    machine: str
    videos: tuple[MeasuredVideo, ...]
    unreadable: dict[str, str]
    frames: int
    stride: int
    size: int
    decoded: float
    spanned: float
    stages: StageTimes
    settings_ms: dict[str, float]
    clips_per_second: dict[int, float]

    def json(self) -> str:
        """Return all numbers and the advice as a JSON object."""
        return json.dumps(asdict(self) | {"advice": self.advice()}, indent=2)

    def text(self) -> str:
        """Return a table of the times, and the advice."""
        stages, total = self.stages, self.stages.clip
        times = {
            "open and index": stages.open,
            "seek and read packets": stages.read,
            "decode": stages.decode,
            "crop, scale and convert": stages.convert,
            "one clip": total,
            **{f"one clip, {setting}": ms for setting, ms in self.settings_ms.items()},
            "augment to pre-train": stages.augment,
            "augment to fine-tune": stages.finetune,
            "collate": stages.collate,
        }
        width = max(map(len, times))
        return "\n".join(
            [
                self._describe_videos(),
                f"clips of {self.frames} frames, stride {self.stride}, {self.size} x {self.size}, each across"
                f" {self.spanned:.0f} frames, of which {self.decoded:.0f} are decoded",
                f"{self.machine}; one process with one thread",
                "",
                f"| {'stage':{width}} | CPU ms |",
                f"| {'-' * width} | -----: |",
                *(f"| {stage:{width}} | {ms:6.1f} |" for stage, ms in times.items()),
                "",
                f"{1000 / total:.1f} clips per second and core; decoding is {stages.decode / total:.0%}",
                *(
                    f"whole batches with {workers} workers: {rate:.1f} clips per second"
                    for workers, rate in self.clips_per_second.items()
                ),
                *(f"advice: {advice}" for advice in self.advice()),
            ]
        )

    @property
    def frames_per_key(self) -> float:
        """The mean number of frames from one key frame to the next."""
        return mean(video.frames_per_key for video in self.videos)

    def _describe_videos(self) -> str:
        videos = self.videos
        codecs = Counter(video.codec for video in videos)
        rates = [f"{fps:.3g}" for fps in sorted({video.fps for video in videos})]
        sizes = sorted({(video.width, video.height) for video in videos}, key=prod)
        return ", ".join(
            [
                f"{plural(len(videos), 'video')}: "
                + " and ".join(f"{count} {codec}" for codec, count in codecs.most_common()),
                _span([f"{width} x {height}" for width, height in sizes]),
                _span(rates) + " frames per second",
                _span(sorted({video.num_frames for video in videos})) + " frames",
                f"{self.frames_per_key:.0f} frames per key frame",
            ]
        )

    def advice(self) -> list[str]:
        """Return what to change: what cannot be read, and then for faster reading, the most useful first."""
        found = []
        num_videos, total, decode = len(self.videos), self.stages.clip, self.stages.decode
        if self.unreadable:
            path, reason = next(iter(self.unreadable.items()))
            found.append(
                f"{len(self.unreadable)} of {num_videos + len(self.unreadable)} videos cannot be read, such"
                f" as {path} ({reason}); `tubelet prepare` writes lists without them"
            )
        span = self.frames * self.stride
        if short := sum(video.num_frames < span for video in self.videos):
            found.append(
                f"{short} of {num_videos} videos have fewer than the {span} frames of a clip, so that its"
                " last frames are the same: a smaller data.clip.stride, or data.clip.kind=segment, suits them"
            )
        if self.decoded > 3.5 * self.frames and self.frames_per_key > 32 and decode > total / 2:
            found.append(
                f"{decode / total:.0%} of the time is decoding, of {self.decoded:.0f} frames per clip: with a"
                " key frame every 16 frames reading is about 3 times as fast; `tubelet prepare ... --encode`"
                " writes such videos"
            )
        large = [video for video in self.videos if min(video.height, video.width) > _MIN_SHORT_SIDE_TO_SCALE]
        if large:
            video = max(large, key=lambda video: video.width * video.height)
            found.append(
                f"frames of {len(large)} of {num_videos} videos are large, up to {video.width} x"
                f" {video.height}: a short side of 256 is enough for clips of 224"
            )
        for setting, ms in self.settings_ms.items():
            if setting.endswith("=4") and ms < 0.75 * total:
                found.append(f"{setting} takes {ms:.0f} ms per clip instead of {total:.0f}")
        if self.stages.finetune > total:
            found.append(
                f"RandAugment takes more time than reading ({self.stages.finetune:.0f} ms):"
                " data.augment.randaugment.cropped=true applies it to the crop only"
            )
        cores = available_cores()
        if self.clips_per_second and max(self.clips_per_second) < cores:
            found.append(f"data.workers={cores} may be faster: there are {cores} cores")
        return found


def _span(values: Sequence[object]) -> str:
    """Return the first and the last of sorted values, which may be one."""
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
