"""Where each video is written when it is encoded."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tubelet.errors import UserError
from tubelet.prepare.plan import Item


def targets_of(items: Sequence[Item], videos: Path) -> dict[Item, Path]:
    """The file that each video is written to: its own relative path, ending in .mp4.

    The short name where no other video has the same, or else the long one, numbered where that is taken.
    """
    sources: dict[tuple[str, int | None, int | None], Item] = {}
    for item in items:
        sources.setdefault((item.path, *part_of(item)), item)
        if Path(item.path).is_relative_to(videos):
            raise UserError(
                f"{item.path} lies where --encode writes; choose another folder than the videos' with --out"
            )
    names = {source: _mp4(item, short=True) for source, item in sources.items()}
    often = Counter(name.casefold() for name in names.values())  # many disks tell no a from an A
    taken = {name for name, count in often.items() if count == 1}
    for source, item in sources.items():
        if often[names[source].casefold()] > 1:
            name = long = _mp4(item, short=False)
            numbers = itertools.count(2)
            while name.casefold() in taken:
                name = f"{long.removesuffix('.mp4')}-{next(numbers)}.mp4"
            taken.add(name.casefold())
            names[source] = name
    return {item: videos / names[item.path, *part_of(item)] for item in items}


def part_of(item: Item) -> tuple[int, int] | tuple[None, None]:
    """The first picture and how many, of a part of a folder of pictures."""
    if item.offset is None or item.frames is None or not Path(item.path).is_dir():
        return None, None
    return item.offset, item.frames


def _mp4(item: Item, *, short: bool) -> str:
    name = PurePosixPath(item.name)
    if item.offset is not None:
        count = "" if short or item.frames is None else f"_{item.frames}"
        name = name.with_name(f"{name.name}_{item.offset:06}{count}")
    keep = not short or Path(item.path).is_dir()
    return (name.with_name(f"{name.name}.mp4") if keep else name.with_suffix(".mp4")).as_posix()
