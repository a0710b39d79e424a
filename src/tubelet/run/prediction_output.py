"""Predictions as text: a table, JSON lines, CSV. Each is written as soon as it is known."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len

from tubelet.data.manifest import seconds_text
from tubelet.errors import printable
from tubelet.run.prediction import Prediction
from tubelet.run.segments import merged, srt_entry

_MAX_WIDTH = 60  # of the column of the videos, in characters


class JsonLines:
    """One JSON object for each prediction, in ASCII: exact names, probabilities as numbers in [0, 1]."""

    header = ""

    def __init__(self, top: int) -> None:
        self._top = top

    def text(self, found: Prediction) -> str:
        """Return the line of a prediction."""
        top = [{"class": name, "probability": probability} for name, probability in found.top(self._top)]
        times = {} if found.start is None and found.end is None else {"start": found.start, "end": found.end}
        return json.dumps({"video": found.video, **times, "top": top}, allow_nan=False) + "\n"


class CsvRows:
    """A row for each of the best classes of a video."""

    header = "video,start,end,rank,class,probability\n"

    def __init__(self, top: int) -> None:
        self._top = top

    def text(self, found: Prediction) -> str:
        """Return the rows of a prediction."""
        file = io.StringIO()
        times = ["" if time is None else seconds_text(time) for time in (found.start, found.end)]
        csv.writer(file, lineterminator="\n").writerows(
            [printable(found.video), *times, rank, printable(name), f"{probability:.6f}"]
            for rank, (name, probability) in enumerate(found.top(self._top), start=1)
        )
        return file.getvalue()


class Table:
    """Aligned columns for people: video, time of a segment or window, probability, class.

    Args:
        top: number of classes.
        videos: the names that are known before, for the width of their column.
        times: whether there are segments or windows.
    """

    def __init__(self, top: int, videos: Sequence[str] = (), *, times: bool = False) -> None:
        self._top = top
        self._times = times
        widths = [cell_len(printable(video)) for video in videos] or [_MAX_WIDTH // 2]
        self._width = min(max(5, *widths), _MAX_WIDTH - 15 * times)
        self._last = ""  # video

    @property
    def header(self) -> str:
        """The names of the columns."""
        times = f"  {'time':13}" if self._times else ""
        return f"{'video':{self._width}}{times}  {'score':>6}  class\n"

    def text(self, found: Prediction) -> str:
        """Return the lines of a prediction; a name that is too long has a line for itself."""
        name, lines = printable(found.video), []
        if self._times and found.video == self._last:
            name = ""
        self._last = found.video
        if cell_len(name) > self._width:
            lines.append(name)
            name = ""
        times = f"  {_time_range(found):13}" if self._times else ""
        for class_name, probability in found.top(self._top):
            padding = " " * (self._width - cell_len(name))
            lines.append(f"{name}{padding}{times}  {probability:6.1%}  {printable(class_name)}")
            name, times = "", " " * len(times)
        return "".join(f"{line}\n" for line in lines)


def _time_range(found: Prediction) -> str:
    start, end = ("" if time is None else f"{time:.2f}" for time in (found.start, found.end))
    return f"{start}-{end} s" if start or end else ""


def subtitles(found: Iterable[Prediction]) -> Iterator[str]:
    """Yield the entries of an SRT file: neighboring windows with the same best class are one."""
    for number, segment in enumerate(merged(found), start=1):
        yield srt_entry(number, replace(segment, name=printable(segment.name)))


Output = JsonLines | CsvRows | Table
