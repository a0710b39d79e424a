"""The videos that a manifest should list, as annotations, lists or folders have it."""

from dataclasses import dataclass, field, replace
from typing import Self

from tubelet.errors import UserError
from tubelet.prepare.find_files import FoundFiles, match_rows
from tubelet.prepare.lists.annotations import VALIDATED_ON_TEST, Annotations
from tubelet.prepare.lists.row import Row
from tubelet.prepare.places import Stamp
from tubelet.video.index import VideoIndex


@dataclass(frozen=True)
class Item:
    """A video that should be listed.

    Attributes:
        path: the file or folder of pictures as `place` gives it: an absolute path or a URL.
        name: its path below the common folder, with forward slashes.
        split: "train", "val" or "test".
        labels: class numbers.
        offset: number of the first picture, in a folder of pictures.
        frames: how many pictures from `offset` on.
        where: the list and the line that name it; empty where none does.
        stamp: of the file, where it is known already.
    """

    path: str
    name: str
    split: str
    labels: tuple[int, ...] = ()
    offset: int | None = None
    frames: int | None = None
    where: str = field(default="", compare=False)
    stamp: Stamp | None = field(default=None, compare=False)

    @classmethod
    def of(cls, row: Row, path: str, name: str, split: str, stamp: Stamp | None = None) -> "Item":
        """The video of a list's row."""
        labels = tuple(label for label in row.labels if isinstance(label, int))
        return cls(path, name, split, labels, row.offset, row.frames, row.where, stamp)


@dataclass(frozen=True)
class Plan:
    """All that should be listed.

    Attributes:
        kind: what the source was found to be, in words.
        items: the videos.
        classes: the class names.
        several: whether a video may have several classes.
        drawn: the seed that the splits are drawn with; None where they are given.
        val_is_test: whether the same videos are to be validated and tested on.
        missing: what is listed and not there, with the list and the line.
        left_out: videos that are not to be listed.
        ignored: files that are no videos.
        notes: what should be known of it.
        origin: the words of the command that the data set is made by; a folder holds that of one origin.
    """

    kind: str
    items: tuple[Item, ...]
    classes: tuple[str, ...] = ()
    multi_label: bool = False
    drawn: int | None = None
    val_is_test: bool = False
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()


def plan_annotations(annotations: Annotations, files: FoundFiles) -> Plan:
    """The videos of annotation files, found by their names wherever they lie below a folder.

    Raises:
        UserError: none of them lies there, or several files fit one equally well.
    """
    found, missing = match_rows(annotations.rows, files, annotations.classes)
    if not found:
        raise UserError(
            f"none of the {len(missing)} videos in {annotations.kind} lie below {files.root}, such as "
            f"{missing[0].name}; say with --root where they are"
        )
    items = [
        Item.of(row, files.place(path), path, row.split or "train", files.stamps.get(path))
        for row, path in ((annotations.rows[place], path) for place, path in found.items())
    ]
    return Plan(
        annotations.kind,
        tuple(items),
        annotations.classes,
        val_is_test=VALIDATED_ON_TEST in annotations.notes,
        missing=tuple(named(row) for row in missing),
        notes=annotations.notes,
    )


def named(video: Row | Item, part: str = "") -> str:
    """A video, or a part of it, as its list names it, and the line."""
    return f"{video.name}{part} ({video.where})"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the lists say of a video, or why it is not in them.

    Attributes:
        frames: how many can be decoded.
        fps: frames per second; 0 for a folder of pictures.
        width: in pixels, as shown.
        height: in pixels, as shown.
        codec: FFmpeg's name of it; the ending of the files in a folder of pictures.
        error: why it cannot be used, or the empty string.
        note: what is odd about it, or lost of it, though it can be used.
    """

    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    error: str = ""
    note: str = ""

    def with_index(self, index: VideoIndex) -> Self:
        """The same, and what an index tells."""
        return replace(
            self,
            frames=len(index),
            fps=round(index.fps, 4),
            width=index.width,
            height=index.height,
            codec=index.codec,
        )
