"""Files that are whole or not there, and files that one process at a time holds."""

import csv
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

from tubelet.errors import UserError


def require_writable(path: Path) -> None:
    """Before the work whose outcome it is to hold: make the folders that are missing, and try to write.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


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


def held_alone(file: TextIO) -> bool:
    """Hold a file, open for writing, until this process closes it or any other opening of it, or ends.

    False where another process holds it. Where the system or the file system has no such locks nobody is
    kept out. Processes that this one starts do not hold it.
    """
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return False
    return True


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within it no other process is within it for this folder, which is there.

    Its file `.lock` stays. Where nothing can be written nobody is kept out.

    Raises:
        UserError: another process is.
    """
    with (folder / ".lock").open("a") if os.access(folder, os.W_OK) else nullcontext() as file:
        if file and not held_alone(file):
            raise UserError(
                f"another process is at work in {folder}; wait for it to end, or choose another folder"
            )
        yield


def read_text(path: Path, holds: str) -> str:
    """What is in a text file, without a byte order mark, each line ending in one newline.

    Args:
        path: the file.
        holds: what should be in it, for messages.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be UTF-8 text: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; it should hold {holds}") from None


def csv_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a table that are not empty: the file and the line where each ends, and its cells.

    Raises:
        UserError: a row cannot be read; the message names the line where it begins.
    """
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    begins = 1
    try:
        for cells in rows:
            if cells:
                yield f"{path}:{rows.line_num}", cells
            begins = rows.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}:{begins} cannot be read as CSV ({error}); is a quotation mark not closed?"
        ) from None
