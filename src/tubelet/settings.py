"""Settings as dataclasses: parsed, written plainly, compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from tubelet.errors import UserError, did_you_mean


def to_plain(value: Any) -> Any:
    """Settings as plain dicts, lists, strings and numbers, for YAML and JSON."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def parse(kind: Any, settings: Mapping[str, Any], source: str) -> Any:
    """Build the dataclass `kind` from plain settings, refusing whatever does not fit.

    Raises:
        UserError: one line for each setting that is unknown, missing or wrong, with its path.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        value = adapter.validate_python(settings)
    except ValidationError as error:
        problems = list(_problems(error, settings, kind))
    else:
        problems = list(_unknown(settings, adapter.dump_python(value), kind, ()))
    if problems:
        once = dict.fromkeys(problems)  # alternatives of a union may fail alike
        raise UserError("\n  ".join([f"{source} has settings that do not fit:", *once]))
    return value


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Settings that differ between two recipes in plain form: "key: old -> new"."""
    flat_old, flat_new = dict(_flatten(old)), dict(_flatten(new))
    keys = [*flat_old, *(key for key in flat_new if key not in flat_old)]
    return [
        f"{key}: {flat_old.get(key, 'absent')} -> {flat_new.get(key, 'absent')}"
        for key in keys
        if flat_old.get(key, "absent") != flat_new.get(key, "absent")
    ]


def _problems(error: ValidationError, settings: Mapping[str, Any], kind: Any) -> Iterator[str]:
    details = error.errors()
    # A union fails once for each of its alternatives: `kind` says which of them is meant, if any.
    others = {
        detail["loc"][:-1]: detail
        for detail in details
        if detail["type"] == "literal_error" and detail["loc"][-1] == "kind"
    }
    for detail in details:
        loc, given = detail["loc"], detail["input"]
        path = _path(loc, settings)
        if detail["type"] == "missing":
            path.append(str(loc[-1]))
        key = ".".join(path)
        at = f"{key}: " if key else ""
        other = next((branch for branch in others if loc[: len(branch)] == branch), None)
        if other is not None:
            yield from _wrong_kind(other, others, details, settings)
            continue
        match detail["type"]:
            case "missing":
                beside = [name for name in (given if isinstance(given, dict) else {}) if name != path[-1]]
                yield f"{key} is missing{_misspelt(path[-1], beside)}"
            case "value_error":
                yield f"{at}{detail['ctx']['error']}"
            case "dataclass_type":
                hint = _as_kind(key, given, _alternatives(kind, path))
                yield f"{at}expected settings as `key: value`, found {given!r}{hint}"
            case _:
                yield f"{at}{detail['msg'][0].lower()}{detail['msg'][1:]}, found {given!r}"


def _path(loc: Sequence[Any], settings: Any) -> list[str]:
    """The settings that lead to a problem; pydantic puts the alternatives of unions between them."""
    path = []
    for part in loc:
        try:
            settings = settings[part]
        except (LookupError, TypeError):
            continue
        path.append(str(part))
    return path


def _wrong_kind(
    other: tuple[Any, ...], others: Mapping[Any, Any], details: Sequence[Any], settings: Any
) -> Iterator[str]:
    """Of an alternative that `kind` does not mean: nothing, unless it means none of them."""
    place = _path(other, settings)
    here = [detail["loc"] for detail in details if _path(detail["loc"], settings)[: len(place)] == place]
    alternatives = {loc[: len(other)] for loc in here}
    if alternatives <= others.keys():
        kinds = [others[one]["ctx"]["expected"].strip("'") for one in others if one in alternatives]
        given = others[other]["input"]
        yield (
            f"{'.'.join([*place, 'kind'])} must be {'one of ' if len(kinds) > 1 else ''}{', '.join(kinds)}, "
            f"found {given!r}{did_you_mean(str(given), kinds)}"
        )


def _misspelt(name: str, given: Sequence[str]) -> str:
    near = did_you_mean(name, given)
    return near.replace("did you mean", "is it meant by") if near else ""


def _unknown(given: Any, known: Any, kind: Any, path: Sequence[str]) -> Iterator[str]:
    """Keys that validation passed over because no field has their name."""
    if not isinstance(given, Mapping) or not isinstance(known, Mapping):
        return
    place = ".".join(path)
    prefix = f"{place}." if place else ""
    names = {item.name for option in _alternatives(kind, path) for item in fields(option)}
    for key, value in given.items():
        if key in known:
            yield from _unknown(value, known[key], kind, [*path, str(key)])
        elif key not in names:
            yield f"{prefix}{key} is not a setting{did_you_mean(str(key), [str(k) for k in known])}"
    others = [f"{prefix}{key}" for key in given if key not in known and key in names]
    if others:  # settings of another kind: they stood there when this one was chosen
        are = "is not a setting" if len(others) == 1 else "are not settings"
        chosen = known["kind"]
        yield f"{', '.join(others)} {are} of kind {chosen}" + (
            f": '{place}={{kind: {chosen}}}' replaces the whole of {place}" if place else ""
        )


def _alternatives(kind: Any, path: Sequence[str]) -> list[Any]:
    """The dataclasses that the settings at a path may be."""
    options = [option for option in get_args(kind) or (kind,) if is_dataclass(option)]
    if not path:
        return options
    here = [item.type for option in options for item in fields(option) if item.name == path[0]]
    return [option for type in here for option in _alternatives(type, path[1:])]


def _as_kind(key: str, given: Any, options: Sequence[Any]) -> str:
    """How to write settings whose kind alone is given, with the nearest there is."""
    kinds = [option.kind for option in options if hasattr(option, "kind")]
    if not kinds or not isinstance(given, str):
        return ""
    near = get_close_matches(given, kinds, n=1, cutoff=0)[0]
    return f"; write '{key}={{kind: {near}}}'"


def _flatten(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, settings
