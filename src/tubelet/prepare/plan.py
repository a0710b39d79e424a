"""The videos that a manifest should list."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from tubelet.data.manifest import segment_name
from tubelet.errors import UserError
from tubelet.prepare.lists.row import Row, is_cut_to
from tubelet.prepare.stamps import Stamp
from tubelet.video.index import VideoIndex


@dataclass(frozen=True)
class ListedVideo:
    """A video, or a segment of one, that the manifest should list.

    Attributes:
        path: the file or image folder: an absolute path or a URL.
        name: its path relative to the common folder, with forward slashes.
        split: "train", "val" or "test"; None if it is to be drawn.
        labels: class numbers.
        offset: number of the first image, in an image folder.
        frames: number of images from `offset` on.
        start: seconds at which the segment begins; None for the start of the video.
        end: seconds at which it ends; None for the end of the video.
        may_be_cut: the file may be that segment already: it is if the video is not longer, or ends before it.
        group: what must not be in two splits, such as the subject; empty if it is not specified.
        where: the list and the line that name it; empty if no list does.
        stamp: the file's stamp, if it is known already.
    """

    path: str
    name: str
    split: str | None
    labels: tuple[int, ...] = ()
    offset: int | None = None
    frames: int | None = None
    start: float | None = None
    end: float | None = None
    may_be_cut: bool = False
    group: str = field(default="", compare=False)
    where: str = field(default="", compare=False)
    stamp: Stamp | None = field(default=None, compare=False)

    @classmethod
    def of(cls, row: Row, path: str, name: str, stamp: Stamp | None = None) -> Self:
        """Return the video of a list's row, whose labels are numbers."""
        is_cut = is_cut_to(name, row)
        return cls(
            path,
            name,
            row.split,
            tuple(label for label in row.labels if isinstance(label, int)),
            row.offset,
            row.frames,
            None if is_cut else row.start,
            None if is_cut else row.end,
            row.may_be_cut,
            row.group,
            row.where,
            stamp,
        )

    @property
    def full_name(self) -> str:
        """Its name, with the times of a segment."""
        return segment_name(self.name, self.start, self.end)

    @property
    def is_segment(self) -> bool:
        """Whether it is a segment of the video in seconds."""
        return self.start is not None or self.end is not None

    @property
    def part(self) -> tuple[int, int] | None:
        """The first image and the number of images, if it is a part of an image folder."""
        if self.offset is None or self.frames is None or not Path(self.path).is_dir():
            return None
        return self.offset, self.frames


@dataclass(frozen=True, kw_only=True)
class SplitDraw:
    """How splits are drawn where the source does not specify them.

    Attributes:
        seed: of the draw.
        val: share of each class for validation, in [0, 1).
        test: share of each class for testing, in [0, 1); less than 1 with `val`.

    Raises:
        UserError: a share is outside that range.
    """

    seed: int = 0
    val: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        for name, share in (
            ("val", self.val),
            ("test", self.test),
            ("val plus --test", self.val + self.test),
        ):
            if not 0 <= share < 1:
                raise UserError(f"--{name} must be at least 0 and less than 1, found {share:g}")

    def require_default_shares(self, given: str) -> None:
        """Raise a UserError if shares are chosen although `given` specifies the splits."""
        if (self.val, self.test) != (SplitDraw.val, SplitDraw.test):
            raise UserError(f"{given} specifies the splits: remove --val and --test")

    def __str__(self) -> str:
        return (
            f"{100 * self.val:g} % of each class are for validation and {100 * self.test:g} % for testing, "
            f"drawn with --split-seed {self.seed}"
        )


@dataclass(frozen=True)
class PreparePlan:
    """All videos that a manifest should list, and the rest of the source.

    Attributes:
        kind: the kind of source, in a few words.
        videos: the videos.
        classes: the class names.
        multi_label: a video may have more than one class.
        draw: how the splits are drawn; None if they are given.
        val_is_test: the same videos are in both splits on purpose.
        missing: the names of listed videos that are not found, with the list and the line.
        left_out: videos outside all class folders.
        ignored: files that are not videos.
        notes: remarks for the report.
        origin: the words of the command; a folder contains the data set of one command.
    """

    kind: str
    videos: tuple[ListedVideo, ...]
    classes: tuple[str, ...] = ()
    multi_label: bool = False
    draw: SplitDraw | None = None
    val_is_test: bool = False
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VideoProperties:
    """Properties of a video, from checking or encoding it.

    Attributes:
        frames: number of frames that can be decoded.
        fps: frames per second; 0 for an image folder.
        width: in pixels, as shown.
        height: in pixels, as shown.
        codec: FFmpeg's name of it; for an image folder the suffix of its files.
        error: why it cannot be used; empty if it can.
        note: what is unusual about it, or lost in encoding it.
    """

    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    error: str = ""
    note: str = ""

    def with_index(self, index: VideoIndex) -> Self:
        """Return the same with the properties that an index contains."""
        return replace(
            self,
            frames=len(index),
            fps=round(index.fps, 4),
            width=index.width,
            height=index.height,
            codec=index.codec,
        )
