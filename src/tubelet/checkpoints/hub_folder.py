"""Read a Hugging Face folder: weights in one file or in parts, and settings in JSON files."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tubelet.checkpoints.hub import HUB_CONFIG, HUB_SETTINGS, HUB_WEIGHTS
from tubelet.checkpoints.other_files import describe_other_folder
from tubelet.checkpoints.read_file import read_content, read_json
from tubelet.errors import UserError


def read_hub_folder(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the content of the weights' file or parts, and the settings by the names of their files.

    Raises:
        UserError: a file is missing or damaged, or the list of parts names a file outside the folder.
    """
    settings = {name: read_json(folder / name) for name in HUB_SETTINGS if (folder / name).is_file()}
    for name in HUB_WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return read_content(folder / name), settings
        if index.is_file():
            return _read_parts(index), settings
    raise UserError(
        describe_other_folder(folder)
        or f"{folder} has a {HUB_CONFIG}, but neither {' nor '.join(HUB_WEIGHTS)}"
    )


def _read_parts(index: Path) -> dict[str, Any]:
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise UserError(f"{index}: expected weight_map to name a file for each weight")
    weights: dict[str, Any] = {}
    for name in sorted(set(files.values())):
        if PurePosixPath(name).name != name or PureWindowsPath(name).name != name:
            raise UserError(f"{index}: expected weight_map to name files in its own folder, found {name}")
        part = read_content(index.parent / name)
        if not isinstance(part, dict):
            raise UserError(f"{index.parent / name}: expected named tensors, found {type(part).__name__}")
        if twice := weights.keys() & part.keys():
            raise UserError(f"{index.parent / name}: another part also has {min(map(str, twice))}")
        weights |= part
    return weights
