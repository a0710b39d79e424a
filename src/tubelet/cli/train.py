"""`tubelet pretrain` and `tubelet finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from tubelet.cli.options import Device, Precision, RecipeName, Settings, with_runtime
from tubelet.errors import UserError
from tubelet.machine import is_main_process

RunFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the run (default: runs/ and the recipe's name, such as runs/demo-pretrain)."
    ),
]


def pretrain(
    recipe: RecipeName,
    settings: Settings = None,
    out: RunFolder = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Pre-train a masked autoencoder on videos without labels.

    If the run was interrupted, the same command resumes it.

    tubelet pretrain demo/pretrain data.root=data/motion
    """
    _train("pretrain", recipe, with_runtime(settings, device, precision), out)


def finetune(
    recipe: RecipeName,
    settings: Settings = None,
    out: RunFolder = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Train a classifier: from a pre-trained model (init=MODEL) or from random weights.

    If the run was interrupted, the same command resumes it.

    tubelet finetune demo/finetune_mar init=runs/demo-pretrain data.root=data/motion
    """
    _train("finetune", recipe, with_runtime(settings, device, precision), out)


def _train(task: str, name: str, settings: list[str], out: Path | None) -> None:
    from tubelet.recipe.loading import load_recipe
    from tubelet.run.training import run_recipe

    loaded = load_recipe(name, *settings, report=print if is_main_process() else None)
    if loaded.task != task:
        raise UserError(f"{name} is a recipe of `tubelet {loaded.task}`: use `tubelet {loaded.task} {name}`")
    out = out or Path("runs") / Path(name).with_suffix("").as_posix().strip("/").replace("/", "-")
    metrics = run_recipe(loaded, out)
    if is_main_process():
        names = ("loss", "val/top1", "val/top5", "val/mAP")
        results = "  ".join(f"{key} {metrics[key]:.4g}" for key in names if key in metrics)
        print(f"{out}: done  {results}")
