"""`tubelet report`: one page of a training run."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The page (default: RUN/report.html)."),
    ] = None,
) -> None:
    """Write one offline page of a training run: curves, data, speed, pictures, settings.

    A run that is not finished has a page, too.

    Examples:
        tubelet report runs/demo/pretrain
        tubelet report runs/demo/finetune_mar -o mar.html
    """
    from tubelet.files import require_writable
    from tubelet.report.page import write_page
    from tubelet.report.run_contents import run_contents
    from tubelet.report.run_page import render_run
    from tubelet.run.run_record import read_run

    page = out or run / "report.html"
    record = read_run(run)
    require_writable(page)
    write_page(render_run(run_contents(record)), page)
    print(page)
