"""Videos of the same content or group: one split if splits are drawn, and reported if lists separate them."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from tubelet.data.manifest import SPLITS
from tubelet.prepare.plan import SplitDraw
from tubelet.prepare.record import VideoRecord


def draw_splits(videos: Sequence[VideoRecord], draw: SplitDraw) -> None:
    """Draw the split of each video: of each class about the shares for validation and for testing.

    Videos of the same content and videos of one group get the same split: they are one unit. Copies count
    once, with the first name's class. A class in three or more units has at least one in each split, unless
    that needs groups that would make a split more than twice as large. A unit's split depends on the seed and
    its first name, so that adding a video moves few others.
    """
    units = _units(sorted(videos, key=lambda video: video.listed.name))
    units.sort(key=lambda unit: _hash(unit.name, draw.seed))
    for video in videos:
        video.split = "train"
    wanted = {"val": _held_out(units, draw.val), "test": _held_out(units, draw.test)}
    for split, counts in wanted.items():
        chosen = _choose(units, counts)
        for unit in chosen:
            for video in unit.videos:
                video.split = split
        units = [unit for unit in units if unit not in chosen]


@dataclass(eq=False)
class _Unit:
    """Videos that get the same split, in the order of their names; `counts` by class, without copies."""

    videos: list[VideoRecord]

    def __post_init__(self) -> None:
        self.name = self.videos[0].listed.name
        first = {video.clip: video.listed.labels[:1] for video in reversed(self.videos)}
        self.counts = Counter(first.values())


def _units(videos: Sequence[VideoRecord]) -> list[_Unit]:
    """Join the videos that share their content or group, also over others."""
    parent: dict[object, object] = {}

    def root(key: object) -> object:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    for video in videos:
        if video.listed.group:
            parent[root(("content", video.content))] = root(("group", video.listed.group))
    found: dict[object, list[VideoRecord]] = {}
    for video in videos:
        found.setdefault(root(("content", video.content)), []).append(video)
    return [_Unit(unit) for unit in found.values()]


def _held_out(units: Sequence[_Unit], share: float) -> Counter[tuple[int, ...]]:
    """Return how many videos of each class a held-out split should have: 0 of a class in one or two units."""
    counts: dict[tuple[int, ...], list[int]] = {}
    for unit in units:
        for label, count in unit.counts.items():
            counts.setdefault(label, []).append(count)
    return Counter(
        {
            label: max(round(sum(of_class) * share), min(of_class))
            for label, of_class in counts.items()
            if len(of_class) > 2 and share
        }
    )


def _choose(units: Sequence[_Unit], wanted: Counter[tuple[int, ...]]) -> set[_Unit]:
    """Choose the units of a held-out split, in order: first those with more of the missing than beyond it."""
    missing, chosen = Counter(wanted), set()

    def gain(unit: _Unit) -> int:
        return sum(min(count, 2 * missing[label] - count) for label, count in unit.counts.items())

    def take(unit: _Unit) -> None:
        chosen.add(unit)
        for label, count in unit.counts.items():
            missing[label] = max(missing[label] - count, 0)

    for unit in units:
        if gain(unit) > 0:
            take(unit)
    size = sum(unit.counts.total() for unit in chosen)
    for label in wanted.keys() - {label for unit in chosen for label in unit.counts}:
        rest = [unit for unit in units if unit not in chosen and label in unit.counts]
        if len(rest) < 2 or missing[label] < wanted[label]:  # the last one is for training
            continue
        best = max(rest, key=gain)
        if not chosen or size + best.counts.total() <= 2 * wanted.total():
            take(best)
            size += best.counts.total()
    return chosen


def _hash(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()


def in_two_splits(videos: Iterable[VideoRecord], *, val_is_test: bool) -> dict[str, str]:
    """Return the splits, by the names of videos of which the same content is in more than one split."""
    found = {}
    for copies in _same_clips(videos):
        by_split = _by_split(copies, val_is_test=val_is_test)
        if len(by_split) > 1:
            found[" = ".join(dict.fromkeys(by_split.values()))] = _all_of(by_split)
    return found


def groups_in_two_splits(videos: Iterable[VideoRecord], *, val_is_test: bool) -> dict[str, str]:
    """Return the splits, with a video of each, by the groups that are in more than one split."""
    groups: dict[str, list[VideoRecord]] = {}
    for video in videos:
        if video.listed.group:
            groups.setdefault(video.listed.group, []).append(video)
    by_split = {name: _by_split(group, val_is_test=val_is_test) for name, group in groups.items()}
    return {
        name: f"{_all_of(splits)}, such as {' and '.join(splits.values())}"
        for name, splits in by_split.items()
        if len(splits) > 1
    }


def _by_split(videos: Iterable[VideoRecord], *, val_is_test: bool) -> dict[str, str]:
    """Return the first name in each split."""
    found: dict[str, str] = {}
    for video in videos:
        split = "test" if val_is_test and video.split == "val" else video.split
        found.setdefault(split or "", video.listed.full_name)
    return found


def _all_of(splits: Collection[str]) -> str:
    return " and ".join(split for split in SPLITS if split in splits)


def in_two_classes(videos: Iterable[VideoRecord], classes: Sequence[str]) -> list[str]:
    """Return the names and classes of videos of which the same content has other labels in another video."""
    found = []
    for copies in _same_clips(videos):
        by_labels: dict[tuple[int, ...], str] = {}
        for video in copies:
            if video.listed.labels:
                by_labels.setdefault(video.listed.labels, video.listed.full_name)
        if len({frozenset(labels) for labels in by_labels}) > 1:
            found.append(
                " = ".join(
                    f"{name} ({', '.join(classes[label] for label in labels)})"
                    for labels, name in by_labels.items()
                )
            )
    return found


def _same_clips(videos: Iterable[VideoRecord]) -> list[list[VideoRecord]]:
    """Return the groups of videos of the same content and of the same part of it."""
    found: dict[object, list[VideoRecord]] = {}
    for video in videos:
        found.setdefault(video.clip, []).append(video)
    return [copies for copies in found.values() if len(copies) > 1]
