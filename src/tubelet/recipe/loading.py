"""Recipes: a run as one YAML file, checked before it starts.

A recipe file lists the settings that differ from the defaults; `key=value` overrides change single settings.
Unknown settings and wrong types are refused with their path and the nearest known name.
"""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tubelet.errors import UserError, did_you_mean, excerpt
from tubelet.files import read_text
from tubelet.recipe.schema import TASKS, EvaluateRecipe, Recipe
from tubelet.recipe.yaml_text import YamlError, parse_yaml, plain_value
from tubelet.settings import parse, to_plain


def load_recipe(name: str, *overrides: str) -> Recipe:
    """Read and check a recipe.

    Args:
        name: a shipped recipe (`tubelet recipe list`) or a YAML file.
        overrides: settings to change, as "key.subkey=value". A value that begins with a bracket, a brace or a
            quotation mark is YAML, `null` is nothing, and any other value is taken literally.

    Raises:
        UserError: the recipe is not found, or a setting is unknown, missing or wrong.
    """
    try:
        settings = parse_yaml(_read(name))
    except YamlError as error:
        where = f"{name}:{error.line}" if error.line else name
        raise UserError(f"{where} is not valid YAML: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"{name} must contain settings as `key: value`, found {type(settings).__name__}")
    for override in overrides:
        _set(settings, override)
    task = settings.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise UserError(f"{name}: task must be one of {', '.join(TASKS)}, found {task!r}")
    return parse(TASKS[task], settings, name)


def evaluate_recipe(*overrides: str, source: str = "the command line") -> EvaluateRecipe:
    """Return the settings of a test from overrides, as "key.subkey=value", written in `source`."""
    settings: dict[str, Any] = {}
    for override in overrides:
        _set(settings, override)
    return parse(EvaluateRecipe, settings, source)


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    root = _shipped()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def to_yaml(recipe: Recipe) -> str:
    """Return all settings of a recipe, defaults included, as YAML."""
    return yaml.safe_dump(to_plain(recipe), sort_keys=False, default_flow_style=None, width=110)


def _shipped() -> Path:
    return Path(str(resources.files("tubelet") / "recipes"))


def _read(name: str) -> str:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            found = ": it is a folder" if path.is_dir() else ""
            raise UserError(f"there is no recipe file at {path}{found}")
        return read_text(path, "a recipe")
    shipped = _shipped() / f"{name}.yaml"
    if not shipped.is_file():
        known = recipe_names()
        raise UserError(
            f"there is no recipe '{name}'{did_you_mean(name, known) or ';'} `tubelet recipe list` shows "
            "them all; the name of your own recipe file must end in .yaml"
        )
    return shipped.read_text(encoding="utf-8")


def _set(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"'{override}' is not a setting: write key=value, such as optim.epochs=30")
    *parents, last = key.split(".")
    for parent in parents:
        if settings.get(parent) is None:
            settings[parent] = {}
        settings = settings[parent]
        if not isinstance(settings, dict):
            raise UserError(f"{key}: '{parent}' is a single setting without settings in it")
    settings[last] = _parse_value(key, text)


def _parse_value(key: str, text: str) -> Any:
    if not text:
        raise UserError(f"'{key}=' has no value: add one, or write {key}=null for none")
    if "\0" in text:
        raise UserError(f"{key}: a NUL character cannot be in a setting")
    if text.startswith("~/"):  # shells only expand it at the beginning of a word
        return str(Path(text).expanduser())
    if text[0] not in "[{\"'":
        return plain_value(text)
    try:
        return parse_yaml(text)
    except YamlError as error:
        raise UserError(
            f"{key}: '{excerpt(text)}' is not a valid YAML value: {error}. Text that begins with {text[0]} "
            "needs quotation marks"
        ) from None
