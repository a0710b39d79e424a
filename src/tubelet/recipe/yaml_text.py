"""YAML as mappings, lists, text and null; the type of a setting decides what its text means."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

_MAX_CHARACTERS = 200_000
_MAX_VALUES = 10_000  # with the repeated ones of aliases
_NULL = ("", "~", "null", "Null", "NULL")


class YamlError(ValueError):
    """Why a text cannot be used as settings.

    Attributes:
        line: the line of the problem, from 1; None if it is not in a certain line.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML document: dicts, lists, None and, for every other value, its text.

    Numbers, booleans and dates stay text, so that 2024 or 0123 can also be the name of a folder.

    Raises:
        YamlError: the text is not one YAML document, has a key twice or a NUL character, or it is too large
            or too deeply nested for settings.
    """
    if len(text) > _MAX_CHARACTERS:
        raise YamlError(f"{len(text):,} characters are too many")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _value(node, iter(range(_MAX_VALUES)))
    except RecursionError:
        raise YamlError("it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(problem, error.problem_mark.line + 1 if error.problem_mark else None) from None
    except yaml.YAMLError as error:
        raise YamlError(str(error).splitlines()[0]) from None


def _value(node: Any, budget: Iterator[int]) -> Any:
    """Return the value of a node, while there is a budget of values."""
    if next(budget, None) is None:
        raise YamlError(f"more than {_MAX_VALUES:,} values, aliases included, are too many")
    if not re.fullmatch(r"tag:yaml\.org,2002:\w+", node.tag):
        raise YamlError(f"the tag {node.tag} is unknown", node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, budget)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, budget) for item in node.value]
    return plain_value(_text(node)) if node.style is None else _text(node)


def _mapping(node: yaml.MappingNode, budget: Iterator[int]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlError("a list or mapping cannot be the name of a setting", line)
        key = _text(key_node)
        if key in lines:
            where = f"line {line}" if lines[key] == line else f"lines {lines[key]} and {line}"
            raise YamlError(f"'{key}' is given twice, in {where}", line)
        lines[key] = line
        values[key] = _value(value_node, budget)
    return values


def _text(node: yaml.ScalarNode) -> str:
    if "\0" in node.value:
        raise YamlError("a NUL character cannot be in a setting", node.start_mark.line + 1)
    return str(node.value)


def plain_value(text: str) -> str | None:
    """Return the value of text without quotation marks: None for null, else the text.

    YAML's `.inf` and `.nan` are returned as Python spells them.
    """
    if re.fullmatch(r"[+-]?\.(inf|nan)", text, re.IGNORECASE):
        return text.replace(".", "")
    return None if text in _NULL else text
