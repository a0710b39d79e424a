"""`tubelet pretrain` and `tubelet finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from tubelet.cli.options import Device, RecipeName, TrainingPrecision, settings_argument, with_runtime
from tubelet.errors import UserError
from tubelet.machine import is_main_process

RunFolder = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder of the run (default: runs/ and the recipe's name)."),
]


def pretrain(
    recipe: RecipeName,
    settings: Annotated[list[str] | None, settings_argument("pretrain", "optim.epochs=30")] = None,
    out: RunFolder = None,
    device: Device = "auto",
    precision: TrainingPrecision = "auto",
) -> None:
    """Pre-train a masked autoencoder on videos without labels.

    If the run was interrupted, the same command resumes it. For more than one GPU put
    `torchrun --nproc-per-node 8 -m` before the command.

    Examples:
        tubelet pretrain demo/pretrain data.root=runs/demo/data
        tubelet pretrain demo/pretrain data.root=data/motion --out runs/mine
    """
    _train("pretrain", recipe, with_runtime(settings, device, precision), out)


def finetune(
    recipe: RecipeName,
    settings: Annotated[list[str] | None, settings_argument("finetune", "optim.epochs=30")] = None,
    out: RunFolder = None,
    device: Device = "auto",
    precision: TrainingPrecision = "auto",
) -> None:
    """Train a classifier, from a pre-trained model (init=MODEL) or not.

    If the run was interrupted, the same command resumes it. For more than one GPU put
    `torchrun --nproc-per-node 8 -m` before the command.

    Examples:
        tubelet finetune demo/finetune_mar init=runs/mine data.root=data/motion
        tubelet finetune demo/finetune_scratch data.root=runs/demo/data
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
