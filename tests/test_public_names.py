"""`import tubelet`: every public name, and the types in public signatures."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar, get_args, get_type_hints

import pytest

import tubelet

PUBLIC = {name: getattr(tubelet, name) for name in dir(tubelet)}


def functions(value: Any) -> Iterator[FunctionType]:
    """Yield what a user calls: a function, the methods of a class, the functions of a module."""
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, type):
        for name, member in vars(value).items():
            member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if isinstance(member, FunctionType) and (name == "__init__" or not name.startswith("_")):
                yield member
    elif isinstance(value, ModuleType):
        for name, member in vars(value).items():
            if not name.startswith("_") and getattr(member, "__module__", "") == value.__name__:
                yield from functions(member)


def types_in(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation consists of."""
    if isinstance(annotation, TypeVar) and annotation.__bound__:
        yield from types_in(annotation.__bound__)
    if isinstance(annotation, type):
        yield annotation
    for part in get_args(annotation):
        yield from types_in(part)


def test_every_public_name_is_found_in_any_order_of_imports() -> None:
    assert {"load_model", "evaluate", "visualize", "open_video", "TokenMask"} <= PUBLIC.keys()
    for module in pkgutil.walk_packages(tubelet.__path__, "tubelet."):
        if module.name != "tubelet.__main__":
            importlib.import_module(module.name)
    modules = [name for name in dir(tubelet) if isinstance(getattr(tubelet, name), ModuleType)]
    assert modules == ["visualize"]  # no other name is that of a package, too
    assert {name: getattr(tubelet, name) for name in PUBLIC} == PUBLIC
    assert all(inspect.getdoc(value) for value in PUBLIC.values())
    namespace: dict[str, Any] = {}
    exec("from tubelet import *", namespace)
    assert PUBLIC.keys() <= namespace.keys()
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        tubelet.nothing_of_this_name  # type: ignore[attr-defined]  # noqa: B018


def test_types_of_public_signatures_are_public() -> None:
    # Training calls these methods of settings.
    exempt: set[Any] = {tubelet.Augment.draw_crop, tubelet.Mixing.draw}
    public = list(PUBLIC.values())
    missing = {
        f"{kind.__module__}.{kind.__qualname__} in {function.__qualname__}"
        for value in public
        for function in functions(value)
        if function not in exempt
        for annotation in get_type_hints(function).values()
        for kind in types_in(annotation)
        if kind.__module__.startswith("tubelet") and kind not in public
    }
    assert missing == set()


def test_public_functions_take_paths_as_text_too() -> None:
    for name, value in PUBLIC.items():
        for function in functions(value):
            if function.__name__ == "__init__" and is_dataclass(value):
                continue
            hints = get_type_hints(function)
            for parameter in inspect.signature(function).parameters:
                kinds = set(types_in(hints.get(parameter)))
                if Path in kinds or parameter == "path":
                    assert {Path, str} <= kinds, f"{name}: {parameter} of {function.__qualname__}"


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import sys, tubelet; print([name for name in sys.modules if name.startswith('tubelet.')])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
