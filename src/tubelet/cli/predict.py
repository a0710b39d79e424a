"""`tubelet predict`: the classes of videos."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tubelet.cli.options import Device, Hints, ModelSource, Precision, with_hints
from tubelet.errors import UserError, plural

if TYPE_CHECKING:
    from tubelet.data.manifest import Sample
    from tubelet.progress import Bar
    from tubelet.run.prediction import Prediction, UnreadableVideo
    from tubelet.run.prediction_output import Output
    from tubelet.run.predictor import Predictor

_PIPE_CLOSED = 128 + 13  # the exit code of a program that SIGPIPE ends


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
        Literal["table", "jsonl", "csv"],
        typer.Option("--format", metavar="NAME", help="table, jsonl (a JSON object per line) or csv."),
    ] = "table",
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Print the most probable actions of videos.

    Each is printed as soon as it is known. Videos that cannot be read are reported, and the others are still
    predicted.

    Examples:
        tubelet predict runs/demo/finetune_mar runs/demo/data/videos/test
        tubelet predict runs/demo/finetune_mar '*.mp4' clip.stride=2 views.clips=5 --format jsonl
    """
    from tubelet.checkpoints.load import load_model
    from tubelet.progress import Bar
    from tubelet.recipe.loading import predict_recipe
    from tubelet.run.inference import require_classifier
    from tubelet.run.prediction import changed_clip, clip_and_views
    from tubelet.run.predictor import Predictor
    from tubelet.run.video_files import find_videos, separate_settings

    sources, settings = separate_settings(videos)
    recipe = predict_recipe(*settings)
    known = None if _is_pipe(sources) else find_videos(sources)
    classifier = require_classifier(load_model(model, **hints), model)
    clip, views = clip_and_views(classifier, protocol=recipe.protocol)
    predictor = Predictor(
        classifier, protocol=recipe.protocol, clip=changed_clip(clip, recipe.clip),
        views=recipe.views.over(views), device=device, precision=precision,
    )  # fmt: skip
    with Bar("predicting") as bar:
        printer = _Printer(_output(output, top, known), bar)
        rounds = [known] if known is not None else _arriving_videos(printer)
        _run(predictor, rounds, printer)
    printer.raise_broken()


def _is_pipe(sources: Sequence[str]) -> bool:
    if "-" in sources and len(sources) > 1:
        raise UserError("-: the paths come from standard input, so no other videos can be given")
    return "-" in sources


def _output(name: str, top: int, known: "Sequence[Sample] | None") -> "Output":
    from tubelet.run.prediction_output import CsvRows, JsonLines, Table

    if name == "table":
        times = any(sample.start is not None or sample.end is not None for sample in known or ())
        return Table(top, [sample.path for sample in known or ()], times=times)
    return JsonLines(top) if name == "jsonl" else CsvRows(top)


def _run(predictor: "Predictor", rounds: "Iterable[Sequence[Sample]]", printer: "_Printer") -> None:
    """Print the results of all videos; if it is interrupted, report how many were finished."""
    try:
        for samples in rounds:
            printer.expect(len(samples))
            for found in predictor.stream(samples):
                printer.show(found)
    except KeyboardInterrupt:
        printer.report(f"stopped after {printer.progress}")
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        printer.report(f"the output was closed after {printer.progress}")
        raise typer.Exit(_PIPE_CLOSED) from None


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

    def __init__(self, output: "Output", bar: "Bar") -> None:
        self._output, self._bar = output, bar
        self._num_done, self._num_broken, self.num_expected = 0, 0, 0
        self._header = output.header

    def expect(self, count: int) -> None:
        """Add to the number of videos that are known so far."""
        self.num_expected += count
        self._bar.show(self._num_done, self.num_expected)

    def show(self, found: "Prediction | UnreadableVideo") -> None:
        """Print a result."""
        from tubelet.run.prediction import UnreadableVideo

        if isinstance(found, UnreadableVideo):
            self.show_broken(found.reason)
            return
        self._bar.close()  # it may be on the same terminal
        sys.stdout.write(self._header + self._output.text(found))
        sys.stdout.flush()
        self._header = ""
        self._advance()

    def show_broken(self, reason: str) -> None:
        """Report a video that cannot be read."""
        self._num_broken += 1
        self.report(reason)
        self._advance()

    def report(self, message: str) -> None:
        """Print a message."""
        from tubelet.run.prediction_output import printable

        self._bar.close()
        print(f"tubelet: {printable(message)}", file=sys.stderr)

    @property
    def progress(self) -> str:
        """How many videos are finished, as text."""
        return f"{self._num_done} of {plural(self.num_expected, 'video')}"

    def raise_broken(self) -> None:
        """Raise a UserError if a video could not be read."""
        if self._num_broken:
            videos = plural(self.num_expected, "video")
            raise UserError(f"{self._num_broken} of {videos} could not be read")

    def _advance(self) -> None:
        self._num_done += 1
        self._bar.show(self._num_done, self.num_expected)
