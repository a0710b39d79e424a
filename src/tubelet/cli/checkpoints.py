"""`tubelet inspect`, `tubelet convert` and `tubelet zoo`."""

from pathlib import Path
from typing import Annotated

import typer

from tubelet.cli.options import Hints, ModelSource, with_hints
from tubelet.errors import UserError


@with_hints
def inspect(model: ModelSource, hints: Hints) -> None:
    """Print what is in a checkpoint: family, architecture, parameters, GFLOPs and missing parts.

    tubelet inspect checkpoint.pth
    """
    from tubelet.run.inspection import inspect_checkpoint

    print(inspect_checkpoint(model, **hints))


@with_hints
def convert(
    model: ModelSource,
    out: Annotated[Path, typer.Argument(help="The file to write; a folder for tubelet and huggingface.")],
    hints: Hints,
    to: Annotated[
        str, typer.Option(help="tubelet, videomae, videomaev2, mae_st, mmaction2, mar or huggingface")
    ] = "tubelet",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file or folder.")] = False,
) -> None:
    """Write a model in the layout of another code base, if that layout can store all of it.

    tubelet convert checkpoint.pth out/ --to huggingface
    """
    from tubelet.checkpoints.load import load_model
    from tubelet.checkpoints.save import save_model

    if not force and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise UserError(f"{out} exists: choose another path, or overwrite it with --force")
    save_model(load_model(model, **hints), out, to)
    print(out)


def zoo(
    name: Annotated[str | None, typer.Argument(help="A checkpoint to describe in full.")] = None,
) -> None:
    """List the published checkpoints that can be loaded by name, or describe one."""
    from tubelet.checkpoints.catalogue import catalogue, published_checkpoint

    if name:
        print(published_checkpoint(name).describe())
        return
    width = max(map(len, catalogue()))
    for row in catalogue().values():
        accuracy = f"{row.top1:5.1f} %" if row.top1 else "       "
        print(f"{row.name:{width}}  {row.contains:11}  {accuracy}  {row.license}")
