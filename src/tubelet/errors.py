"""Errors that the user can fix: one clear sentence each, exit code 2 on the command line."""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from reprlib import Repr
from typing import Any, TypeVar

T = TypeVar("T")
_MAX_CHARACTERS = 2500  # of a message
_NUM_FIRST, _NUM_LAST = 2000, 400  # characters that are left of a longer one


class UserError(ValueError):
    """An error that the user can fix: it names the file or setting, what was expected and what to do.

    The message is `shortened`, so that no value or file that it repeats can flood the terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


def shortened(message: str) -> str:
    """Return a message without its middle if it has more than 2,500 characters."""
    if len(message) <= _MAX_CHARACTERS:
        return message
    left_out = f"[{len(message) - _NUM_FIRST - _NUM_LAST:,} characters]"
    return f"{message[:_NUM_FIRST]} … {left_out} … {message[-_NUM_LAST:]}"


class Problems:
    """UserErrors that are collected, so that the user sees all of them at once."""

    def __init__(self) -> None:
        self._messages: list[str] = []

    def attempt(self, make: Callable[[], T]) -> T | None:
        """Return the result of `make`, or None after a UserError, which is kept for `raise_any`."""
        try:
            return make()
        except UserError as error:
            self._messages.append(str(error))
            return None

    def raise_any(self) -> None:
        """Raise one UserError with all messages, if there are any."""
        if self._messages:
            raise UserError("\n".join(self._messages))


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean 'x'?` with the nearest known word, or the empty string if none is near.

    Args:
        word: what was written.
        known: what could be meant.
        prefix: what stands before both, for the message.
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.52)
    return f"; did you mean '{prefix}{near[0]}'?" if near else ""


def require_at_least(least: int, **settings: float | None) -> None:
    """Raise a UserError for the first setting that is below `least` or not finite; None is skipped."""
    for name, value in settings.items():
        if value is not None:
            _require_finite(name, value)
            if value < least:
                raise UserError(f"{name} must be at least {least}, found {short_repr(value)}")


def require_above(bound: float, **settings: float | None) -> None:
    """Raise a UserError for the first setting that is not above `bound` or not finite; None is skipped."""
    for name, value in settings.items():
        if value is not None:
            _require_finite(name, value)
            if value <= bound:
                raise UserError(f"{name} must be above {bound}, found {short_repr(value)}")


def require_between(least: float, most: float, **settings: float | None) -> None:
    """Raise a UserError for the first setting that is not in [least, most]; None is skipped."""
    for name, value in settings.items():
        if value is not None and not least <= value <= most:
            raise UserError(f"{name} must be between {least:,} and {most:,}, found {short_repr(value)}")


def require_probability(**settings: float) -> None:
    """Raise a UserError for the first setting that is not in [0, 1]."""
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} must be in [0, 1], found {value}")


def require_below_1(**settings: float | None) -> None:
    """Raise a UserError for the first setting that is not in [0, 1); None is skipped."""
    for name, value in settings.items():
        if value is not None and not 0 <= value < 1:
            raise UserError(f"{name} must be in [0, 1), found {value}")


def _require_finite(name: str, value: float) -> None:
    if not -math.inf < value < math.inf:  # math.isfinite fails for integers above 1e308
        raise UserError(f"{name} must be a finite number, found {short_repr(value)}")


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: `1 video`, `2,000 videos`; `plural(2, "class", "classes")`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def printable(text: str) -> str:
    """Return a text with escapes such as `\\x1b` for controls, line ends and bytes that are not text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def excerpt(text: str, length: int = 80) -> str:
    """Return the beginning of a text that other people wrote, for messages."""
    return text if len(text) <= length else f"{text[:length]}…"


class _ShortRepr(Repr):
    def repr_int(self, number: int, level: int) -> str:
        """Python writes no integer of more than 4,300 digits."""
        bits = number.bit_length()
        return f"an integer of {bits} bits" if bits > 10_000 else super().repr_int(number, level)


def short_repr(value: Any) -> str:
    """Return the `repr` of a value that may be long, deeply nested or contain itself."""
    short = _ShortRepr()
    short.maxlist = short.maxdict = short.maxtuple = 20
    short.maxstring = short.maxlong = short.maxother = 100
    return excerpt(short.repr(value), 500)


def first_few(items: Sequence[str], count: int = 8, separator: str = ", ") -> str:
    """Return the first items of a list that may be long, and how many more there are."""
    listed = separator.join(excerpt(item, 200) for item in items[:count])
    return listed + (f"{separator.lstrip(',')}and {len(items) - count:,} more" if len(items) > count else "")
