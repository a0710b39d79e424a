"""A run as one YAML file: typed settings with defaults, checked before anything starts.

Every component's settings are a dataclass beside the component; a recipe only composes them. A recipe file
lists what differs from the defaults, `key=value` overrides change single settings, and what is unknown,
misspelt or of the wrong type is refused with its path and the nearest right name.
"""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tubelet.errors import UserError, did_you_mean
from tubelet.files import read_text
from tubelet.recipe.schema import TASKS, EvaluateRecipe, Recipe
from tubelet.settings import parse, to_plain


def load_recipe(name: str, *overrides: str) -> Recipe:
    """Read a recipe and check it.

    Args:
        name: a shipped recipe (`tubelet recipe list`) or a YAML file.
        overrides: settings to change, as "key.subkey=value"; values are YAML.

    Raises:
        UserError: the recipe is not there, or a setting is unknown, misspelt, missing or of the wrong type.
    """
    text = _read(name)
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"{name} must hold settings as `key: value`, found {type(settings).__name__}")
    for override in overrides:
        _set(settings, override)
    task = settings.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise UserError(f"{name}: task must be one of {', '.join(TASKS)}, found {task!r}")
    return parse(TASKS[task], settings, name)


def evaluate_recipe(*overrides: str) -> EvaluateRecipe:
    """The settings of a test, from "key.subkey=value" alone; raises as `load_recipe` does."""
    settings: dict[str, Any] = {}
    for override in overrides:
        _set(settings, override)
    return parse(EvaluateRecipe, settings, "the command line")


def recipe_names() -> list[str]:
    """The shipped recipes."""
    root = _shipped()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def to_yaml(recipe: Recipe) -> str:
    """All settings of a recipe, defaults included, as YAML."""
    return yaml.safe_dump(to_plain(recipe), sort_keys=False, default_flow_style=None, width=110)


def _shipped() -> Path:
    return Path(str(resources.files("tubelet") / "recipes"))


def _read(name: str) -> str:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"no recipe file at {path}")
        return read_text(path, "a recipe")
    shipped = _shipped() / f"{name}.yaml"
    if not shipped.is_file():
        known = recipe_names()
        raise UserError(
            f"no recipe '{name}'{did_you_mean(name, known) or ';'} `tubelet recipe list` shows them all; "
            "a recipe of your own is a file that ends in .yaml"
        )
    return shipped.read_text(encoding="utf-8")


def _set(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"'{override}' is not a setting: write key=value, such as optim.epochs=30")
    place = settings
    *parents, last = key.split(".")
    for parent in parents:
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            raise UserError(f"{key}: '{parent}' is a single setting and has nothing below it")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{key}: '{text}' is not a valid YAML value") from None
    if isinstance(value, str) and value.startswith("~/"):  # shells expand it at the beginning of a word alone
        value = str(Path(value).expanduser())
    place[last] = value
