"""Arguments and options that more than one command takes."""

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer

from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.cli.completion import complete_recipe, complete_setting
from tubelet.cli.help import FILE_PANEL
from tubelet.errors import UserError

RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A shipped recipe (`tubelet recipe list`) or a YAML file.",
        autocompletion=complete_recipe,
    ),
]


def settings_argument(verb: str, example: str) -> Any:
    """Return the argument for the settings of a verb's recipes."""
    return typer.Argument(
        metavar="KEY=VALUE",
        help=f"Settings to change, such as {example}; `tubelet recipe help {verb}` lists them all.",
        autocompletion=complete_setting,
    )


ModelSource = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run, a file, a Hugging Face id, or a name of `tubelet zoo`.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, metavar="N", help="Seed of everything random.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(metavar="NAME", help="auto, cpu, cuda or mps; auto is the best that there is."),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16; auto is as in training, else fp32."),
]
TrainingPrecision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16; auto is bf16 if the hardware has it."),
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


def _file_option(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text, rich_help_panel=FILE_PANEL)


def _load_options(
    weights: Annotated[
        str | None, _file_option("NAME", "Which weights of a file with more than one set, such as ema.")
    ] = None,
    allow_nonfinite: Annotated[
        bool,
        typer.Option(
            "--allow-nonfinite", help="Load weights that are NaN or infinite.", rich_help_panel=FILE_PANEL
        ),
    ] = False,
) -> None:
    """Declare the options of `load_model` beside the hints."""


def _hint_options() -> Iterator[Parameter]:
    """Yield an option for each hint."""
    for name, hint in get_type_hints(ArchitectureHints, include_extras=True).items():
        kind, meaning = get_args(hint)
        option: Any = Annotated[kind, _file_option("X" if name == "norm_eps" else "N", meaning)]
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
