"""`tubelet inspect`, `tubelet convert` and `tubelet zoo`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tubelet.cli.options import Hints, ModelSource, with_hints
from tubelet.cli.table import aligned
from tubelet.errors import UserError

_HOLDS = {  # by what a checkpoint contains
    "autoencoder": "Autoencoders, to fine-tune and to reconstruct videos",
    "encoder": "Encoders, to fine-tune",
    "classifier": "Classifiers",
}


@with_hints
def inspect(model: ModelSource, hints: Hints) -> None:
    """Print what is in a checkpoint: family, sizes, GFLOPs, missing parts.

    Examples:
        tubelet inspect runs/demo/finetune_mar
        tubelet inspect checkpoint.pth --heads 12
    """
    from tubelet.run.inspection import inspect_checkpoint

    print(inspect_checkpoint(model, **hints))


@with_hints
def convert(
    model: ModelSource,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; for tubelet and huggingface a folder.")
    ],
    hints: Hints,
    to: Annotated[
        str,
        typer.Option(
            metavar="LAYOUT", help="tubelet, videomae, videomaev2, mae_st, mmaction2, mar or huggingface."
        ),
    ] = "tubelet",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file or folder.")] = False,
) -> None:
    """Write a model in the layout of another code base.

    A layout that cannot store all of the model is refused.

    Examples:
        tubelet convert checkpoint.pth out/ --to huggingface
        tubelet convert videomae_base_k400_hf videomae.pth --to videomae
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
        typer.Argument(metavar="NAME", help="Checkpoints to describe in full; with --verify, to verify."),
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
    """List, describe or verify the published checkpoints that have a name.

    Examples:
        tubelet zoo videomae_base_k400
        tubelet zoo --verify mae_st_large_k400 videomae_base_k400=checkpoint.pth
    """
    from tubelet.checkpoints.catalogue import catalogue, published_checkpoint

    if verify:
        _verify(names or [row.name for row in catalogue().values() if row.source])
        return
    if names:
        print("\n\n".join(published_checkpoint(name).describe() for name in names))
        return
    rows = list(catalogue().values())
    table = [
        (row.name, row.data, f"{row.top1:.1f} %" if row.top1 else "", "yes" if row.source else "by hand")
        for row in rows
    ]
    header, *lines = aligned([("name", "data", "top-1", "download"), *table]).split("\n")
    print(header)
    for contains, title in _HOLDS.items():
        print(f"\n{title}:")
        print("\n".join(line for row, line in zip(rows, lines, strict=True) if row.contains == contains))
    print(
        "\nThose with `yes` are downloaded when they are first used. `tubelet zoo NAME`"
        "\nsays more about one, such as its license: nearly all exclude commercial use."
    )


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
