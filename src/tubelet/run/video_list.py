"""The videos that words of a command line name, with the labels and segments of data sets."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tubelet.data.manifest import SPLITS, Manifest, Sample, read_manifest
from tubelet.data.windows import SlidingWindows
from tubelet.errors import UserError
from tubelet.run.video_files import find_videos
from tubelet.video.reader import VideoError, open_video


@dataclass(frozen=True)
class VideoList:
    """The videos to embed.

    Attributes:
        manifest: the videos, or the windows of them.
        splits: the list that each is from; empty if it is not from one.
        windows: their length and distance; None for whole videos.
    """

    manifest: Manifest
    splits: Sequence[str]
    windows: SlidingWindows | None = None

    def cut(self, windows: SlidingWindows) -> "VideoList":
        """Return the windows of each video; one that cannot be opened stays, and is reported when read."""
        parts = [
            (window, split)
            for sample, split in zip(self.manifest.samples, self.splits, strict=True)
            for window in _windows_of(self.manifest, sample, windows)
        ]
        samples = tuple(window for window, _ in parts)
        splits = [split for _, split in parts]
        return VideoList(replace(self.manifest, samples=samples), splits, windows)


def _windows_of(manifest: Manifest, sample: Sample, windows: SlidingWindows) -> Iterator[Sample]:
    first, found = sample.start or 0.0, [(0.0, windows.length)]  # reading reports what is wrong with it
    with (
        suppress(VideoError),
        open_video(manifest.locate(sample), start=sample.start, end=sample.end) as video,
    ):
        found = [(window.start_s, window.end_s) for window in windows.of(video.index)] or found
    for start, end in found:
        yield replace(sample, start=round(first + start, 6), end=round(first + end, 6), frames=None)


def list_videos(sources: Sequence[str], split: str | None = None) -> VideoList:
    """Return the videos that are named: files, folders, patterns and URLs, and folders of data sets.

    A folder with train.csv, val.csv or test.csv is a data set, whose lists give names, labels and segments.

    Args:
        sources: what the user typed.
        split: the only list to take of data sets; None is all of them.

    Raises:
        UserError: there are no videos, a list cannot be read, or data sets have different classes.
    """
    parts = [part for source in sources for part in _parts_of(source, split)]
    labeled = [part for part in parts if part.classes]
    if len({part.classes for part in labeled}) > 1:
        raise UserError(
            f"{labeled[0].root} and {labeled[-1].root} have different classes.txt: embed them into two files"
        )
    classes = labeled[0].classes if labeled else ()
    splits = [part.split for part in parts for _ in part.samples]
    if len({part.root for part in parts}) == 1:
        samples = tuple(sample for part in parts for sample in part.samples)
        return VideoList(Manifest(parts[0].root, "", samples, classes), splits)
    samples = tuple(replace(s, path=str(part.locate(s))) for part in parts for s in part.samples)
    return VideoList(Manifest(Path(), "", samples, classes), splits)


def _parts_of(source: str, split: str | None) -> list[Manifest]:
    if split is not None:
        return [read_manifest(source, split)]
    lists = [name for name in SPLITS if (Path(source) / f"{name}.csv").is_file()]
    if lists:
        return [read_manifest(source, name) for name in lists]
    return [Manifest(Path(), "", tuple(find_videos([source])), ())]
