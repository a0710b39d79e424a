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
    files = weight_files(folder)
    if len(files) == 1:
        return read_content(files[0]), settings
    weights: dict[str, Any] = {}
    for file in files:
        part = read_content(file)
        if not isinstance(part, dict):
            raise UserError(f"{file}: expected named tensors, found {type(part).__name__}")
        if twice := weights.keys() & part.keys():
            raise UserError(f"{file}: another part also has {min(map(str, twice))}")
        weights |= part
    return weights, settings


def weight_files(folder: Path) -> list[Path]:
    """Return the file with the weights of a folder, or its parts, which an index names.

    Raises:
        UserError: it has no weights, or the index is damaged or names a file outside the folder.
    """
    for name in HUB_WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            return [folder / part for part in _parts(index)]
    raise UserError(
        describe_other_folder(folder)
        or f"{folder} has a {HUB_CONFIG}, but neither {' nor '.join(HUB_WEIGHTS)}"
    )


def _parts(index: Path) -> list[str]:
    files = read_json(index).get("weight_map")
    if not files or not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise UserError(f"{index}: expected weight_map to name a file for each weight")
    parts = sorted(set(files.values()))
    for name in parts:
        inside = PurePosixPath(name).name == name and PureWindowsPath(name).name == name
        if not inside or not name.strip("."):
            raise UserError(f"{index}: expected weight_map to name files in its own folder, found {name}")
    return parts
