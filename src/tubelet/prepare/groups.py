"""Groups of videos, such as those of one subject or recording, that must not be in two splits."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tubelet.errors import UserError, plural
from tubelet.prepare.plan import PreparePlan

_EXAMPLE = r"'(subject\d+)'"


def is_column(group: str) -> bool:
    """Return whether a value of --group is the name of a column; a pattern has parentheses."""
    return "(" not in group


def group_pattern(group: str) -> re.Pattern[str]:
    """Return the regular expression that a value of --group is.

    Raises:
        UserError: it is not one, or has not exactly one group in parentheses.
    """
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UserError(f"--group {group} is not a regular expression: {error}") from None
    if pattern.groups != 1:
        raise UserError(
            f"--group {group}: expected one pair of parentheses around what distinguishes the groups, "
            f"such as {_EXAMPLE}, found {pattern.groups}"
        )
    return pattern


def groups_of(paths: Iterable[str], group: str) -> list[str]:
    """Return the group in each relative path, empty where the pattern is not in the path.

    Raises:
        UserError: the pattern is not valid, or in none of the paths.
    """
    pattern, paths = group_pattern(group), list(paths)
    found = [(match[1] or "") if (match := pattern.search(path)) else "" for path in paths]
    if not any(found):
        raise UserError(f"--group {group} is in none of the paths, such as {paths[0]}")
    return found


def with_group_notes(plan: PreparePlan, option: str) -> PreparePlan:
    """Return the plan with remarks on its groups for the report."""
    groups = {video.group for video in plan.videos} - {""}
    note = f"{plural(len(groups), 'group')} by --group {option}"
    if plan.draw:
        note += "; each is in one split" if len(groups) > 2 else "; three or more are needed for three splits"
    return replace(
        plan, notes=(*plan.notes, note, *_without_group([v.name for v in plan.videos if not v.group]))
    )


def _without_group(names: Sequence[str]) -> Iterable[str]:
    if names:
        are = plural(len(names), "video is", "videos are")
        yield f"{are} in no group and may be in any split, such as {names[0]}"
