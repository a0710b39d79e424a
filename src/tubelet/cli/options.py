"""Arguments and options that more than one command takes."""

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer

from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.cli.completion import complete_recipe, complete_setting
from tubelet.errors import UserError

RecipeName = Annotated[
    str,
    typer.Argument(
        help="A shipped recipe (`tubelet recipe list`) or a YAML file.", autocompletion=complete_recipe
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings to change, such as optim.epochs=30 (`tubelet recipe help`).",
        autocompletion=complete_setting,
    ),
]
ModelSource = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run's folder, a checkpoint of any supported family, a Hugging Face folder or id, or a name "
        "of `tubelet zoo`.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything random.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(help="Where to compute; auto is CUDA, else MPS, else the CPU."),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"],
    typer.Option(help="Number format; auto is that of the model's recipe, fp32 if it has none."),
]


def with_runtime(settings: list[str] | None, device: str, precision: str) -> list[str]:
    """Return the settings with those of --device and --precision.

    Raises:
        UserError: an option and the setting of the same name differ.
    """
    given = list(settings or ())
    for name, option in (("device", device), ("precision", precision)):
        key = f"runtime.{name}="
        values = [setting.removeprefix(key) for setting in given if setting.startswith(key)]
        if option != "auto" and any(value not in ("auto", option) for value in values):
            raise UserError(f"--{name} {option} and {key}{values[-1]} differ: give only one of them")
        if option != "auto":
            given.append(key + option)
    return given


Hints = dict[str, Any]
_PANEL = "What a checkpoint may not record"


def _load_options(
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which weights of a file with more than one set: ema (the average), or their name in it.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    allow_nonfinite: Annotated[
        bool,
        typer.Option(
            "--allow-nonfinite", help="Load weights that are NaN or infinite.", rich_help_panel=_PANEL
        ),
    ] = False,
) -> None:
    """Declare the options of `load_model` beside the hints."""


def _hint_options() -> Iterator[Parameter]:
    """Yield an option for each hint."""
    for name, hint in get_type_hints(ArchitectureHints, include_extras=True).items():
        kind, meaning = get_args(hint)
        option: Any = Annotated[kind, typer.Option(help=meaning, rich_help_panel=_PANEL)]
        yield Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=option)


def with_hints(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `load_model`; it receives their values in its argument `hints`."""
    options = [*_hint_options(), *signature(_load_options).parameters.values()]
    own = [parameter for parameter in signature(command).parameters.values() if parameter.name != "hints"]

    @wraps(command)
    def run(**values: Any) -> None:
        hints = {option.name: values.pop(option.name) for option in options}
        command(**values, hints=hints)

    run.__signature__ = Signature([*own, *options])  # type: ignore[attr-defined]
    return run
