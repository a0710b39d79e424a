"""`tubelet inspect`, `tubelet convert` and `tubelet zoo`."""

import sys
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
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Checkpoints to describe in full; with --verify, to verify."
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Download and load them (without names, all that can be), run each on a fixed clip, and "
            "print its line of the catalogue with what was found. NAME=FILE takes a file instead.",
        ),
    ] = False,
) -> None:
    """List the published checkpoints that can be loaded by name, describe some, or verify them.

    tubelet zoo --verify mae_st_large_k400 videomae_base_k400=checkpoint.pth
    """
    from tubelet.checkpoints.catalogue import catalogue, published_checkpoint

    if verify:
        _verify(names or [row.name for row in catalogue().values() if row.source])
        return
    if names:
        print("\n\n".join(published_checkpoint(name).describe() for name in names))
        return
    width = max(map(len, catalogue()))
    for row in catalogue().values():
        accuracy = f"{row.top1:5.1f} %" if row.top1 else "       "
        print(f"{row.name:{width}}  {row.contains:11}  {accuracy}  {row.license}")


def _verify(names: list[str]) -> None:
    """Verify one after the other; a problem is reported at once and the others follow."""
    from tubelet.checkpoints.catalogue import published_checkpoint
    from tubelet.run.verification import verify_published

    failed = 0
    for given in names:
        name, _, file = given.partition("=")
        try:
            found = verify_published(published_checkpoint(name), Path(file) if file else None)
        except UserError as error:
            problems: tuple[str, ...] = (str(error),)
        else:
            print(found, flush=True)
            problems = found.problems
        for problem in problems:
            print(f"tubelet: {name}: {problem}", file=sys.stderr)
        failed += bool(problems)
    if failed:
        print(f"tubelet: {failed} of {len(names)} could not be verified", file=sys.stderr)
        raise typer.Exit(1)
