"""Masked video autoencoders: pre-train, fine-tune, recognize actions, see reconstructions.

The public names are listed once, in `__init__.pyi`, where type checkers read them. Here a name is imported
when it is first used: `import tubelet` loads no other module.
"""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


@cache
def _modules() -> dict[str, str]:
    """Return the module of each public name, as imported in `__init__.pyi`."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [statement for statement in stub.body if isinstance(statement, ast.ImportFrom)]
    return {alias.name: str(statement.module) for statement in imports for alias in statement.names}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    if name not in _modules():
        raise AttributeError(f"module 'tubelet' has no attribute '{name}'")
    module = import_module(_modules()[name])
    value = getattr(module, name) if hasattr(module, name) else import_module(f"{module.__name__}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_modules())
