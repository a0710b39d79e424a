"""Files and folders that are not checkpoints to read: what they are, and the way from there to one."""

import json
import pickle
import pickletools
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from tubelet.checkpoints.hub import HUB_ADAPTER, HUB_WEIGHTS

SAVE_WEIGHTS = 'torch.save(torch.load(PATH, weights_only=False)["model"], "weights.pth")'
_TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")
"""The number that every file of torch.save before the zip format begins with, as pickle writes it."""
_SIGNATURES = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`",
    b"<!doctype html": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"BZh": "compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "compressed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it first",
    b"\x89HDF": "an HDF5 file (Keras): give the weights for PyTorch",
    b"GGUF": "a GGUF file: give the weights for PyTorch",
}
_PICKLE_STARTS = (pickle.PROTO, b"(", b"c", b"}", b"]")
"""First bytes of pickles; those of protocols 0 and 1 may be text as well."""
_SUFFIXES = (".pth", ".pt", ".pyth", ".ckpt", ".bin", ".safetensors")
_NAMES_SHOWN = 4


def describe_other_file(path: Path, head: bytes) -> str | None:
    """Return what a file is and what to do, or None if its first bytes are those of a checkpoint."""
    for signature, kind in _SIGNATURES.items():
        if head.lower().startswith(signature.lower()):
            return kind
    if head.startswith(b"PK"):
        return _describe_zip(path)
    if head[:1] in _PICKLE_STARTS and _TORCH_MAGIC not in head:
        return _describe_pickle(path)
    return None


def _describe_pickle(path: Path) -> str | None:
    content = path.read_bytes()
    names, is_whole = _scan_pickle(content)
    if not is_whole and not (names and content.startswith(pickle.PROTO)):
        return None  # It is truncated, or text that begins like one.
    calls = f", which could run code when it is opened ({', '.join(names[:_NAMES_SHOWN])})" if names else ""
    return f"a bare pickle, not a file of torch.save{calls}: {_once(SAVE_WEIGHTS)}"


def newer_pickle_names(path: Path) -> tuple[str, ...]:
    """Return what the pickle in a file of torch.save imports if its protocol is above 3, else nothing.

    torch.load(weights_only=True) reads only the older protocols.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = next(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    else:
        with path.open("rb") as file:
            content = file.read(1 << 20)
    if content[:1] != pickle.PROTO or content[1:2] <= b"\x03":
        return ()
    return tuple(_scan_pickle(content)[0][:_NAMES_SHOWN] or ["of unknown content"])


def _describe_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # Reading it says how it is damaged.
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        save = 'torch.save(torch.jit.load(PATH, map_location="cpu").state_dict(), "weights.pth")'
        return f"a TorchScript archive, which contains a program: {_once(save)}"
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        save = 'torch.save(torch.export.load(PATH).state_dict, "weights.pth")'
        return f"a program of torch.export: {_once(save)}"
    if "data.pkl" in inner:
        return None
    has_arrays = names and all(name.endswith(".npy") for name in names)
    kind = "an archive of NumPy arrays" if has_arrays else "a zip archive"
    found = ", ".join(names[:_NAMES_SHOWN]) or "nothing"
    return f"not a checkpoint but {kind} (with {found}): unpack it and give the checkpoint in it"


def _once(command: str) -> str:
    return f"if you trust its source, save only its weights once, {command}"


def _scan_pickle(content: bytes) -> tuple[list[str], bool]:
    """Return what a pickle imports (module.name), without running it, and whether it has an end."""
    names: list[str] = []
    texts: list[str] = []  # The strings pushed so far; the last two are what STACK_GLOBAL takes.
    memo: dict[int, str] = {}
    top = ""  # The top of the stack if it is a string.
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name in ("GLOBAL", "INST"):
                names.append(str(argument).replace(" ", "."))
            elif operation.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif operation.name == "MEMOIZE" or operation.name.endswith("PUT"):
                memo[len(memo) if argument is None else int(argument)] = top
                continue
            if operation.name.endswith("GET"):
                argument = memo.get(int(str(argument)), "")
            top = argument if isinstance(argument, str) else ""
            texts += [top] * bool(top)
    except Exception:  # Damaged bytes make pickletools fail in any way.
        return list(dict.fromkeys(names)), False
    return list(dict.fromkeys(names)), True


def models_below(folder: Path) -> list[Path]:
    """Return the folders with a whole model, such as runs, one or two levels below a folder."""
    found = [path.parent for pattern in ("*/config.json", "*/*/config.json") for path in folder.glob(pattern)]
    models = {path for path in found if any((path / name).is_file() for name in HUB_WEIGHTS)}
    return sorted(path for path in models if path.parent not in models)  # not the best/ of a run


def describe_other_folder(folder: Path) -> str | None:
    """Return what a folder without a model is and what to give instead, or None if that is not known."""
    names = sorted(entry.name for entry in folder.iterdir())
    if HUB_ADAPTER in names:
        return f"{folder} is a PEFT adapter: {merge_adapter(folder)}"
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        convert = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pth"
        return f"{folder} is a distributed checkpoint of PyTorch: convert it once, `{convert}`"
    steps = [name for name in names if re.fullmatch(r"checkpoint-\d+", name) and (folder / name).is_dir()]
    if steps:
        steps.sort(key=lambda name: int(name.rpartition("-")[2]))
        return (
            f"{folder} has its models in {', '.join(steps[-_NAMES_SHOWN:])}, as Hugging Face's Trainer "
            f"writes them: give one of these, such as {folder / steps[-1]}"
        )
    if models := models_below(folder):
        shown = ", ".join(str(model.relative_to(folder)) for model in models[:_NAMES_SHOWN])
        return f"no model in {folder} itself, but in {shown}: give one of these, such as {models[0]}"
    found = [folder / name for name in names if name.endswith(_SUFFIXES)]
    found += [path for name in names for path in (folder / name).glob("mp_rank_00_model_states.pt")]
    if found:
        shown = ", ".join(str(path.relative_to(folder)) for path in found[:_NAMES_SHOWN])
        return f"no model in {folder}, but the files {shown}: give one of these, such as {found[-1]}"
    return None


def merge_adapter(folder: Path | None = None) -> str:
    """Return how to make a model of a PEFT adapter, naming the base model if the folder records it."""
    base: Any = None
    if folder:
        with suppress(OSError, ValueError, AttributeError, RecursionError):
            settings = json.loads((folder / HUB_ADAPTER).read_text(encoding="utf-8"))
            base = settings.get("base_model_name_or_path")
    return (
        f"it is only complete with its base model{f' {base}' if isinstance(base, str) else ''}: merge them "
        "once, PeftModel.from_pretrained(base, ADAPTER).merge_and_unload().save_pretrained(OUT), and give OUT"
    )
