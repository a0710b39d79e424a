"""What a measurement of reading says: tables for people, JSON for programs, and what to change."""

import json
from dataclasses import asdict, dataclass, field

from tubelet.machine import available_cores


@dataclass(frozen=True)
class Row:
    """One loader: CPU time of one view, and how many times as fast tubelet reads a clip."""

    name: str
    ms: float
    tubelet_is: float


@dataclass
class Part:
    """What was measured on one set of files. Times are CPU milliseconds a clip."""

    name: str
    files: int
    about: str
    kilobytes: float
    group: float
    decoded: float
    spanned: float
    open_ms: float
    demux_ms: float
    decode_ms: float
    pixels_ms: float
    floor_ratio: float
    clips_per_core_second: float
    rows: list[Row]
    loader_clips_per_second: dict[int, float] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)


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
    share = part.decoded / part.spanned
    lines = [
        f"## {part.name}",
        f"{part.files} files: {part.about}, {part.group:.0f} frames to a key frame, {part.kilobytes:.0f} kB",
        f"{part.clips_per_core_second:.1f} clips a second and core; a clip spans {part.spanned:.0f} frames,"
        f" of which {part.decoded:.0f} are decoded ({share:.2f})",
        f"open {part.open_ms:.1f}, demux {part.demux_ms:.1f}, decode {part.decode_ms:.1f},"
        f" crop, scale and convert {part.pixels_ms:.1f}; in all {part.floor_ratio:.2f} times the decoding",
        "",
        f"| {'loader':{width}} | CPU ms a view | tubelet's one view is |",
        f"| {'-' * width} | ------------: | --------------------: |",
    ]
    lines += [
        f"| {row.name:{width}} | {row.ms:13.1f} | {row.tubelet_is:11.2f} x as fast |" for row in part.rows
    ]
    lines.append("")
    for workers, rate in part.loader_clips_per_second.items():
        lines.append(f"batches with {workers} workers: {rate:.1f} clips a second")
    lines += [f"hint: {hint}" for hint in part.hints]
    return [*lines, ""]


def hints(part: Part, parts: list[Part]) -> list[str]:
    """What to change, the most useful first."""
    found = []
    total = 1e3 / part.clips_per_core_second
    if part.decoded > 3.5 * 16 and part.group > 32 and part.decode_ms > total / 2:
        faster = [other for other in parts if other.name.startswith(part.name + ",")]
        gain = f"{faster[0].clips_per_core_second / part.clips_per_core_second:.1f}" if faster else "about 2"
        found.append(
            f"{part.decode_ms / total:.0%} of the time goes into decoding, {part.decoded:.0f} frames a clip:"
            f" with a key frame every 16 frames reading is {gain} times as fast; encode once with"
            " `tubelet prepare ... --encode`"
        )
    height, width = (int(side) for side in reversed(part.about.split(",")[0].split(" ", 1)[1].split(" x ")))
    if min(height, width) > 1.3 * 256:
        found.append(f"frames are {width} x {height}: a short side of 256 is enough for crops of 224")
    best = max((row for row in part.rows if "views" in row.name), key=lambda row: -row.ms, default=None)
    if best and best.ms < 0.6 * total:
        found.append(
            f"data.repeats=4 makes four clips of one decode, at {best.ms:.0f} ms each instead of {total:.0f}"
        )
    rates = part.loader_clips_per_second
    if rates and max(rates) < available_cores():
        found.append(f"there are {available_cores()} cores: data.workers={available_cores()} may be faster")
    return found
