"""`tubelet predict`: the classes of videos."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tubelet.cli.options import Device, Hints, ModelSource, Precision, with_hints
from tubelet.cli.stopping import say_if_stopped
from tubelet.errors import UserError, plural, printable

if TYPE_CHECKING:
    from tubelet.data.manifest import Sample
    from tubelet.progress import Bar
    from tubelet.run.prediction import Prediction
    from tubelet.run.prediction_output import Output
    from tubelet.run.predictor import Predictor


@with_hints
def predict(
    model: ModelSource,
    videos: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEO",
            help="Videos, folders, patterns such as 'videos/*.mp4', lists (.txt, .csv), URLs, or - for "
            "paths from standard input; settings (`tubelet recipe help predict`) may follow as KEY=VALUE.",
        ),
    ],
    hints: Hints,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Number of classes to print.")] = 5,
    output: Annotated[
        Literal["table", "jsonl", "csv", "srt"],
        typer.Option(
            "--format",
            metavar="NAME",
            help="table, jsonl (a JSON object per line), csv, or srt (subtitles, with --window).",
        ),
    ] = "table",
    window: Annotated[
        str | None,
        typer.Option(metavar="LENGTH", help="Predict windows of each video: 2s, or 16f in frames."),
    ] = None,
    hop: Annotated[
        str | None,
        typer.Option(metavar="LENGTH", help="From window to window (default: half a window)."),
    ] = None,
    smooth: Annotated[int, typer.Option(min=1, metavar="N", help="Average N windows around each.")] = 1,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Print the most probable actions of videos.

    Each is printed as soon as it is known. Videos that cannot be read are reported, and the others are still
    predicted. Long videos are predicted by sliding windows with --window.

    Examples:
        tubelet predict runs/demo/finetune_mar runs/demo/data/videos/test
        tubelet predict runs/demo/finetune_mar '*.mp4' views.clips=5 --format jsonl
    """
    from tubelet.checkpoints.load import load_model
    from tubelet.data.windows import SlidingWindows
    from tubelet.progress import Bar
    from tubelet.recipe.loading import predict_recipe
    from tubelet.run.inference import require_classifier
    from tubelet.run.prediction import asked_clip_and_views
    from tubelet.run.predictor import Predictor
    from tubelet.run.video_files import find_videos, separate_settings

    sources, settings = separate_settings(videos)
    recipe = predict_recipe(*settings)
    if window is not None:
        SlidingWindows.parse(window, hop)
    elif hop is not None or smooth > 1 or output == "srt":
        raise UserError("--hop, --smooth and --format srt are for windows: add --window, such as --window 2s")
    known = None if _is_pipe(sources) else find_videos(sources)
    if output == "srt" and (known is None or len(known) > 1):
        raise UserError("--format srt writes the subtitles of one video: give one file")
    classifier = require_classifier(load_model(model, **hints), model)
    clip, views = asked_clip_and_views(classifier, recipe)
    predictor = Predictor(
        classifier, protocol=recipe.protocol, clip=clip, views=views, device=device, precision=precision
    )
    bar = Bar("predicting")
    printer = _Printer(bar)
    with say_if_stopped(lambda: f" after {printer.progress}"), bar:
        rounds = [known] if known is not None else _arriving_videos(printer)
        if window is None:
            has_times = any(sample.start is not None or sample.end is not None for sample in known or ())
            of_video = _output(output, top, known, times=has_times)
            _run(rounds, partial(_show_videos, predictor, of_video), printer)
        else:
            of_window = None if output == "srt" else _output(output, top, known, times=True)
            predict_windows = partial(predictor.windows, window=window, hop=hop, smooth=smooth)
            _run(rounds, partial(_show_windows, predict_windows, of_window), printer)
    printer.raise_broken()


def _is_pipe(sources: Sequence[str]) -> bool:
    if "-" in sources and len(sources) > 1:
        raise UserError("-: the paths come from standard input, so no other videos can be given")
    return "-" in sources


def _output(name: str, top: int, known: "Sequence[Sample] | None", *, times: bool) -> "Output":
    from tubelet.run.prediction_output import CsvRows, JsonLines, Table

    if name == "table":
        return Table(top, [sample.path for sample in known or ()], times=times)
    return JsonLines(top) if name == "jsonl" else CsvRows(top)


def _run(
    rounds: "Iterable[Sequence[Sample]]",
    show: "Callable[[Sequence[Sample], _Printer], None]",
    printer: "_Printer",
) -> None:
    """Print the results of all videos."""
    for samples in rounds:
        printer.expect(len(samples))
        show(samples, printer)


def _show_videos(
    predictor: "Predictor", output: "Output", samples: "Sequence[Sample]", printer: "_Printer"
) -> None:
    from tubelet.run.prediction import UnreadableVideo

    for found in predictor.stream(samples):
        if isinstance(found, UnreadableVideo):
            printer.show_broken(found.reason)
        else:
            printer.write(output.text(found), output.header)
            printer.advance()


def _show_windows(
    predict_windows: "Callable[[str], Iterator[Prediction]]",
    output: "Output | None",
    samples: "Sequence[Sample]",
    printer: "_Printer",
) -> None:
    """Print the windows of each video, or without an output its subtitles."""
    from tubelet.run.prediction_output import subtitles
    from tubelet.video.reader import VideoError

    for sample in samples:
        if sample.start is not None or sample.end is not None:
            raise UserError(f"{sample.name}: --window is for whole videos, and the list names a segment")
        found = printer.follow(predict_windows(sample.path))
        try:
            for text in map(output.text, found) if output else subtitles(found):
                printer.write(text, output.header if output else "")
            printer.advance()
        except VideoError as error:
            printer.show_broken(str(error))


def _arriving_videos(printer: "_Printer") -> "Iterator[Sequence[Sample]]":
    """Yield the videos that lines of standard input name, as they arrive."""
    from tubelet.run.video_files import arriving_lines, find_videos

    # Not sys.stdin.buffer: decoding processes close their copy of it, and would wait for the reading thread.
    arriving = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
    for lines in arriving_lines(arriving):
        samples: list[Sample] = []
        for line in lines:
            try:
                samples += find_videos([line])
            except UserError as error:
                printer.expect(1)
                printer.show_broken(str(error))
        yield samples
    if not printer.num_expected:
        raise UserError("-: standard input named no video; expected a path in each line")


class _Printer:
    """Prints results on standard output, broken videos and progress on standard error."""

    def __init__(self, bar: "Bar") -> None:
        self._bar = bar
        self._num_done, self._num_broken, self.num_expected = 0, 0, 0
        self._has_header = False
        self._position = ""  # in the video of the last window

    @property
    def progress(self) -> str:
        """How many videos are finished, as text."""
        return f"{self._num_done} of {plural(self.num_expected, 'video')}"

    def expect(self, count: int) -> None:
        """Add to the number of videos that are known so far."""
        self.num_expected += count
        self._show_bar()

    def follow(self, windows: "Iterator[Prediction]") -> "Iterator[Prediction]":
        """Yield the windows of a video, and show how far into the video they are."""
        for window in windows:
            self._position = f", at {window.end or 0:.0f} s"
            self._show_bar()
            yield window

    def advance(self) -> None:
        """Count a video as finished."""
        self._num_done += 1
        self._position = ""
        self._show_bar()

    def write(self, text: str, header: str) -> None:
        """Print a result; the first has a header."""
        self._bar.close()  # it may be on the same terminal
        sys.stdout.write(text if self._has_header else header + text)
        sys.stdout.flush()
        self._has_header = True
        self._show_bar()

    def show_broken(self, reason: str) -> None:
        """Report a video that cannot be read."""
        self._num_broken += 1
        self._bar.close()
        print(f"tubelet: {printable(reason)}", file=sys.stderr)
        self.advance()

    def raise_broken(self) -> None:
        """Raise a UserError if a video could not be read."""
        if self._num_broken:
            videos = plural(self.num_expected, "video")
            raise UserError(f"{self._num_broken} of {videos} could not be read")

    def _show_bar(self) -> None:
        text = f"{self._bar.what}: {self._num_done} of {self.num_expected}{self._position}"
        self._bar.show(self._num_done, self.num_expected, text)
