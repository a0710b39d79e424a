"""Errors that the user can fix: one clear sentence each, exit code 2 on the command line."""

import difflib
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """An error that the user can fix: it names the file or setting, what was expected and what to do."""


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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` with the nearest known word, or the empty string if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def require_at_least(least: int, **settings: float | None) -> None:
    """Raise a UserError for the first setting that is below `least` or not finite; None is skipped."""
    for name, value in settings.items():
        if value is not None:
            _require_finite(name, value)
            if value < least:
                raise UserError(f"{name} must be at least {least}, found {value}")


def require_above(bound: float, **settings: float | None) -> None:
    """Raise a UserError for the first setting that is not above `bound` or not finite; None is skipped."""
    for name, value in settings.items():
        if value is not None:
            _require_finite(name, value)
            if value <= bound:
                raise UserError(f"{name} must be above {bound}, found {value}")


def _require_finite(name: str, value: float) -> None:
    if not -math.inf < value < math.inf:  # math.isfinite fails for integers above 1e308
        raise UserError(f"{name} must be a finite number, found {value}")


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: `1 video`, `2,000 videos`; `plural(2, "class", "classes")`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def excerpt(text: str, length: int = 80) -> str:
    """Return the beginning of a text that other people wrote, for messages."""
    return text if len(text) <= length else f"{text[:length]}…"
