"""Measure the segments of a video: how many frames each has, or why it cannot be used."""

from dataclasses import dataclass

from tubelet.prepare.check import READ_LIMIT_S
from tubelet.prepare.plan import ListedVideo
from tubelet.prepare.pool import JobFailed
from tubelet.video.index import VideoIndex
from tubelet.video.reader import VideoError, no_frames_between, open_video
from tubelet.video.sources import FetchError

_CUT_TOLERANCE_S = 1.0  # by which a cut file may be longer than its segment: cuts are at key frames
_ROUNDING = 1e-3  # of a frame's length
_END_TOLERANCE_S = 1.0  # by which a segment may end after its video: annotated times are rounded
_NOTED_S = 0.1  # from which on that is noted

Span = tuple[float | None, float | None]
"""Start and end of a segment in seconds; None is the start or the end of the video."""


@dataclass(frozen=True)
class SegmentsJob:
    """The segments of one file, which has `num_frames` frames."""

    path: str
    spans: tuple[Span, ...]
    num_frames: int


@dataclass(frozen=True)
class Segments:
    """The result of measuring the segments of a file.

    Attributes:
        frames: the number of frames of each.
        errors: why each cannot be used; empty if it can.
        duration_s: of the whole video.
    """

    frames: tuple[int, ...]
    errors: tuple[str, ...]
    duration_s: float


def measure_segments(job: SegmentsJob) -> Segments | JobFailed:
    """Count the frames of each segment by the times of the video's frames."""
    try:
        for exact in (False, True):
            with open_video(job.path, exact=exact, limit=READ_LIMIT_S) as video:
                index = video.index
            if len(index) == job.num_frames:  # else the header was wrong
                break
    except FetchError as error:
        return JobFailed(str(error).removeprefix(f"{job.path}: "))
    except VideoError as error:
        reason = str(error).removeprefix(f"{job.path}: ")
        return Segments((0,) * len(job.spans), (reason,) * len(job.spans), 0.0)
    frames = tuple(len(index.frames_between(*span)) for span in job.spans)
    return Segments(frames, tuple(_why_unusable(index, *span) for span in job.spans), index.duration_s)


def _why_unusable(index: VideoIndex, start: float | None, end: float | None) -> str:
    """Return why a segment cannot be used; empty if it can."""
    first, last = start or 0.0, index.duration_s if end is None else end
    if first < 0:
        return f"the segment begins at {first:g} s, before the video"
    if last <= first and end is not None:
        return f"the segment ends at {last:g} s, not after its start at {first:g} s"
    if not index.frames_between(start, end):
        return no_frames_between(index, start, end)
    if last > index.duration_s + _END_TOLERANCE_S:
        return (
            f"the segment ends at {last:g} s, after the video, which lasts {index.duration_s:.2f} s; "
            "leave the end empty for the end of the video"
        )
    if index.fps and last - first < (1 - _ROUNDING) / index.fps:
        return f"the segment lasts {last - first:g} s, shorter than a frame of {1 / index.fps:.4g} s"
    return ""


def is_cut(listed: ListedVideo, duration_s: float) -> bool:
    """Return whether a file is the listed segment already: it may be, and has its length or not its times."""
    if not listed.may_be_cut or listed.end is None:
        return False
    length_s = listed.end - (listed.start or 0.0)
    return duration_s <= length_s + _CUT_TOLERANCE_S or listed.end > duration_s + _END_TOLERANCE_S


def end_note(listed: ListedVideo, duration_s: float) -> str:
    """Return a remark on a segment that ends after its video."""
    if listed.end is None or listed.end <= duration_s + _NOTED_S:
        return ""
    return f"the segment ends at {listed.end:g} s, the video at {duration_s:.2f} s"
