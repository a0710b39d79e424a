"""What every setting of a recipe means: read off the dataclasses and their docstrings."""

import dataclasses
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from tubelet.errors import UserError, did_you_mean
from tubelet.recipe.schema import TASKS, EvaluateRecipe

_KINDS = {**TASKS, "evaluate": EvaluateRecipe}


def explain(task: str) -> Iterator[tuple[str, str, str, str]]:
    """Every setting of a task's recipes: (key, type, default, meaning)."""
    if task not in _KINDS:
        raise UserError(
            f"no recipes for '{task}'{did_you_mean(task, _KINDS) or ';'} there are: {', '.join(_KINDS)}"
        )
    yield from _explain(_KINDS[task], "")


def _explain(kind: Any, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    meanings = {name: text for base in reversed(kind.__mro__) for name, text in _meanings(base).items()}
    for item in dataclasses.fields(kind):
        key = prefix + item.name
        options = [option for option in _options(item.type) if dataclasses.is_dataclass(option)]
        default = _default(item)
        if item.name in ("kind", "task"):
            continue
        if not options:
            yield key, _type_name(item.type), default, meanings.get(item.name, "")
            continue
        kinds = [str(option.kind) for option in options if hasattr(option, "kind")]
        yield key, " | ".join(kinds) or "settings", default, meanings.get(item.name, "")
        for option, name in zip(options, kinds or [""], strict=True):
            yield from _explain(option, f"{key}{f'[{name}]' if len(kinds) > 1 else ''}.")


def _default(item: dataclasses.Field) -> str:
    if item.default is not dataclasses.MISSING:
        plain = (
            item.default if not dataclasses.is_dataclass(item.default) else getattr(item.default, "kind", "")
        )
        return "null" if plain is None else str(plain)
    if item.default_factory is not dataclasses.MISSING:
        return str(getattr(item.default_factory(), "kind", ""))
    return "required"


def _options(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ()) if not isinstance(annotation, type) else (annotation,)


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, annotation.__args__))
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join("null" if part is type(None) else _type_name(part) for part in get_args(annotation))
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return annotation.__name__
    return str(annotation).replace("None", "null").replace("pathlib.Path", "Path")


def _meanings(kind: Any) -> dict[str, str]:
    """The `Attributes:` section of a class's own docstring: name to text."""
    meanings: dict[str, str] = {}
    name = ""
    _, _, section = (kind.__doc__ or "").partition("Attributes:\n")
    for line in section.splitlines():
        if line.startswith("        ") and not line.startswith("         "):
            name, _, text = line.strip().partition(": ")
            meanings[name] = text
        elif name and line.startswith("            "):
            meanings[name] += " " + line.strip()
    return meanings
