"""Videos of the same content: one split if splits are drawn, and reported if lists separate them."""

import hashlib
from collections.abc import Iterable, Sequence

from tubelet.data.manifest import SPLITS
from tubelet.prepare.video import Video

_HELD_OUT = 0.1  # of each class for validation, and as much for testing


def draw_splits(videos: Sequence[Video], seed: int) -> None:
    """Draw the split of each video: of each class a tenth for validation and a tenth for testing.

    Videos of the same content count once, with the first name's class, and get the same split. A class of
    three or more has at least one in each split. A video's split depends on the seed and its name, so that
    adding a video moves few others.
    """
    by_content: dict[str, list[Video]] = {}
    for video in sorted(videos, key=lambda video: video.listed.name):
        by_content.setdefault(video.content, []).append(video)
    by_class: dict[int, list[list[Video]]] = {}
    for copies in by_content.values():
        by_class.setdefault(copies[0].listed.labels[0], []).append(copies)
    for groups in by_class.values():
        groups.sort(key=lambda copies: _hash(copies[0].listed.name, seed))
        held_out = max(round(len(groups) * _HELD_OUT), 1) if len(groups) > 2 else 0
        for k, copies in enumerate(groups):
            for video in copies:
                video.split = "val" if k < held_out else "test" if k < 2 * held_out else "train"


def _hash(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()


def in_two_splits(videos: Iterable[Video], *, val_is_test: bool) -> dict[str, str]:
    """Return the splits, by the names of videos of which the same content is in more than one split."""
    found = {}
    for copies in _same_clips(videos):
        by_split: dict[str, str] = {}
        for video in copies:
            split = "test" if val_is_test and video.split == "val" else video.split
            by_split.setdefault(split or "", video.listed.name)
        if len(by_split) > 1:
            names = " = ".join(dict.fromkeys(by_split.values()))
            found[names] = " and ".join(split for split in SPLITS if split in by_split)
    return found


def in_two_classes(videos: Iterable[Video], classes: Sequence[str]) -> list[str]:
    """Return the names and classes of videos of which the same content has other labels in another video."""
    found = []
    for copies in _same_clips(videos):
        by_labels: dict[tuple[int, ...], str] = {}
        for video in copies:
            if video.listed.labels:
                by_labels.setdefault(video.listed.labels, video.listed.name)
        if len({frozenset(labels) for labels in by_labels}) > 1:
            found.append(
                " = ".join(
                    f"{name} ({', '.join(classes[label] for label in labels)})"
                    for labels, name in by_labels.items()
                )
            )
    return found


def _same_clips(videos: Iterable[Video]) -> list[list[Video]]:
    """Return the groups of videos of the same content and, in image folders, of the same images."""
    found: dict[object, list[Video]] = {}
    for video in videos:
        offset = video.listed.offset
        key = (video.content, offset, video.listed.frames if offset is not None else None)
        found.setdefault(key, []).append(video)
    return [copies for copies in found.values() if len(copies) > 1]
