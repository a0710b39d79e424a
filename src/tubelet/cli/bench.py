"""`tubelet bench`: speed on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from tubelet.cli.help import Verb, Verbs

bench = typer.Typer(
    cls=Verbs,
    help="Measure speed on this machine.\n\n"
    "Examples:\ntubelet bench data ~/Videos\ntubelet bench data runs/demo/data --workers 2",
    no_args_is_help=True,
)


@bench.command("data", cls=Verb)
def bench_data(
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VIDEO", help="Data sets, folders with videos, or videos (default: the demo's data)."
        ),
    ] = None,
    files: Annotated[int, typer.Option(min=1, metavar="N", help="Maximum number of videos to read.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Measurements; their median counts.")] = 5,
    frames: Annotated[int, typer.Option(min=1, metavar="N", help="Frames of a clip.")] = 16,
    stride: Annotated[
        int, typer.Option(min=1, metavar="N", help="Distance of a clip's frames in the video.")
    ] = 4,
    size: Annotated[int, typer.Option(min=16, metavar="PX", help="Side of a clip.")] = 224,
    workers: Annotated[
        list[int] | None,
        typer.Option(
            min=0, metavar="N", help="Workers that load batches; repeatable (default: 0 and one per core)."
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all numbers to this file.")
    ] = None,
) -> None:
    """Measure how fast clips are read from your videos, what limits it, and what to change.

    Examples:
        tubelet bench data ~/Videos
        tubelet bench data runs/demo/data --size 112 --workers 2
    """
    from tubelet.bench.measure import bench_data
    from tubelet.files import require_writable
    from tubelet.progress import Bar

    if json:
        require_writable(json)
    with Bar("reading") as bar:
        report = bench_data(
            videos or (), files=files, rounds=rounds, frames=frames, stride=stride, size=size,
            workers=workers, progress=bar.show,
        )  # fmt: skip
    print(report.text())
    if json:
        json.write_text(report.json(), encoding="utf-8")
