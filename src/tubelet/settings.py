"""Settings as dataclasses: parsed from plain values, written as plain values, compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, InitVar, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from tubelet.errors import UserError, did_you_mean, excerpt, short_repr

T = TypeVar("T")


_PATHS_SHOWN = 3
_OTHER_NAMES = {
    "lr": "base_lr", "learning_rate": "base_lr", "wd": "weight_decay", "bs": "batch_size",
    "num_workers": "workers", "num_epochs": "epochs", "data_path": "root", "finetune": "init",
    "pretrained": "init", "checkpoint": "init", "mask_ratio": "ratio", "num_frames": "frames",
    "input_size": "image_size", "sampling_rate": "stride", "clip_len": "frames",
}  # fmt: skip
"""What other projects call a setting -> its name."""


class _ByKind:
    """The mark of a union of dataclasses: `kind` says which one is meant, without it the first."""

    def __get_pydantic_core_schema__(self, union: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {option.kind: handler.generate_schema(option) for option in get_args(union)}
        first = next(iter(choices))

        def kind_of(settings: Any) -> str:
            if isinstance(settings, Mapping):
                return str(settings.get("kind", first))
            return getattr(settings, "kind", first)

        return core_schema.tagged_union_schema(choices, discriminator=kind_of)


BY_KIND = _ByKind()
"""For `Annotated[First | Second, BY_KIND]`, where each of the classes has a field `kind` with a default."""


def parse(kind: type[T], settings: Mapping[str, Any], source: str) -> T:
    """Build the dataclass `kind` from plain settings; every key must be one of its fields, at every level.

    Args:
        kind: the dataclass; its fields may be dataclasses themselves, or unions of them marked `BY_KIND`.
        settings: as read from YAML or JSON.
        source: where they are from, for the message.

    Raises:
        UserError: one line for each setting that is unknown, missing or wrong, with its path.
    """
    try:
        value = _adapter(cast(Any, kind)).validate_python([settings])[0]
        problems = [f"{key} must be an integer of 64 bits, found {found}" for key, found in _too_large(value)]
    except ValidationError as error:
        problems = [*_problems(kind, error.errors(include_url=False))]
    if problems:
        raise UserError("\n  ".join([f"{source} has settings that do not fit:", *problems]))
    return cast(T, value)


def to_plain(value: Any) -> Any:
    """Return settings as plain dicts, lists, strings and numbers, for YAML and JSON."""
    return _adapter(cast(Any, type(value))).dump_python([value], mode="json")[0]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ between two recipes in plain form, as "key: old -> new"."""
    flat_old, flat_new = dict(_flatten(old)), dict(_flatten(new))
    return [
        f"{key}: {flat_old.get(key, 'absent')} -> {flat_new.get(key, 'absent')}"
        for key in flat_old | flat_new
        if flat_old.get(key, "absent") != flat_new.get(key, "absent")
    ]


def _flatten(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, settings


def _too_large(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of each integer, in settings that are parsed, that PyTorch and NumPy cannot take."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield path, short_repr(value)
    elif is_dataclass(value):
        for name, inner in vars(value).items():
            yield from _too_large(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, tuple):
        for number, inner in enumerate(value):
            yield from _too_large(inner, f"{path}.{number}")


@cache
def _adapter(kind: Any) -> TypeAdapter[list[Any]]:
    # Pydantic takes a configuration for a list, not for a dataclass, and applies it to everything in it.
    return TypeAdapter(list[kind], config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))


def settings_of(kind: Any) -> dict[str, Field]:
    """Return what may be given for a dataclass, by name: its fields and its InitVars."""
    return dict(kind.__dataclass_fields__)


def options_of(annotation: Any) -> tuple[type, ...]:
    """Return the dataclasses that a setting of this type may be, also in a union or beside None."""
    if isinstance(annotation, InitVar):
        annotation = annotation.type
    if isinstance(annotation, type) and is_dataclass(annotation):
        return (annotation,)
    return tuple(option for part in get_args(annotation) for option in options_of(part))


def _problems(kind: type, details: Sequence[ErrorDetails]) -> Iterator[str]:
    """Yield one line for each error that pydantic found."""
    of_another_kind: dict[
        tuple[str, str], list[tuple[str, list[str]]]
    ] = {}  # by the settings that they are in and their kind
    for detail in details:
        path, owners, options = _locate(kind, detail["loc"][1:])
        *parents, name = path or [""]
        key, given = excerpt(".".join(path)), detail["input"]
        found = f"found {short_repr(given)}"
        at = f"{key}: " if key else ""
        kinds = [option.kind for option in options if hasattr(option, "kind")]
        match detail["type"]:
            case "missing":
                others = given if isinstance(given, Mapping) else ()
                hint = did_you_mean(name, [str(other) for other in others if other != name])
                yield f"{key} is missing{hint.replace('did you mean', 'is it misspelled as')}"
            case "unexpected_keyword_argument" if any(name in settings_of(owner) for owner in owners[1:]):
                theirs = [owner.kind for owner in owners[1:] if name in settings_of(owner)]
                of_another_kind.setdefault((".".join(parents), owners[0].kind), []).append((key, theirs))
            case "unexpected_keyword_argument":
                yield f"{key} is not a setting{_hint_at_setting(path, owners[0], kind)}"
            case "union_tag_invalid":
                yield _wrong_kind(f"{at}kind".replace(": ", "."), given["kind"], kinds)
            case "literal_error" if name == "kind":
                yield _wrong_kind(key, given, [owners[0].kind])
            case "value_error":
                yield excerpt(f"{at}{detail['ctx']['error']}", 1000)
            case "dataclass_type":
                near = get_close_matches(given, kinds, n=1, cutoff=0) if isinstance(given, str) else []
                hint = f"; write '{key}={{kind: {near[0]}}}'" if near else ""
                yield f"{at}expected settings as `key: value`, {found}{hint}"
            case _:
                yield f"{at}{detail['msg'][0].lower()}{detail['msg'][1:]}, {found}"
    for (parent, chosen), found_there in of_another_kind.items():
        keys, first = [key for key, _ in found_there], found_there[0][1]
        theirs = [other for other in first if all(other in others for _, others in found_there)]
        are = "is not a setting" if len(keys) == 1 else "are not settings"
        has = f", but of {', '.join(theirs)}" if theirs else ""
        either = f"'{parent}={{kind: {chosen}}}' or '{parent}={{kind: {(theirs or first)[0]}}}'"
        hint = f": {either} replaces the whole of {parent}" if parent else ""
        yield f"{', '.join(keys)} {are} of kind {chosen}{has}{hint}"


def _hint_at_setting(path: Sequence[str], owner: type, root: type) -> str:
    """Return which setting may be meant: one beside it, by its usual name, or one somewhere else."""
    *parents, name = path
    own, prefix = _OTHER_NAMES.get(name, name), "".join(f"{parent}." for parent in parents)
    if own in settings_of(owner):
        return f"; did you mean '{prefix}{own}'?"
    paths = [path for path in dict.fromkeys(_setting_paths(root)) if path.rpartition(".")[2] == own]
    if paths and (own != name or not did_you_mean(name, settings_of(owner))):
        return f"; did you mean {' or '.join(repr(path) for path in paths[:_PATHS_SHOWN])}?"
    return did_you_mean(name, settings_of(owner), prefix)


def _setting_paths(kind: type, prefix: str = "") -> Iterator[str]:
    """Yield the path of each setting of a dataclass and of those in it, but not of those in its lists."""
    for name, item in settings_of(kind).items():
        yield prefix + name
        for option in () if get_origin(item.type) in (tuple, dict) else options_of(item.type):
            yield from _setting_paths(option, f"{prefix}{name}.")


def _locate(kind: type, loc: Sequence[int | str]) -> tuple[list[str], list[Any], list[Any]]:
    """Find a location of pydantic's, in which the chosen kind follows each setting that is a union.

    Returns:
        The path of the setting; the dataclass that it is in, followed by that one's other kinds; the
        dataclasses that the setting may be.
    """
    path: list[str] = []
    owners: list[Any] = []
    options: list[Any] = list(options_of(kind))
    chosen = len(options) == 1
    is_name = False
    for part in loc:
        if isinstance(part, int) or is_name:  # an entry of a list, or a name in a mapping
            path.append(str(part))
            is_name = False
        elif not chosen and options:
            options.sort(key=lambda option: option.kind != part)
            chosen = True
        else:
            path.append(str(part))
            item = settings_of(options[0]).get(str(part)) if options else None
            owners, options = options, list(options_of(item.type)) if item else []
            is_name = item is not None and get_origin(item.type) is dict
            chosen = len(options) == 1
    return path, owners, options


def _wrong_kind(key: str, given: Any, kinds: Sequence[str]) -> str:
    one_of = "one of " if len(kinds) > 1 else ""
    hint = did_you_mean(given, kinds) if isinstance(given, str) else ""
    return f"{key} must be {one_of}{', '.join(kinds)}, found {short_repr(given)}{hint}"
