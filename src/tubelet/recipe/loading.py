"""Recipes: a run as one YAML file, checked before it starts.

A recipe file lists the settings that differ from the defaults; `key=value` overrides change single settings.
Unknown settings and wrong types are refused with their path and the nearest known name.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from tubelet.errors import UserError, excerpt, short_repr
from tubelet.models.sizes import ENCODER_SIZES
from tubelet.recipe.fitting import AUTO, describe_fit, fit_settings, has_auto, situation_of
from tubelet.recipe.schema import (
    TASKS,
    EvaluateRecipe,
    FinetuneRecipe,
    PredictRecipe,
    PublishedResult,
    Recipe,
)
from tubelet.recipe.shipped import shipped_names, yaml_settings, yaml_text
from tubelet.recipe.yaml_text import YamlError, parse_yaml, plain_value
from tubelet.settings import parse, to_plain

T = TypeVar("T")
_VIT = {"small": "ViT-S", "base": "ViT-B", "large": "ViT-L", "huge": "ViT-H", "giant": "ViT-g"}


def load_recipe(name: str | Path, *overrides: str, report: Callable[[str], None] | None = None) -> Recipe:
    """Read and check a recipe; settings that are `auto` get plain values.

    Args:
        name: a shipped recipe (`tubelet recipe list`) or a YAML file.
        overrides: settings to change, as "key.subkey=value". A value that begins with a bracket, a brace or a
            quotation mark is YAML, `null` is nothing, and any other value is taken literally.
        report: is called with each line that says what was decided for settings that are `auto`.

    Raises:
        UserError: the recipe is not found, a setting is unknown, missing or wrong, or settings are `auto` and
            the data set or the model of init cannot be read.
    """
    name = str(name)
    settings = read_settings(name, *overrides)
    if not has_auto(settings):
        return parse(TASKS[settings["task"]], settings, name)
    situation = situation_of(settings, name)
    recipe = parse(TASKS[settings["task"]], fit_settings(settings, situation, name), name)
    if report:
        for line in describe_fit(recipe, situation):
            report(line)
    return recipe


def read_settings(name: str, *overrides: str) -> dict[str, Any]:
    """Read the settings of a recipe, with overrides, as they are written; only its task is checked.

    Raises:
        UserError: the recipe is not found or not valid YAML, an override is not `key=value`, or there is no
            such task.
    """
    settings = yaml_settings("recipe", name)
    for override in overrides:
        _set(settings, override)
    task = settings.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise UserError(f"{name}: task must be one of {', '.join(TASKS)}, found {short_repr(task)}")
    return settings


def evaluate_recipe(*overrides: str, source: str = "the command line") -> EvaluateRecipe:
    """Return the settings of a test from overrides, as "key.subkey=value", written in `source`."""
    return _from_overrides(EvaluateRecipe, overrides, source)


def predict_recipe(*overrides: str) -> PredictRecipe:
    """Return the settings of a prediction from overrides, as "key.subkey=value"."""
    return _from_overrides(PredictRecipe, overrides, "the command line")


def _from_overrides(kind: type[T], overrides: Sequence[str], source: str) -> T:
    settings: dict[str, Any] = {}
    for override in overrides:
        _set(settings, override)
    return parse(kind, settings, source)


def recipe_text(name: str, *overrides: str) -> str:
    """Return a recipe's head comment and settings; as written if some are `auto` and there is no data yet."""
    settings = read_settings(name, *overrides)
    data = settings.get("data")
    root = data.get("root") if isinstance(data, dict) else None
    if has_auto(settings) and not Path(str(root)).is_dir():
        return yaml_text("recipe", name)
    return head_comment(name) + to_yaml(load_recipe(name, *overrides))


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return shipped_names("recipe")


class RecipeSummary(NamedTuple):
    """A shipped recipe in a table; texts are empty where nothing is published.

    Attributes:
        name: what to call it by.
        model: the encoder's size.
        data: name of the data set's folder, or of the folders.
        epochs: passes over the videos.
        batch: videos of a step.
        top1: published accuracy in percent.
        source: where it is published.
    """

    name: str
    model: str
    data: str
    epochs: str
    batch: str
    top1: str
    source: str


def list_recipes(word: str = "") -> Iterator[RecipeSummary]:
    """Yield the shipped recipes with a word in their name.

    Raises:
        UserError: there is no such recipe.
    """
    names = [name for name in recipe_names() if word in name]
    if not names:
        raise UserError(f"no shipped recipe has '{excerpt(word)}' in its name: see `tubelet recipe list`")
    for name in names:
        settings = read_settings(name)
        if has_auto(settings):
            yield RecipeSummary(name, "to fit", "own", "to fit", "to fit", "", "")
            continue
        recipe = load_recipe(name)
        published = recipe.published or PublishedResult(source="")
        yield RecipeSummary(
            name=name,
            model=_model_name(name, recipe),
            data=" + ".join([recipe.data.root.name, *(more.root.name for more in recipe.data.more_roots)]),
            epochs=str(recipe.optim.epochs),
            batch=str(recipe.optim.batch_size),
            top1="" if published.top1 is None else str(published.top1),
            source=published.source,
        )


def _model_name(name: str, recipe: Recipe) -> str:
    """Return the encoder's size: `ViT-B`, or depth x width if it is not a published one."""
    encoder = recipe.encoder if isinstance(recipe, FinetuneRecipe) else recipe.model.encoder
    if encoder is None:  # it is that of init, and in the name
        return next((_VIT[size] for size in ENCODER_SIZES if size in name.split("_")), "of init")
    for size, numbers in ENCODER_SIZES.items():
        if (numbers["dim"], numbers["depth"]) == (encoder.dim, encoder.depth):
            return _VIT[size]
    return f"{encoder.depth} x {encoder.dim}"


def head_comment(name: str) -> str:
    """Return the comment at the head of a recipe; empty if there is no comment."""
    return "".join(
        takewhile(lambda line: line.startswith("#"), yaml_text("recipe", name).splitlines(keepends=True))
    )


def to_yaml(recipe: Recipe) -> str:
    """Return all settings of a recipe, defaults included, as YAML."""
    return yaml.safe_dump(to_plain(recipe), sort_keys=False, default_flow_style=None, width=110)


def _set(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"'{excerpt(override)}' is not a setting: write key=value, such as optim.epochs=30")
    *parents, last = key.split(".")
    for parent in parents:
        if settings.get(parent) in (None, AUTO):
            settings[parent] = {}
        settings = settings[parent]
        if not isinstance(settings, dict):
            raise UserError(f"{excerpt(key)}: '{excerpt(parent)}' is a single setting without settings in it")
    settings[last] = _parse_value(key, text)


def _parse_value(key: str, text: str) -> Any:
    if not text:
        raise UserError(f"'{excerpt(key)}=' has no value: add one, or write {excerpt(key)}=null for none")
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
