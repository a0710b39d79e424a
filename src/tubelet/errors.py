"""Mistakes a user can mend: one clear sentence each, exit code 2 on the command line."""

import difflib
import math
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can mend: the message names it, says what was expected and what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word as a hint, `; did you mean 'x'?`, or the empty string when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def require_at_least(least: int, **settings: float | None) -> None:
    """Raise a UserError that names the first setting below `least`, or not a finite number; None is none."""
    for name, value in settings.items():
        if value is not None:
            _require_finite(name, value)
            if value < least:
                raise UserError(f"{name} must be at least {least}, found {value}")


def require_above(bound: float, **settings: float | None) -> None:
    """Raise a UserError that names the first setting not above `bound`, nor a finite number; None is none."""
    for name, value in settings.items():
        if value is not None:
            _require_finite(name, value)
            if value <= bound:
                raise UserError(f"{name} must be above {bound}, found {value}")


def _require_finite(name: str, value: float) -> None:
    if not -math.inf < value < math.inf:  # whole numbers may be too large for math.isfinite
        raise UserError(f"{name} must be a finite number, found {value}")


def counted(count: int, one: str, many: str | None = None) -> str:
    """So many of something: `1 video`, `2,000 videos`; `counted(2, "class", "classes")` is `2 classes`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
