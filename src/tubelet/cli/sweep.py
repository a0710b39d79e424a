"""`tubelet sweep`: a recipe with many settings, seeds and tests, and one table of the results."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tubelet.cli.completion import complete_sweep
from tubelet.cli.help import Verb, Verbs
from tubelet.cli.options import Device, Precision, settings_argument, with_runtime


class _RunByDefault(Verbs):
    """`tubelet sweep SWEEP` is `tubelet sweep run SWEEP`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


sweep = typer.Typer(
    cls=_RunByDefault,
    help="Run a recipe with many settings, seeds and tests, and write one table.\n\n"
    "Examples:\ntubelet sweep list\ntubelet sweep mar/mask_scheme data.root=data/ssv2",
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


@sweep.command("run", cls=Verb)
def sweep_run(
    name: SweepName,
    settings: Annotated[list[str] | None, settings_argument("finetune", "data.root=data/k400")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the sweep (default: runs/sweep- and its name)."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N", help="Other seeds than the sweep's, such as 0,1,2.")
    ] = None,
    share: Annotated[
        str | None,
        typer.Option(
            metavar="N/N", help="Only these runs, such as 3/8 (default: those of a SLURM array task)."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and what they change.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Run all arms of a sweep; `run` can be left out.

    The same command resumes it and skips what is finished. KEY=VALUE changes a setting of the fine-tuning,
    pretrain.KEY=VALUE of the pre-training and test.KEY=VALUE of the tests; what an arm changes stays.

    Examples:
        tubelet sweep mar/mask_scheme data.root=data/ssv2 --dry-run
        tubelet sweep own.yaml --seeds 0,1,2 --share 3/8
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
    out = out or Path("runs") / f"sweep-{Path(name).with_suffix('').as_posix().strip('/').replace('/', '-')}"
    task = Share.parse(share) if share else Share.of_slurm(os.environ)
    runs = plan_sweep(loaded, out, Changes.parse(words))
    if dry_run:
        for run in task.select(runs):
            print(f"{run.arm}, seed {run.seed} ({state_of(run)}): {loaded.changes_of(run.arm)}")
        return
    require_lists(runs)
    run_sweep(name, loaded, runs, out, task)


@sweep.command("list", cls=Verb)
def sweep_list() -> None:
    """List the shipped sweeps: recipe, arms, publication.

    Examples:
        tubelet sweep list
        tubelet sweep show mar/mask_scheme
    """
    from tubelet.cli.table import aligned
    from tubelet.sweep.schema import read_sweep, sweep_names

    sweeps = [(name, read_sweep(name)) for name in sweep_names()]
    rows = [(name, each.recipe, str(len(each.all_arms())), each.source) for name, each in sweeps]
    print(aligned([("sweep", "recipe", "arms", "published in"), *rows]))


@sweep.command("show", cls=Verb)
def sweep_show(name: SweepName) -> None:
    """Print the file of a sweep, as a start for your own.

    Examples:
        tubelet sweep show mar/mask_scheme
        tubelet sweep show science > own.yaml
    """
    from tubelet.sweep.schema import sweep_text

    print(sweep_text(name), end="")
