"""What every setting of a recipe means, read from the dataclasses and their docstrings."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from tubelet.errors import UserError, did_you_mean
from tubelet.models.sizes import BY_SIZE
from tubelet.recipe.schema import TASKS, EvaluateRecipe, PredictRecipe
from tubelet.settings import options_of, settings_of

_KINDS = {**TASKS, "evaluate": EvaluateRecipe, "predict": PredictRecipe}


def explain(task: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (key, type, default, meaning) of every setting of a task's recipes."""
    if task not in _KINDS:
        raise UserError(
            f"no recipes for '{task}'{did_you_mean(task, _KINDS) or ';'} there are: {', '.join(_KINDS)}"
        )
    yield from _explain(_KINDS[task], "")


def _explain(kind: Any, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    meanings = {name: text for base in reversed(kind.__mro__) for name, text in _meanings(base).items()}
    for item in settings_of(kind).values():
        if item.name in ("kind", "task"):
            continue
        key, meaning = prefix + item.name, meanings.get(item.name, "")
        options: tuple[Any, ...] = options_of(item.type)
        kinds = [str(option.kind) for option in options if hasattr(option, "kind")]
        type_name = (" | ".join(kinds) or "settings") if options else _type_name(item.type)
        yield key, type_name, _default(item), meaning
        for option, name in zip(options, kinds or [""], strict=False):
            yield from _explain(option, f"{key}{f'[{name}]' if len(kinds) > 1 else ''}.")


def _default(item: dataclasses.Field) -> str:
    if item.default is not dataclasses.MISSING:
        default = item.default
    elif item.default_factory is not dataclasses.MISSING:
        default = item.default_factory()
    else:
        return "required"
    if dataclasses.is_dataclass(default):
        return str(getattr(default, "kind", ""))
    if default is BY_SIZE:
        return "by size"
    return "null" if default is None else str(default)


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, dataclasses.InitVar):
        annotation = annotation.type
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join("null" if part is type(None) else _type_name(part) for part in get_args(annotation))
    if get_origin(annotation) is dict:
        return "settings"
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("None", "null").replace("pathlib.Path", "Path")


def _meanings(kind: Any) -> dict[str, str]:
    """Return the texts of the `Attributes:` section of a class's own docstring, by name."""
    meanings: dict[str, str] = {}
    name = ""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    for line in section.splitlines():
        if starts := re.match(r" {4}(\w+): (.*)", line):
            name, meanings[starts[1]] = starts[1], starts[2]
        elif line.startswith(" " * 8):
            meanings[name] += " " + line.strip()
        else:
            break
    return meanings
