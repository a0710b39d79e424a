"""Files that hold the same: kept in one split where that is ours to choose, and told where it is not."""

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

from tubelet.data.manifest import SPLITS
from tubelet.errors import plural
from tubelet.prepare.check import Checked
from tubelet.prepare.plan import Item, Plan


def same_content(checks: Iterable[Checked]) -> list[list[str]]:
    """Groups of files that hold the same."""
    groups: dict[str, list[str]] = {}
    for check in checks:
        if check.content:
            groups.setdefault(check.content, []).append(check.path)
    return [paths for paths in groups.values() if len(paths) > 1]


def draw_again(plan: Plan, groups: Sequence[Sequence[str]], broken: Container[str]) -> Plan:
    """Draw splits, where they are drawn, without broken files and as if each group were its first by name."""
    if plan.drawn is None:
        return plan
    group_of = _numbered(groups)
    usable = sorted((item for item in plan.items if item.path not in broken), key=lambda item: item.name)
    first: dict[object, Item] = {}
    for item in usable:
        first.setdefault(group_of.get(item.path, item.path), item)
    drawn = draw_splits({item.name: item.labels[0] for item in first.values()}, plan.drawn)
    split = {key: drawn[item.name] for key, item in first.items()}
    items = (
        replace(item, split=split.get(group_of.get(item.path, item.path), item.split)) for item in plan.items
    )
    plan = replace(plan, items=tuple(items))
    if not (count := len(usable) - len(first)):
        return plan
    copies = plural(count, "copy is", "copies are")
    note = f"{copies} in the split of the video with the same content"
    return replace(plan, notes=(*plan.notes, note))


def in_several_splits(plan: Plan, groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """The splits, in words, by the names of videos of which the same content is in several."""
    found = {}
    for items in _alike(plan, groups):
        by_split: dict[str, str] = {}
        for item in items:
            split = "test" if plan.val_is_test and item.split == "val" else item.split
            by_split.setdefault(split, item.name)
        if len(by_split) > 1:
            names = " = ".join(dict.fromkeys(by_split.values()))
            found[names] = " and ".join(split for split in SPLITS if split in by_split)
    return found


def in_several_classes(plan: Plan, groups: Sequence[Sequence[str]]) -> list[str]:
    """Videos of which the same content has other labels elsewhere: names with classes."""
    found = []
    for items in _alike(plan, groups):
        by_labels = {item.labels: item.name for item in reversed(items) if item.labels}
        if len({frozenset(labels) for labels in by_labels}) > 1:
            found.append(
                " = ".join(
                    f"{name} ({', '.join(plan.classes[label] for label in labels)})"
                    for labels, name in reversed(by_labels.items())
                )
            )
    return found


def _alike(plan: Plan, groups: Sequence[Sequence[str]]) -> list[list[Item]]:
    """The items of one video: of one path or of one group, and of the same pictures of a folder."""
    group_of = _numbered(groups)
    found: dict[object, list[Item]] = {}
    for item in plan.items:
        key = (
            group_of.get(item.path, item.path),
            item.offset,
            item.frames if item.offset is not None else None,
        )
        found.setdefault(key, []).append(item)
    return [items for items in found.values() if len(items) > 1]


def _numbered(groups: Sequence[Sequence[str]]) -> Mapping[str, int]:
    return {path: number for number, paths in enumerate(groups) for path in paths}


_SHARE = 0.1  # of each class to validate on, and as much to test on


def draw_splits(labels: Mapping[str, int], seed: int) -> dict[str, str]:
    """A split for each video: of each class a tenth to validate on ("val") and a tenth to test on ("test").

    Of a class of three or more there is one at least for each split.

    Args:
        labels: class numbers by name.
        seed: of the draw.
    """
    by_class: dict[int, list[str]] = {}
    for name, label in labels.items():
        by_class.setdefault(label, []).append(name)
    splits = dict.fromkeys(labels, "train")
    for names in by_class.values():
        names.sort(key=lambda name: _draw(name, seed))
        held = max(round(len(names) * _SHARE), 1) if len(names) > 2 else 0
        splits |= dict.fromkeys(names[:held], "val") | dict.fromkeys(names[held : 2 * held], "test")
    return splits


def _draw(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()
