"""`tubelet sweep`: a recipe with many settings, seeds and tests, and one table of the results."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tubelet.cli.completion import complete_sweep
from tubelet.cli.options import Device, Precision, Settings, with_runtime


class _RunByDefault(TyperGroup):
    """`tubelet sweep SWEEP` is `tubelet sweep run SWEEP`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


sweep = typer.Typer(
    cls=_RunByDefault,
    help="Run a recipe with many settings, seeds and tests, and write one table; list or show sweeps.",
    no_args_is_help=True,
)
SweepName = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP",
        help="A shipped sweep (`tubelet sweep list`) or a YAML file.",
        autocompletion=complete_sweep,
    ),
]


@sweep.command("run")
def sweep_run(
    name: SweepName,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the sweep (default: runs/sweep- and the sweep's name).")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds instead of those of the sweep, such as 0,1,2.")
    ] = None,
    share: Annotated[
        str | None,
        typer.Option(
            help="Only these of the runs, such as 3/8 (default: those of this SLURM array task, or all)."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and what they change.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Run the arms of a sweep; the same command resumes it and skips what is finished (also without `run`).

    KEY=VALUE changes a setting of all fine-tunings, pretrain.KEY=VALUE one of their pre-training, and
    test.KEY=VALUE one of all tests; what an arm changes itself stays.

    tubelet sweep mar/mask_scheme data.root=data/ssv2 --dry-run
    """
    from tubelet.sweep.plan import Changes, plan_sweep, require_lists
    from tubelet.sweep.running import run_sweep, state_of
    from tubelet.sweep.schema import read_sweep, with_seeds
    from tubelet.sweep.share import Share

    loaded = read_sweep(name)
    if seeds is not None:
        loaded = with_seeds(loaded, seeds)
    words = with_runtime(settings, device, precision)
    if loaded.pretrain:
        words += [f"pretrain.{word}" for word in with_runtime(None, device, precision)]
    out = out or Path("runs") / (
        "sweep-" + Path(name).with_suffix("").as_posix().strip("/").replace("/", "-")
    )
    task = Share.parse(share) if share else Share.of_slurm(os.environ)
    runs = plan_sweep(loaded, out, Changes.parse(words))
    if dry_run:
        for run in task.select(runs):
            print(f"{run.arm}, seed {run.seed} ({state_of(run)}): {loaded.changes_of(run.arm)}")
        return
    require_lists(runs)
    run_sweep(name, loaded, runs, out, task)


@sweep.command("list")
def sweep_list() -> None:
    """List the shipped sweeps."""
    from tubelet.sweep.schema import sweep_names

    print("\n".join(sweep_names()))


@sweep.command("show")
def sweep_show(name: SweepName) -> None:
    """Print the file of a sweep, as a start for your own."""
    from tubelet.sweep.schema import sweep_text

    print(sweep_text(name), end="")
