"""`tubelet bench`: speed on this machine."""

from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)


@bench.command("data")
def bench_data(
    videos: Annotated[
        list[str] | None,
        typer.Argument(help="Data sets' folders, folders with videos, or videos (default: the demo's data)."),
    ] = None,
    files: Annotated[int, typer.Option(min=1, help="Maximum number of videos to read.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements; their median counts.")] = 5,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 16,
    stride: Annotated[int, typer.Option(min=1, help="Frames of the video for one frame of a clip.")] = 4,
    size: Annotated[int, typer.Option(min=16, help="Side of a clip in pixels.")] = 224,
    workers: Annotated[
        list[int] | None,
        typer.Option(
            min=0, help="Workers that load whole batches; repeatable (default: 0 and one per core)."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write all numbers to this file.")] = None,
) -> None:
    """Measure how fast clips are read from your videos, what limits it, and what to change."""
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
