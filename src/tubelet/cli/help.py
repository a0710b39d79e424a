"""The help of a verb as plain text for one screen: what it is for, its arguments and options, two examples.

A verb's docstring is its description, and the lines under `Examples:` at its end are commands that run.
"""

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

FILE_PANEL = "For files that do not record everything"
"""The panel of options that only `tubelet inspect` explains; the other verbs name them in a paragraph."""
_EXPLAINED_BY = "inspect"
_INDENT, _NAMES_WIDTH = "  ", 26


class Verb(TyperCommand):
    """A command with our help."""

    def get_help(self, ctx: Any) -> str:
        """Return the help of this verb."""
        return "\n".join(_verb_help(self, ctx))


class Verbs(TyperGroup):
    """A command of commands with our help; they are listed under the headings of their panels."""

    def get_help(self, ctx: Any) -> str:
        """Return the list of the verbs, with the first line of each."""
        return "\n".join(_list_help(self, ctx))


def description_and_examples(text: str | None) -> tuple[str, list[str]]:
    """Return a docstring's description, and the commands under `Examples:` at its end."""
    description, _, examples = (text or "").partition("Examples:\n")
    return description.strip(), [line.strip() for line in examples.splitlines() if line.strip()]


def _verb_help(verb: TyperCommand, ctx: Any) -> Iterator[str]:
    params: list[Any] = list(verb.params)
    parameters = [parameter for parameter in params if not parameter.hidden]
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    options = [each for each in parameters if each.param_type_name == "option"]
    brief = [each for each in options if each.rich_help_panel == FILE_PANEL and verb.name != _EXPLAINED_BY]
    description, examples = description_and_examples(verb.help)
    required = [_option_name(option) for option in options if option.required]
    words = [
        ctx.command_path,
        *map(_argument_name, arguments),
        *required,
        *(["[options]"] if options else ()),
    ]
    yield from _usage(" ".join(words))
    yield from _paragraphs(description)
    if arguments:
        yield ""
        yield from _table((_argument_name(each), _meaning(each)) for each in arguments)
    explained = [each for each in options if each not in brief]
    for heading in dict.fromkeys(each.rich_help_panel or "Options" for each in explained):
        rows = [each for each in explained if (each.rich_help_panel or "Options") == heading]
        yield from ("", f"{heading}:")
        yield from _table((_option_name(each), _meaning(each)) for each in rows)
    if brief:
        names = ", ".join(map(_option_name, brief))
        yield ""
        yield from _wrapped(f"{FILE_PANEL} (`tubelet {_EXPLAINED_BY} --help`): {names}")
    yield from _example_lines(examples)


def _list_help(verbs: TyperGroup, ctx: Any) -> Iterator[str]:
    description, examples = description_and_examples(verbs.help)
    yield from _usage(f"{ctx.command_path} VERB ...; `{ctx.command_path} VERB --help` explains one")
    yield from _paragraphs(description)
    yield ""
    listed = [verbs.commands[name] for name in verbs.list_commands(ctx)]
    for heading in dict.fromkeys(getattr(verb, "rich_help_panel", None) for verb in listed):
        yield from [f"{heading}:"] if heading else []
        rows = [verb for verb in listed if getattr(verb, "rich_help_panel", None) == heading]
        yield from _table((str(verb.name), _first_line(verb.help)) for verb in rows)
    yield from _example_lines(examples)


def _usage(text: str) -> Iterator[str]:
    yield from textwrap.wrap(f"Usage: {text}", _width(), subsequent_indent=" " * 7, break_on_hyphens=False)


def _paragraphs(description: str) -> Iterator[str]:
    for paragraph in description.split("\n\n"):
        yield ""
        yield from _wrapped(paragraph)


def _example_lines(examples: Iterable[str]) -> Iterator[str]:
    if examples:
        yield from ("", "Examples:")
        yield from (_INDENT + example for example in examples)


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield names and meanings in two columns; a long name has a line for itself."""
    rows = list(rows)
    width = min(_NAMES_WIDTH, max(len(name) for name, _ in rows)) + 2
    for name, meaning in rows:
        lines = textwrap.wrap(meaning, _width() - len(_INDENT) - width, break_on_hyphens=False) or [""]
        if len(name) > width - 2:
            yield _INDENT + name
            name = ""
        yield f"{_INDENT}{name:{width}}{lines[0]}".rstrip()
        yield from (_INDENT + " " * width + line for line in lines[1:])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _width(), break_on_hyphens=False)


def _width() -> int:
    return max(40, min(100, shutil.get_terminal_size().columns))


def _argument_name(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper()
    name += "..." if argument.nargs != 1 else ""
    return name if argument.required else f"[{name}]"


def _option_name(option: Any) -> str:
    names = ", ".join(option.opts)
    return names if option.is_flag else f"{names} {option.metavar or option.name.upper()}"


def _meaning(parameter: Any) -> str:
    """Return the help of a parameter, with its default if that is a number or a text."""
    default, text = parameter.default, parameter.help or ""
    is_shown = isinstance(default, int | float | str | Path) and not isinstance(default, bool)
    if not is_shown or default in ("", "auto"):
        return text
    return f"{text.removesuffix('.')} (default: {default})."


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0].removesuffix(".")
