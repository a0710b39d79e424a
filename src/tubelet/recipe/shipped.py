"""The YAML files that come with Tubelet, recipes and sweeps, and a user's own ones in their stead."""

from importlib import resources
from pathlib import Path
from typing import Any, Literal

from tubelet.errors import UserError, did_you_mean
from tubelet.files import read_text
from tubelet.recipe.yaml_text import YamlError, parse_yaml

Kind = Literal["recipe", "sweep"]
_CONTENT = {"recipe": "settings", "sweep": "a sweep"}


def shipped_names(kind: Kind) -> list[str]:
    """Return the names of the shipped files of a kind."""
    root = _folder(kind)
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def yaml_text(kind: Kind, name: str) -> str:
    """Return the text of a shipped file, or of one's own if the name ends in .yaml or .yml.

    Raises:
        UserError: it is not found or cannot be read.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            found = ": it is a folder" if path.is_dir() else ""
            raise UserError(f"there is no {kind} file at {path}{found}")
        return read_text(path, f"a {kind}")
    shipped = _folder(kind) / f"{name}.yaml"
    if not shipped.is_file():
        nearest = did_you_mean(name, shipped_names(kind)) or ";"
        raise UserError(
            f"there is no {kind} '{name}'{nearest} `tubelet {kind} list` shows them all; the name of your "
            f"own {kind} file must end in .yaml"
        )
    return shipped.read_text(encoding="utf-8")


def yaml_settings(kind: Kind, name: str) -> dict[str, Any]:
    """Return the settings in such a file.

    Raises:
        UserError: it is not found, not valid YAML, or has no settings.
    """
    try:
        content = parse_yaml(yaml_text(kind, name))
    except YamlError as error:
        where = f"{name}:{error.line}" if error.line else name
        raise UserError(f"{where} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{name} must contain {_CONTENT[kind]} as `key: value`, found {type(content).__name__}"
        )
    return content


def _folder(kind: Kind) -> Path:
    return Path(str(resources.files("tubelet") / f"{kind}s"))
