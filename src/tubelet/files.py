"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; it takes that name once it is on the disk, or goes.

    One process at a time may do so; what one that was killed has left, the next writes over.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def discard_partials(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder; nobody may be writing there."""
    for temporary in folder.glob(".*.partial"):
        temporary.unlink(missing_ok=True)
