"""Splits drawn by the names of videos, so that a video that is added moves few others."""

import hashlib
from collections.abc import Mapping

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
