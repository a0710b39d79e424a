"""Predictions of the windows of a video: smoothed, and merged into segments."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise, repeat

import numpy as np

from tubelet.run.prediction import Prediction
from tubelet.video.reader import VideoError


@dataclass(frozen=True)
class Segment:
    """A part of a video with one class.

    Attributes:
        start: in seconds.
        end: in seconds, exclusive.
        name: of the class.
        probability: the mean over its windows.
    """

    start: float
    end: float
    name: str
    probability: float


def smoothed(found: Iterable[Prediction], num_windows: int) -> Iterator[Prediction]:
    """Yield predictions averaged over `num_windows` windows around each, fewer at the ends of the video.

    Of an even number, one more of them is before than after. Where the video cannot be read further, it ends
    for the windows that were read, and then the VideoError is raised.
    """
    num_before, num_after = num_windows // 2, (num_windows - 1) // 2
    near: deque[Prediction | None] = deque([None] * num_windows, maxlen=num_windows)
    readable = _Readable(found)
    for prediction in chain(readable, repeat(None, num_after)):
        near.append(prediction)
        if center := near[num_before]:
            mean = np.mean([each.probabilities for each in near if each], axis=0)
            yield replace(center, probabilities=mean)
    readable.raise_failure()


def merged(found: Iterable[Prediction]) -> Iterator[Segment]:
    """Yield segments of neighboring windows with the same best class.

    Where two windows overlap, the first counts until the middle of the overlap. A gap between two windows is
    in no segment. Where the video cannot be read further, as for `smoothed`.
    """
    start, segments = None, list[Segment]()  # of one class, that touch each other
    readable = _Readable(found)
    for window, following in pairwise(chain(readable, [None])):
        assert window
        assert window.start is not None
        assert window.end is not None
        begin = window.start if start is None else start
        end, start = _border(window.end, following)
        ((name, probability),) = window.top(1)
        if segments and (segments[-1].name, segments[-1].end) != (name, begin):
            yield _joined(segments)
            segments = []
        segments.append(Segment(begin, end, name, probability))
    if segments:
        yield _joined(segments)
    readable.raise_failure()


class _Readable:
    """The windows of a video up to the first that cannot be read."""

    def __init__(self, found: Iterable[Prediction]) -> None:
        self._found = found
        self._failure: VideoError | None = None

    def __iter__(self) -> Iterator[Prediction]:
        try:
            yield from self._found
        except VideoError as error:
            self._failure = error

    def raise_failure(self) -> None:
        """Raise why the rest cannot be read, if there is a rest."""
        if self._failure:
            raise self._failure


def _border(end: float, following: Prediction | None) -> tuple[float, float | None]:
    """Return where a window stops to count, and where the next one begins to."""
    if following is None or following.start is None or following.start > end:
        return end, None
    middle = (end + following.start) / 2
    return middle, middle


def _joined(segments: list[Segment]) -> Segment:
    mean = sum(each.probability for each in segments) / len(segments)
    return Segment(segments[0].start, segments[-1].end, segments[0].name, mean)


def srt_entry(number: int, segment: Segment) -> str:
    """Return a segment as entry `number` of an SRT file, with its class and probability on one line."""
    times = f"{_srt_time(segment.start)} --> {_srt_time(segment.end)}"
    return f"{number}\n{times}\n{segment.name} {segment.probability:.0%}\n\n"


def _srt_time(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d},{milliseconds % 1000:03d}"
