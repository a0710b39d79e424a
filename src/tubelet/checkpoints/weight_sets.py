"""The sets of weights in a checkpoint, under any keys and prefixes of wrappers; here one is chosen.

A file may have the weights as they were trained and their average, a student and a teacher, or the state of
an optimizer and of metrics beside them. A set is a dictionary, or the names with one prefix in it, in which a
family recognizes its tensors.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.checkpoints.families import FAMILIES
from tubelet.checkpoints.families.family import Family
from tubelet.checkpoints.hub import HUB_CONFIG
from tubelet.checkpoints.hub_folder import read_hub_folder
from tubelet.checkpoints.other_files import merge_adapter
from tubelet.checkpoints.read_file import Checkpoint, float_tensors, read_content
from tubelet.errors import UserError, excerpt, first_few

_OUTER_KEYS = ("model", "module", "model_state", "state_dict", "model_state_dict")
"""Where code bases store the weights that they load."""
_WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
"""What torch.compile, FSDP, activation checkpointing and Lightning add to names."""
_AVERAGE = re.compile(
    r"((^|[._])(?i:ema|swa|avg|averaged?|shadow)|(?<=[a-z])(EMA|Ema|SWA|Swa|Avg|Averaged?|Shadow))([._]|$)"
)
"""In the name of an average: `model_ema`, `modelEMA`."""
_PARTS = ("backbone", "encoder")
"""Prefixes of a part of a model."""
_MAX_LEVELS = 8
_log = logging.getLogger("tubelet")


@dataclass(frozen=True)
class WeightSet:
    """The weights of one model in a file.

    Attributes:
        keys: the keys of the dictionaries around it.
        prefix: what its tensors' names begin with there, with a dot at the end.
        family: the code base that names its tensors like this.
        weights: the tensors, without that prefix.
        is_average: whether it is an average over training.
        unexpected: names of other tensors in the same dictionary, which are not of any set.
    """

    keys: tuple[str, ...]
    prefix: str
    family: Family
    weights: Mapping[str, Any]
    is_average: bool
    unexpected: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The keys and the prefix, such as `state_dict.model`."""
        return ".".join([*self.keys, *filter(None, [self.prefix.rstrip(".")])])


def read_checkpoint(
    path: Path, wanted: str | None = None, *, allow_nonfinite: bool = False
) -> tuple[Family, Checkpoint]:
    """Read a checkpoint file or a Hugging Face folder, and find out which code base wrote it.

    Args:
        path: the file or folder.
        wanted: the set of weights, as in `load_model`.
        allow_nonfinite: whether values may be NaN or infinite.

    Raises:
        UserError: it cannot be read, it is not from a known family, it has more than one set of weights or
            not the wanted one, or its weights are not plain finite numbers.
    """
    content, settings = read_hub_folder(path) if path.is_dir() else (read_content(path), {})
    source = str(path)
    sets = find_sets(content, source)
    if not sets:
        raise _unknown(content, source)
    chosen = _choose(sets, wanted, source)
    if chosen.unexpected:
        _report_unexpected(chosen, source)
    others = settings | _beside(content, chosen)
    if len(sets) > 1:
        others["weights"] = chosen.name
    _check_model_type(chosen.family, others, source)
    tensors = {name: value for name, value in chosen.weights.items() if isinstance(value, Tensor)}
    weights = float_tensors(tensors, source, allow_nonfinite=allow_nonfinite)
    return chosen.family, Checkpoint(source, weights, others)


def find_sets(content: Any, source: str) -> list[WeightSet]:
    """Return all sets of weights of known families.

    Raises:
        UserError: names are the same without what wrappers add to them.
    """
    return [
        found
        for keys, named in _dictionaries(content, (), set())
        if not any(key.startswith("optim") for key in keys)
        for found in _sets_in(keys, named, content, source)
    ]


def _dictionaries(
    content: Any, keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Yield all dictionaries with tensors, and the keys that lead there; one may contain itself."""
    if not isinstance(content, Mapping) or id(content) in seen or len(keys) > _MAX_LEVELS:
        return
    seen.add(id(content))
    if any(isinstance(value, Tensor) for value in content.values()):
        yield keys, content
    for key, value in content.items():
        yield from _dictionaries(value, (*keys, str(key)), seen)


def _sets_in(
    keys: tuple[str, ...], named: Mapping[Any, Any], content: Mapping[str, Any], source: str
) -> Iterator[WeightSet]:
    plain = {_WRAPPERS.sub("", str(name)): value for name, value in named.items()}
    if len(plain) < len(named):
        raise UserError(f"{source} has the same weights twice, with and without what wrappers add to names")
    found: dict[str, tuple[Family, dict[str, Any]]] = {}
    for prefix in _prefixes(plain):
        if not any(prefix.startswith(outer) for outer in found):
            inner = {name.removeprefix(prefix): x for name, x in plain.items() if name.startswith(prefix)}
            family = next((family for family in FAMILIES if family.matches(inner)), None)
            if family:
                found[prefix] = family, inner
    unexpected = tuple(
        name
        for name, value in plain.items()
        if isinstance(value, Tensor) and not name.startswith(tuple(found)) and not name.endswith("n_averaged")
    )
    for prefix, (family, inner) in found.items():
        counter = f"{prefix.removesuffix('module.')}n_averaged"  # of torch.optim.swa_utils.AveragedModel
        is_average = counter in plain or _is_average(keys, prefix, content)
        yield WeightSet(keys, prefix, family, inner, is_average, unexpected)


def _prefixes(names: Mapping[str, Any]) -> list[str]:
    """Everything before the patch embedding's name, and each part of it; the shortest first."""
    prefixes = set()
    for name in names:
        before, embedding, _ = name.partition("patch_embed")
        if embedding:
            parts = before.split(".")[:-1]
            prefixes |= {"".join(f"{part}." for part in parts[:count]) for count in range(len(parts) + 1)}
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix))


def _is_average(keys: tuple[str, ...], prefix: str, content: Mapping[str, Any]) -> bool:
    """Whether the names say so; mmengine and Lightning store an average as `state_dict`, if they have one."""
    meta = content.get("meta")
    if isinstance(meta, Mapping) and "mmengine_version" in meta and "ema_state_dict" in content:
        return keys[:1] == ("state_dict",)
    if "current_model_state" in content:
        return keys[:1] == ("state_dict",)
    return any(_AVERAGE.search(name) for name in (*keys, prefix))


def _choose(sets: list[WeightSet], wanted: str | None, source: str) -> WeightSet:
    names = first_few([found.name + " (average)" * found.is_average for found in sets])
    if wanted is not None:
        fitting = [found for found in sets if _is_wanted(found, wanted)]
        if len(fitting) != 1:
            raise UserError(
                f"{source}: expected weights={wanted} to be one of its sets of weights, found "
                f"{names or 'only one, without a name'}"
            )
        return fitting[0]
    usual = [found for found in sets if not _AVERAGE.search(found.name)] or sets
    usual = [found for found in usual if found.keys and found.keys[0] in _OUTER_KEYS] or usual
    usual = [found for found in usual if not found.is_average] or usual
    if len(usual) > 1:
        raise UserError(
            f"{source} has more than one set of weights, {names}: choose one by its name, weights=NAME "
            "(--weights NAME)"
        )
    if len(sets) > 1:
        _log.warning(
            "%s has more than one set of weights, %s: %s was loaded; weights=NAME (--weights NAME) chooses "
            "another%s",
            *(source, names, usual[0].name),
            ", weights=ema the average" if any(found.is_average for found in sets) else "",
        )
    return usual[0]


def _is_wanted(found: WeightSet, wanted: str) -> bool:
    return wanted in (found.name, *found.name.split(".")) or (wanted == "ema" and found.is_average)


def _report_unexpected(chosen: WeightSet, source: str) -> None:
    """Log what is left out beside a model; refuse it beside a part of one, as it is the model's, too."""
    names = first_few(chosen.unexpected, 4)
    if chosen.prefix.split(".")[-2] in _PARTS:
        raise UserError(
            f"{source}: expected only {chosen.prefix}*, a model of {chosen.family.title}, found also "
            f"{names}, which that model does not have"
        )
    _log.warning("%s: left out %s, which is not of the model (%s*)", source, names, chosen.prefix)


def _beside(content: Any, chosen: WeightSet) -> dict[str, Any]:
    """What is stored on the way to a set and in its dictionary, without the tensors there."""
    others: dict[str, Any] = {}
    for key in chosen.keys:
        inner = next(value for name, value in content.items() if str(name) == key)
        others |= {str(name): value for name, value in content.items() if str(name) != key}
        content = inner
    return others | {str(name): x for name, x in content.items() if not isinstance(x, Tensor)}


def _check_model_type(family: Family, others: Mapping[str, Any], source: str) -> None:
    if HUB_CONFIG in others:
        found = excerpt(str(others[HUB_CONFIG].get("model_type")))
        if family.model_type is None or not found.startswith(family.model_type):
            raise UserError(
                f"{source}: its weights have the names of {family.title}, but {HUB_CONFIG} says "
                f"model_type {found}; expected {family.model_type}"
            )


def _unknown(content: Any, source: str) -> UserError:
    """Why there is no set of weights of a known family."""
    if not isinstance(content, Mapping):
        return UserError(f"{source} has no weights: expected a dictionary, found {type(content).__name__}")
    _, named = next(_dictionaries(content, (), set()), ((), {}))
    names = [str(name) for name, value in named.items() if isinstance(value, Tensor)]
    if not names:
        found = first_few([*map(str, content)]) or "nothing"
        return UserError(f"{source} has no weights: expected named tensors, found {found}")
    if any("lora_" in name for name in names):
        return UserError(f"{source} is a PEFT adapter: {merge_adapter()}")
    if "encoder.embed.project.weight" in names:
        return UserError(f"{source} has Tubelet's own weights: give the folder with config.json beside it")
    return UserError(
        f"{source} is not from a known family ({', '.join(family.title for family in FAMILIES)}): its first "
        f"tensors are {first_few(names, 4)}"
    )
