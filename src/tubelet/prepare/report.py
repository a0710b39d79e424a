"""What came of preparing a data set, in words."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tubelet.data.manifest import SPLITS, Sample
from tubelet.errors import plural
from tubelet.files import replacing
from tubelet.prepare.plan import Plan


@dataclass(frozen=True)
class Report:
    """What was listed, what was left out and what is odd.

    Attributes:
        plan: what should have been listed.
        samples: the videos in the manifest, by split.
        missing: what is listed and not there, with the list and the line.
        twice: what earlier lines list already, in the same split and class, with the list and the line.
        broken: what is left out and why, line by line.
        parts: parts of folders of pictures, which are left out where nothing is encoded.
        odd: what is odd about files that are listed, by their names.
        duplicates: groups of names of files that hold the same.
        across: names of files of which the same content is in several splits, with those splits.
        differently: files of which the same content is in several classes, with those classes.
        unlisted: the sizes in bytes of copies in OUT/videos that no list names, by their paths.
    """

    plan: Plan
    samples: dict[str, Sequence[Sample]]
    missing: Sequence[str]
    twice: Sequence[str]
    broken: Sequence[tuple[str, str]]
    parts: Sequence[str]
    odd: dict[str, str]
    duplicates: Sequence[Sequence[str]]
    across: dict[str, str]
    differently: Sequence[str]
    unlisted: dict[str, int]

    def summary(self) -> str:
        """How much there is, with the first of each kind of trouble."""
        return "\n".join(map(_printable, self._lines(5)))

    def text(self) -> str:
        """Everything, one file a line."""
        return "".join(f"{_printable(line)}\n" for line in [self.plan.kind, *self._lines(None)])

    def _lines(self, most: int | None) -> Iterable[str]:
        plan = self.plan
        for split in SPLITS:
            if samples := self.samples.get(split):
                yield f"{split:5} {plural(len(samples), 'video'):>14}  {_duration(samples)}".rstrip()
        if plan.classes:
            yield self._classes()
        yield from _listing("broken, left out", [f"{name}: {why}" for name, why in self.broken], most)
        parts = "parts of folders of pictures, left out; --encode makes videos of them"
        yield from _listing(parts, self.parts, most)
        yield from _listing("listed but not there", self.missing, most)
        yield from _listing("listed twice", self.twice, most)
        yield from _listing("odd, but listed", [f"{name}: {why}" for name, why in self.odd.items()], most)
        yield from _listing("the same content", [_alike(names, most) for names in self.duplicates], most)
        yield from _listing("the same content in different classes", self.differently, most)
        across = [f"{name}: {splits}" for name, splits in self.across.items()]
        yield from _listing("in several splits at once", across, most)
        if plan.classes:
            samples = [sample for part in self.samples.values() for sample in part]
            bare = [sample.path for sample in samples if not sample.classes]
            none = "showing none of the classes" if plan.multi_label else "without a label"
            yield from _listing(none, bare, most)
        yield from _listing("in no class folder, left out", plan.left_out, most)
        yield from _listing("no videos, passed over", plan.ignored, most)
        if self.unlisted:
            size = sum(self.unlisted.values()) / 1e6
            count, example = plural(len(self.unlisted), "copy", "copies"), next(iter(self.unlisted))
            yield f"written earlier and named by no list now: {count}, {size:.1f} MB, such as {example}"
        if plan.classes and self.samples and "val" not in self.samples:
            yield "note: nothing to validate on; fine-tune with data.val=null, or list some videos as val"
        for note in plan.notes:
            yield f"note: {note}"

    def _classes(self) -> str:
        counts = Counter(label for sample in self.samples.get("train", ()) for label in sample.classes)
        text = f"{plural(len(self.plan.classes), 'class', 'classes')}"
        if counts:
            fewest, most = min(counts.values()), max(counts.values())
            videos = plural(most, "video") if fewest == most else f"{fewest} to {most} videos"
            text += f", {videos} to train on in each"
        absent = [name for k, name in enumerate(self.plan.classes) if not counts[k]]
        if absent and counts:
            text += f" that has any; none in {len(absent)} of them, such as {absent[0]}"
        return text


def _alike(names: Sequence[str], most: int | None) -> str:
    rest = 0 if most is None else len(names) - most
    return " = ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _printable(text: str) -> str:
    """The line with question marks for what file names hold that is no text, or would break it."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "?", text)


def _listing(what: str, lines: Sequence[str], most: int | None) -> Iterable[str]:
    if lines:
        yield f"{what}: {len(lines)}"
        yield from (f"  {line}" for line in lines[:most])
        if most is not None and len(lines) > most:
            yield f"  and {len(lines) - most} more in report.txt"


def _duration(samples: Sequence[Sample]) -> str:
    seconds = sum((sample.frames or 0) / sample.fps for sample in samples if sample.fps)
    if not seconds:  # folders of pictures
        return ""
    hours = seconds / 3600
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"


def write_report(report: Report, path: Path) -> None:
    """Write everything to a text file."""
    with replacing(path) as temporary:
        temporary.write_text(report.text(), encoding="utf-8")
