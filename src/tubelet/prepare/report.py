"""The results of a preparation and their text: what is in the manifest, what is left out and why."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tubelet.data.manifest import SPLITS, Sample, seconds_text, segment_name
from tubelet.errors import excerpt, first_few, plural, printable
from tubelet.files import replacing
from tubelet.prepare.duplicates import groups_in_two_splits, in_two_classes, in_two_splits
from tubelet.prepare.plan import ListedVideo, PreparePlan
from tubelet.prepare.record import Outcome, VideoRecord

_SUMMARY_LINES = 5  # of each kind
_SUMMARY_LETTERS = 400  # of each line; report.txt has all
_MIN_TEST_VIDEOS = 20  # with fewer, one video is more than 5 % of an accuracy
_LEFT_OUT = (Outcome.BROKEN, Outcome.SIZE_CHANGES)


@dataclass(frozen=True)
class PrepareReport:
    """The results of a preparation.

    Attributes:
        plan: the source.
        videos: the records of all videos of the plan.
        copies: sizes in bytes, by path, of all encoded videos in OUT/videos.
    """

    plan: PreparePlan
    videos: Sequence[VideoRecord]
    copies: dict[str, int]

    @cached_property
    def listed(self) -> list[VideoRecord]:
        """The videos in the manifest."""
        return [video for video in self.videos if video.outcome is Outcome.LISTED]

    @cached_property
    def samples(self) -> dict[str, list[Sample]]:
        """The lines of the manifest, by split."""
        found: dict[str, list[Sample]] = {}
        for video in self.listed:
            found.setdefault(video.split or "", []).append(video.sample(multi_label=self.plan.multi_label))
        return found

    @property
    def has_labels(self) -> bool:
        """Whether a classifier can be trained on the list `train`: all of its videos have labels."""
        samples = self.samples.get("train", ())
        return bool(samples) and (self.plan.multi_label or all(sample.classes for sample in samples))

    @property
    def broken(self) -> list[tuple[str, str]]:
        """The videos that cannot be used, with the reasons."""
        return [(self._names[v.listed], v.reason) for v in self.videos if v.outcome in _LEFT_OUT]

    @property
    def parts(self) -> list[str]:
        """Parts of image folders, which only --encode can use."""
        return [self._names[v.listed] for v in self.videos if v.outcome is Outcome.PART_OF_FOLDER]

    @property
    def missing(self) -> list[str]:
        """Listed videos that are not found, with the list and the line."""
        return [*self.plan.missing, *self._with_lines(Outcome.MISSING)]

    @property
    def repeated(self) -> list[str]:
        """Videos that an earlier line lists in the same split and class, with the list and the line."""
        return self._with_lines(Outcome.REPEATED)

    def _with_lines(self, outcome: Outcome) -> list[str]:
        return [f"{v.listed.full_name} ({v.listed.where})" for v in self.videos if v.outcome is outcome]

    @property
    def unusual(self) -> dict[str, str]:
        """What is unusual about videos in the manifest, by their names."""
        return {self._names[video.listed]: video.note for video in self.listed if video.note}

    @cached_property
    def unlisted(self) -> dict[str, int]:
        """The encoded videos, of earlier runs, that are not in the manifest."""
        paths = {video.path for video in self.listed}
        return {path: size for path, size in self.copies.items() if path not in paths}

    @cached_property
    def duplicates(self) -> list[list[str]]:
        """Groups of files of the same content, by their names."""
        groups: dict[str, dict[str, str]] = {}
        for video in self.videos:
            if video.content and video.outcome in (Outcome.LISTED, Outcome.PART_OF_FOLDER):
                groups.setdefault(video.content, {}).setdefault(video.listed.path, video.listed.name)
        return [list(names.values()) for names in groups.values() if len(names) > 1]

    @property
    def in_two_splits(self) -> dict[str, str]:
        """Splits, by the names of videos of which the same content is in more than one of them."""
        return in_two_splits(self.listed, val_is_test=self.plan.val_is_test)

    @property
    def groups_in_two_splits(self) -> dict[str, str]:
        """Splits, by the groups of which videos are in more than one of them."""
        return groups_in_two_splits(self.listed, val_is_test=self.plan.val_is_test)

    @property
    def in_two_classes(self) -> list[str]:
        """Names and classes of videos of which the same content is in more than one of them."""
        return in_two_classes(self.listed, self.plan.classes)

    @cached_property
    def _names(self) -> dict[ListedVideo, str]:
        """The name of each line: its video and images, and the line if other lines have the same name."""
        found = (video.listed for video in self.videos if video.outcome is not Outcome.MISSING)
        distinct = {listed: _part_name(listed) for listed in found}
        counts = Counter(distinct.values())
        return {
            listed: f"{name} ({listed.where})"
            if listed.where and (counts[name] > 1 or listed.is_segment)
            else name
            for listed, name in distinct.items()
        }

    def summary(self) -> str:
        """Return the numbers, and the first videos of each list of the report."""
        return "\n".join(printable(excerpt(line, _SUMMARY_LETTERS)) for line in self._lines(_SUMMARY_LINES))

    def text(self) -> str:
        """Return the whole report, one video a line."""
        return "".join(f"{printable(line)}\n" for line in [self.plan.kind, *self._lines(None)])

    def write(self, path: Path) -> None:
        """Write the whole report to a text file."""
        with replacing(path) as temporary:
            temporary.write_text(self.text(), encoding="utf-8")

    def _lines(self, limit: int | None) -> Iterable[str]:
        plan = self.plan
        for split in SPLITS:
            if samples := self.samples.get(split):
                yield f"{split:5} {plural(len(samples), 'video'):>14}  {_duration(samples)}".rstrip()
        if plan.classes:
            yield self._classes()
        yield from _listing("broken, left out", [f"{name}: {why}" for name, why in self.broken], limit)
        parts = "parts of image folders, left out; --encode makes videos of them"
        yield from _listing(parts, self.parts, limit)
        yield from _listing("listed but not found", self.missing, limit)
        yield from _listing("listed twice", self.repeated, limit)
        unusual = [f"{name}: {note}" for name, note in self.unusual.items()]
        yield from _listing("unusual, but in the manifest", unusual, limit)
        same = [first_few(names, limit or len(names), " = ") for names in self.duplicates]
        yield from _listing("the same content", same, limit)
        yield from _listing("the same content in different classes", self.in_two_classes, limit)
        splits = [f"{names}: {splits}" for names, splits in self.in_two_splits.items()]
        yield from _listing("the same content in different splits", splits, limit)
        groups = [f"{name}: {splits}" for name, splits in self.groups_in_two_splits.items()]
        yield from _listing("groups in different splits", groups, limit)
        if plan.classes:
            no_label = [
                segment_name(video.path, video.listed.start, video.listed.end)
                for video in self.listed
                if not video.listed.labels
            ]
            yield from _listing(
                "in none of the classes" if plan.multi_label else "without a label", no_label, limit
            )
        yield from _listing("in no class folder, left out", plan.left_out, limit)
        yield from _listing("not videos, ignored", plan.ignored, limit)
        if self.unlisted:
            size_mb = sum(self.unlisted.values()) / 1e6
            count, example = plural(len(self.unlisted), "copy", "copies"), next(iter(self.unlisted))
            yield f"written earlier and in no list now: {count}, {size_mb:.1f} MB, such as {example}"
        if plan.classes and self.samples and "val" not in self.samples:
            yield "note: no videos for validation; fine-tune with data.val=null, or list some videos as val"
        for note in (*plan.notes, *self._notes()):
            yield f"note: {note}"

    def _notes(self) -> Iterable[str]:
        num_copies = len(self.listed) - len({video.clip for video in self.listed})
        if self.plan.draw and num_copies:
            copies = plural(num_copies, "copy is", "copies are")
            yield f"{copies} in the split of the video with the same content"
        for split in ("val", "test"):
            count = len(self.samples.get(split, ()))
            if self.plan.classes and 0 < count < _MIN_TEST_VIDEOS:
                small = self.plan.draw and getattr(self.plan.draw, split) < 0.3
                advice = f"; --{split} 0.3 holds out more" if small else ""
                yield f"{split} has {plural(count, 'video')}: one video is {100 / count:.0f} %{advice}"

    def _classes(self) -> str:
        counts = Counter(label for sample in self.samples.get("train", ()) for label in sample.classes)
        text = f"{plural(len(self.plan.classes), 'class', 'classes')}"
        if not counts:
            return text
        fewest, most = min(counts.values()), max(counts.values())
        videos = plural(most, "video") if fewest == most else f"{fewest} to {most} videos"
        text += f", {videos} for training in each"
        if absent := [name for k, name in enumerate(self.plan.classes) if not counts[k]]:
            text += f" that has any; none in {len(absent)} of them, such as {absent[0]}"
        return text


def _part_name(listed: ListedVideo) -> str:
    if listed.is_segment:
        end = "its end" if listed.end is None else f"{seconds_text(listed.end)} s"
        return f"{listed.name}, {seconds_text(listed.start or 0.0)} s to {end}"
    if listed.part is None:
        return listed.name
    first, count = listed.part
    return f"{listed.name}, images {first} to {first + count - 1}"


def _listing(what: str, lines: Sequence[str], limit: int | None) -> Iterable[str]:
    if lines:
        yield f"{what}: {len(lines)}"
        yield from (f"  {line}" for line in lines[:limit])
        if limit is not None and len(lines) > limit:
            yield f"  and {len(lines) - limit} more in report.txt"


def _duration(samples: Sequence[Sample]) -> str:
    seconds = sum((sample.frames or 0) / sample.fps for sample in samples if sample.fps)
    if not seconds:  # image folders
        return ""
    hours = seconds / 3600
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"
