"""A file that one process at a time holds; the system lets it go when that process ends, however it ends."""

import sys
from contextlib import suppress
from typing import TextIO


def held_alone(file: TextIO) -> bool:
    """Hold an open file until it is closed; False where another process holds it.

    Where the system or the file system has no such locks nobody is kept out.
    """
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True
