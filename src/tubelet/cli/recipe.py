"""`tubelet recipe`: the shipped recipes and their settings."""

import re
from typing import Annotated

import typer

from tubelet.cli.help import Verb, Verbs
from tubelet.cli.options import RecipeName, settings_argument

recipe = typer.Typer(
    cls=Verbs,
    help="List the shipped recipes, show one, or explain the settings.\n\n"
    "Examples:\ntubelet recipe list\ntubelet recipe help finetune",
    no_args_is_help=True,
)


@recipe.command("list", cls=Verb)
def recipe_list(
    word: Annotated[
        str, typer.Argument(help="Only recipes with this in their name.", show_default=False)
    ] = "",
) -> None:
    """List the shipped recipes: model, epochs, published top-1 accuracy.

    That of a pre-training is the result after fine-tuning. docs/recipes.md has the sources in full.

    Examples:
        tubelet recipe list ssv2
        tubelet recipe show demo/pretrain
    """
    from tubelet.cli.table import aligned
    from tubelet.recipe.loading import list_recipes

    rows = [(row.name, row.model, row.epochs, row.top1, _short(row.source)) for row in list_recipes(word)]
    print(aligned([("recipe", "model", "epochs", "top-1", "published in"), *rows]))


@recipe.command("show", cls=Verb)
def recipe_show(
    name: RecipeName,
    settings: Annotated[list[str] | None, settings_argument("finetune", "optim.epochs=30")] = None,
) -> None:
    """Print a recipe: its head comment, and all settings with defaults.

    Settings that are `auto` are decided if data.root exists; without it the recipe is printed as it is.

    Examples:
        tubelet recipe show demo/finetune_mar
        tubelet recipe show demo/pretrain optim.epochs=50 > own.yaml
    """
    from tubelet.recipe.loading import recipe_text

    print(recipe_text(name, *settings or ()), end="")


@recipe.command("help", cls=Verb)
def recipe_help(
    task: Annotated[
        str, typer.Argument(metavar="VERB", help="pretrain, finetune, evaluate or predict.")
    ] = "pretrain",
) -> None:
    """Print all settings of a verb: type, default and meaning.

    Examples:
        tubelet recipe help finetune
        tubelet recipe help evaluate
    """
    from tubelet.recipe.help import explain

    for key, kind, default, meaning in explain(task):
        print(f"{key}  ({kind}; {default})\n    {meaning}")


def _short(source: str) -> str:
    """Return a paper's number, or a repository's name without its owner."""
    return re.split("[,;]", source)[0].rpartition("/")[2]
