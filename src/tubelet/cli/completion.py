"""What the shell offers after TAB: recipes and settings."""

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import typer


def complete_recipe(incomplete: str) -> Iterator[str]:
    """Yield the shipped recipes and YAML files; without the recipe package, which takes seconds to import."""
    yield from _complete_file("recipes", incomplete)


def complete_sweep(incomplete: str) -> Iterator[str]:
    """Yield the shipped sweeps and YAML files."""
    yield from _complete_file("sweeps", incomplete)


def _complete_file(shipped: str, incomplete: str) -> Iterator[str]:
    root = Path(str(resources.files("tubelet") / shipped))
    names = sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    yield from (name for name in names if name.startswith(incomplete))
    folder, _, start = incomplete.rpartition("/")
    for path in sorted(Path(folder).glob("*.yaml")):
        if path.name.startswith(start):
            yield path.as_posix()


def complete_setting(context: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the settings of the command's recipes, each with its meaning."""
    from tubelet.recipe.help import explain

    command = context.info_name or ""
    tasks = (
        (command,) if command in ("pretrain", "finetune", "evaluate", "predict") else ("pretrain", "finetune")
    )
    meanings: dict[str, str] = {}
    for task in tasks:
        for key, _, _, meaning in explain(task):
            meanings.setdefault(re.sub(r"\[\w+\]", "", key) + "=", meaning)  # masking[tube].ratio
    yield from ((key, meaning) for key, meaning in meanings.items() if key.startswith(incomplete))
