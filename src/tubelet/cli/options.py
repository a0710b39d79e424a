"""Arguments and options that more than one command takes."""

from collections.abc import Callable
from functools import wraps
from inspect import Signature, signature
from typing import Annotated, Any, Literal

import typer

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
    Literal["auto", "fp32", "bf16", "fp16"],
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


def _hint_options(
    heads: Annotated[
        int | None, typer.Option(help="Attention heads of the encoder.", rich_help_panel=_PANEL)
    ] = None,
    decoder_heads: Annotated[
        int | None, typer.Option(help="Attention heads of the decoder.", rich_help_panel=_PANEL)
    ] = None,
    bridge_heads: Annotated[
        int | None, typer.Option(help="Attention heads of MAR's classifier.", rich_help_panel=_PANEL)
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the frames in pixels; a model of another size is resized.", rich_help_panel=_PANEL
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(help="Frames of a clip; a model of another number is resized.", rich_help_panel=_PANEL),
    ] = None,
    norm_eps: Annotated[
        float | None, typer.Option(help="Epsilon of the LayerNorms (default: 1e-6).", rich_help_panel=_PANEL)
    ] = None,
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
    """Declare the options of `load_model`."""


def with_hints(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `load_model`; it receives their values in its argument `hints`."""
    options = signature(_hint_options).parameters
    own = [parameter for parameter in signature(command).parameters.values() if parameter.name != "hints"]

    @wraps(command)
    def run(**values: Any) -> None:
        hints = {name: values.pop(name) for name in options}
        command(**values, hints=hints)

    run.__signature__ = Signature([*own, *options.values()])  # type: ignore[attr-defined]
    return run
