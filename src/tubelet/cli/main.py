"""The `tubelet` command. A command imports what it needs when it is called, so that `--help` is instant."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tubelet.cli.bench import bench
from tubelet.cli.checkpoints import convert, inspect, zoo
from tubelet.cli.embedding import embed, probe, search
from tubelet.cli.help import Verb, Verbs
from tubelet.cli.inference import evaluate, visualize
from tubelet.cli.options import Device, Seed, TrainingPrecision
from tubelet.cli.predict import predict
from tubelet.cli.prepare import prepare
from tubelet.cli.recipe import recipe
from tubelet.cli.report import report
from tubelet.cli.stopping import say, say_if_stopped
from tubelet.cli.sweep import sweep
from tubelet.cli.train import finetune, pretrain
from tubelet.errors import UserError, shortened
from tubelet.machine import exit_process, version


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for everything (default: runs/demo, or runs/demo-quick)."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run every step in about a minute, which is too short to learn.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: TrainingPrecision = "auto",
) -> None:
    """Run the full pipeline on a generated data set, and write a report.

    It prepares the data, pre-trains, fine-tunes on all and on half of the tokens, and tests.

    If it was interrupted, the same command resumes it.

    Examples:
        tubelet demo
        tubelet demo --quick
    """
    from tubelet.demo.story import run_demo
    from tubelet.train.runtime import RuntimeConfig

    folder = out or Path("runs/demo-quick" if quick else "runs/demo")
    run_demo(folder, quick=quick, seed=seed, runtime=RuntimeConfig(device=device, precision=precision))


# The commands by panel of `tubelet --help`, in its order.
COMMANDS: dict[str, dict[str, typer.Typer | Callable[..., None]]] = {
    "Start here": {"demo": demo},
    "Data and training": {
        "prepare": prepare,
        "pretrain": pretrain,
        "finetune": finetune,
        "recipe": recipe,
        "sweep": sweep,
        "report": report,
    },
    "Trained models": {"evaluate": evaluate, "predict": predict, "visualize": visualize},
    "Features": {"embed": embed, "probe": probe, "search": search},
    "Checkpoints": {"inspect": inspect, "convert": convert, "zoo": zoo},
    "Speed": {"bench": bench},
}


class _InOrder(Verbs):
    """The commands in the order of COMMANDS; typer lists those with subcommands last."""

    def list_commands(self, context: Any) -> list[str]:
        return [name for panel in COMMANDS.values() for name in panel]

    def invoke(self, context: Any) -> Any:
        with say_if_stopped():
            return super().invoke(context)


app = typer.Typer(cls=_InOrder, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, cls=Verb, rich_help_panel=panel)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tubelet {version()}")
        raise typer.Exit


@app.callback()
def tubelet(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Masked video autoencoders: pre-train, fine-tune, recognize, reconstruct.

    Examples:
        tubelet demo --quick
        tubelet predict runs/demo/finetune_mar runs/demo/data/videos/test
    """


def _print_anything() -> None:
    """Print what a terminal cannot show, such as names in other alphabets, as escapes like `\\u65e5`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's stream takes any text
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the command; an error that the user can fix is one message and exit code 2."""
    _print_anything()
    code = 2
    try:
        app(prog_name="tubelet")
    except SystemExit as end:  # typer raises it at the end of every command
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except UserError as error:
        say(str(error))
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        advice = "Finished work is kept: fix this and run the command again"
        say(shortened(f"{file}{error.strerror or error}. {advice}"))
    exit_process(code)
