"""The record of one listed video on its way to the manifest."""

from dataclasses import dataclass
from enum import Enum, auto

from tubelet.data.manifest import Sample
from tubelet.prepare.check import CheckResult
from tubelet.prepare.encode import EncodeResult
from tubelet.prepare.plan import ListedVideo, VideoProperties
from tubelet.prepare.stamps import Stamp


class Outcome(Enum):
    """The result for one listed video."""

    PENDING = auto()
    LISTED = auto()
    REPEATED = auto()  # an earlier line has the same video in the same split and class
    MISSING = auto()  # the list has a file that does not exist
    BROKEN = auto()  # it cannot be fetched, read or encoded
    SIZE_CHANGES = auto()  # its frames' size changes, and it is not encoded
    PART_OF_FOLDER = auto()  # it is a part of an image folder, and it is not encoded


REASONS = {
    Outcome.SIZE_CHANGES: "its frames' size changes; --encode makes a video of one size",
    Outcome.PART_OF_FOLDER: "a part of an image folder; --encode makes a video of it",
}


@dataclass
class VideoRecord:
    """A listed video and what the steps of the preparation find.

    Attributes:
        listed: the video as the source has it.
        split: None until it is drawn.
        outcome: PENDING until a step decides.
        error: why it is BROKEN.
        stamp: the file's size and version.
        checked: the result of the check.
        encoded: the result of encoding it.
        segment_frames: the number of frames, if it is a segment.
        segment_note: what is unusual about the segment.
        path: its path in the manifest.
    """

    listed: ListedVideo
    split: str | None
    outcome: Outcome = Outcome.PENDING
    error: str = ""
    stamp: Stamp | None = None
    checked: CheckResult | None = None
    encoded: EncodeResult | None = None
    segment_frames: int = 0
    segment_note: str = ""
    path: str = ""

    def fail(self, error: str) -> None:
        """Record that it cannot be used."""
        self.outcome, self.error = Outcome.BROKEN, error

    @property
    def content(self) -> str:
        """The same text for videos of the same content; empty if it was not checked."""
        return self.checked.content if self.checked else ""

    @property
    def clip(self) -> tuple[object, ...]:
        """The same for videos of the same content and, in segments and image folders, of the same part."""
        listed = self.listed
        frames = listed.frames if listed.offset is not None else None
        return self.content, listed.offset, frames, listed.start, listed.end

    @property
    def reason(self) -> str:
        """Why it is left out."""
        return self.error or REASONS.get(self.outcome, "")

    @property
    def note(self) -> str:
        """What is unusual about it although it is in the manifest."""
        if self.encoded and self.encoded.note:
            return self.encoded.note
        if self.segment_note:
            return self.segment_note
        if self.checked is None:
            return ""
        images, listed = self.checked.frames, self.listed.frames
        if self.checked.fps or not listed or listed < 0:
            return self.checked.note
        if listed > images or (self.listed.offset is None and listed < images):
            used = "; all are used" if listed < images else ""
            return f"the list says {listed} images, the folder has {images}{used}"
        return self.checked.note

    def sample(self, *, multi_label: bool) -> Sample:
        """Return its line in the manifest."""
        found: VideoProperties | None = self.encoded or self.checked
        assert found is not None
        labels = self.listed.labels
        segment = self.listed if self.listed.is_segment and not self.encoded else None  # a copy is cut
        return Sample(
            self.path,
            label=labels[0] if labels and not multi_label else None,
            frames=self.segment_frames if segment else found.frames,
            fps=found.fps or None,
            width=found.width,
            height=found.height,
            codec=found.codec,
            labels=labels if multi_label else (),
            start=segment.start if segment else None,
            end=segment.end if segment else None,
        )
