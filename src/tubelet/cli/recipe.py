"""`tubelet recipe`: the shipped recipes and their settings."""

from typing import Annotated

import typer

from tubelet.cli.options import RecipeName, Settings

recipe = typer.Typer(
    help="List the shipped recipes, show one, or explain the settings.", no_args_is_help=True
)


@recipe.command("list")
def recipe_list() -> None:
    """List the shipped recipes."""
    from tubelet.recipe.loading import recipe_names

    print("\n".join(recipe_names()))


@recipe.command("show")
def recipe_show(name: RecipeName, settings: Settings = None) -> None:
    """Print all settings of a recipe, with the defaults.

    Settings that are `auto` are decided if data.root exists; without it the recipe is printed as it is.
    """
    from tubelet.recipe.loading import recipe_text

    print(recipe_text(name, *settings or ()), end="")


@recipe.command("help")
def recipe_help(
    task: Annotated[str, typer.Argument(help="pretrain, finetune or evaluate")] = "pretrain",
) -> None:
    """Print every setting with its type, default and meaning."""
    from tubelet.recipe.help import explain

    for key, kind, default, meaning in explain(task):
        print(f"{key}  ({kind}; {default})\n    {meaning}")
