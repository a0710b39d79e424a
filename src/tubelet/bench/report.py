"""What a measurement of reading says: tables for people, JSON for programs, and what to change."""

import json
from dataclasses import asdict, dataclass, field

from tubelet.machine import available_cores


@dataclass(frozen=True)
class Row:
    """One loader.

    Attributes:
        name: of the loader.
        ms: CPU time of one view.
        ratio: that by the time of tubelet's one view.
        repeats: clips of a video, at times of their own, that come from one decode.
        crops: of each of these clips.
    """

    name: str
    ms: float
    ratio: float
    repeats: int = 1
    crops: int = 1


@dataclass(frozen=True)
class Stages:
    """Where the time of a clip goes, in CPU milliseconds.

    Attributes:
        open: opening the file and learning what is in it.
        read: going to the right key frame and reading packets.
        decode: libavcodec alone, on the packets that it is sent: the floor.
        convert: cropping, scaling and converting.
        augment: VideoMAE's changes to a clip to pre-train on, beyond its crop.
        finetune: VideoMAE's changes to a clip to fine-tune on: RandAugment, crop, erasing.
        collate: making one clip a part of a batch of eight.
    """

    open: float
    read: float
    decode: float
    convert: float
    augment: float
    finetune: float
    collate: float


@dataclass
class Part:
    """What was measured on one set of files.

    Attributes:
        name: of the set.
        files: how many were read.
        codec: FFmpeg's name of the first one's.
        width: of its frames in pixels.
        height: likewise.
        fps: its frames a second.
        length: its frames.
        frames: of a clip.
        stride: frames of the video from one of the clip to the next.
        kilobytes: of a file.
        group: frames to a key frame.
        decoded: frames that are decoded for a clip.
        spanned: frames from the key frame before a clip to its last.
        stages: where the time goes.
        rows: the loaders, the fastest first.
        batches: clips a second of wall time from the whole loader, by its worker processes.
        hints: what to change.
    """

    name: str
    files: int
    codec: str
    width: int
    height: int
    fps: float
    length: int
    frames: int
    stride: int
    kilobytes: float
    group: float
    decoded: float
    spanned: float
    stages: Stages
    rows: list[Row]
    batches: dict[int, float] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)

    @property
    def ms(self) -> float:
        """CPU time of a clip until it is cropped, scaled and RGB, as all loaders are compared."""
        return self.stages.open + self.stages.read + self.stages.decode + self.stages.convert


@dataclass
class Report:
    """The whole measurement; `text` prints it, `json` is for programs."""

    machine: str
    job: str
    parts: list[Part]
    missing: dict[str, str]

    def json(self) -> str:
        """Everything as a JSON object."""
        return json.dumps(asdict(self), indent=2)

    def text(self) -> str:
        """Tables that also read as Markdown."""
        lines = [f"{self.machine}; {self.job}; CPU milliseconds a clip, one process with one thread", ""]
        for part in self.parts:
            lines += _describe(part)
        for name, reason in self.missing.items():
            lines.append(f"not measured: {name} ({reason})")
        return "\n".join(lines)


def _describe(part: Part) -> list[str]:
    width = max(len(row.name) for row in part.rows)
    stages = part.stages
    lines = [
        f"## {part.name}",
        f"{part.files} files: {part.codec} {part.width} x {part.height}, {part.fps:.3g} frames a second,"
        f" {part.length} frames, stride {part.stride}, {part.group:.0f} frames to a key frame,"
        f" {part.kilobytes:.0f} kB",
        f"{1e3 / part.ms:.1f} clips a second and core; a clip spans {part.spanned:.0f} frames,"
        f" of which {part.decoded:.0f} are decoded ({part.decoded / part.spanned:.2f})",
        f"{part.ms:.1f} ms: open {stages.open:.1f}, seek and read {stages.read:.1f}, decode"
        f" {stages.decode:.1f}, crop, scale and convert {stages.convert:.1f};"
        f" decoding alone, the floor, is {stages.decode / part.ms:.0%}",
        f"beyond that: augment {stages.augment:.1f} (to fine-tune, with RandAugment: {stages.finetune:.1f}),"
        f" collate {stages.collate:.1f}",
        *(
            f"whole batches with {workers} workers: {rate:.1f} clips a second"
            for workers, rate in part.batches.items()
        ),
        "",
        f"| {'loader':{width}} | CPU ms a view | x tubelet's time |",
        f"| {'-' * width} | ------------: | ---------------: |",
    ]
    lines += [f"| {row.name:{width}} | {row.ms:13.1f} | {row.ratio:16.2f} |" for row in part.rows]
    return [*lines, "", *(f"hint: {hint}" for hint in part.hints), *([""] if part.hints else [])]


def hints(part: Part, parts: list[Part]) -> list[str]:
    """What to change, the most useful first."""
    found = []
    total, decode = part.ms, part.stages.decode
    if part.decoded > 3.5 * part.frames and part.group > 32 and decode > total / 2:
        faster = [other for other in parts if other.name.startswith(part.name + ",")]
        gain = f"{total / faster[0].ms:.1f}" if faster else "about 3"
        found.append(
            f"{decode / total:.0%} of the time goes into decoding, {part.decoded:.0f} frames a clip:"
            f" with a key frame every 16 frames reading is {gain} times as fast; encode once with"
            " `tubelet prepare ... --encode`"
        )
    if min(part.height, part.width) > 1.3 * 256:
        found.append(
            f"frames are {part.width} x {part.height}: a short side of 256 is enough for crops of 224"
        )
    for row in part.rows:
        if row.repeats * row.crops == 4 and row.ms < 0.75 * total:
            if row.crops > 1:
                change = "data.augmented_copies=4 makes four copies of one clip"
            else:
                change = "data.repeats=4 makes four clips of one decode"
            found.append(f"{change}, at {row.ms:.0f} ms each instead of {total:.0f}")
    if part.stages.finetune > total:
        found.append(
            f"to fine-tune, RandAugment costs more than reading ({part.stages.finetune:.0f} ms):"
            " data.augment.randaugment.cropped=true applies it to the crop alone"
        )
    if part.batches and max(part.batches) < available_cores():
        found.append(f"there are {available_cores()} cores: data.workers={available_cores()} may be faster")
    return found
