"""Files: atomic writes, exclusive locks on folders, and text that other people wrote."""

import csv
import errno
import io
import json
import os
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TextIO

from tubelet.errors import UserError, excerpt

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_BLOCK_BYTES = 2**24  # of a file in memory


def require_writable(path: Path) -> None:
    """Create the missing folders of `path` and check that it can be written, before work starts.

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
    """Yield a temporary file beside `path`, renamed to `path` after fsync; deleted on error.

    Only one process at a time may do this for a path. A temporary file left by a killed process is
    overwritten by the next one.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_in(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, whose files become those of `folder` together; deleted on error.

    A folder that does not exist gets its name only once it is complete; in one that exists, files of the same
    names are replaced one after the other, and the others stay. Only one process at a time may do this.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  (links stay, unlike with resolve)
    is_new = not folder.is_dir()
    temporary = folder.with_name(f".{folder.name}.partial") if is_new else folder / ".files.partial"
    _discard(temporary)
    temporary.mkdir(parents=is_new)
    try:
        yield temporary
        if is_new:
            temporary.rename(folder)
        else:
            for file in sorted(temporary.iterdir()):
                file.replace(folder / file.name)
    finally:
        _discard(temporary)


@contextmanager
def write_errors() -> Iterator[None]:
    """Raise the OSError of a failed write, of which `torch.save` makes a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise (error.__context__ if isinstance(error.__context__, OSError) else OSError(error)) from error


def write_json(path: Path, content: Any) -> None:
    """Replace a file by `content` as indented JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class ChecksumWriter(io.BufferedWriter):
    """A new file that `finish` ends with a checksum of everything written before: CRC-32, in 16 bytes.

    `torch.load` and other readers of zip files ignore these bytes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"))
        self._checksum = 0

    def write(self, content: "ReadableBuffer") -> int:
        """Write bytes and return how many."""
        self._checksum = zlib.crc32(content, self._checksum)
        return super().write(content)

    def finish(self) -> None:
        """Write the checksum."""
        super().write(_checksum_line(self._checksum))


def checksum_matches(path: Path) -> bool:
    """Return whether a file ends in the checksum of `ChecksumWriter` and is as it was written."""
    left, checksum = path.stat().st_size - len(_checksum_line(0)), 0
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
            checksum = zlib.crc32(block, checksum)
            left -= len(block)
        return left == 0 and file.read() == _checksum_line(checksum)


def _checksum_line(checksum: int) -> bytes:
    return f"\ncrc32 {checksum:08x}\n".encode()


def discard_partials(folder: Path) -> None:
    """Remove temporary files and folders that killed processes left; no process may be writing there."""
    for temporary in folder.glob(".*.partial"):
        _discard(temporary)


def _discard(temporary: Path) -> None:
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary)
    else:
        temporary.unlink(missing_ok=True)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error means that the disk, or the user's quota on it, is full."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


def try_lock(file: TextIO) -> bool:
    """Lock a file that is open for writing (fcntl) until it is closed or the process exits.

    Returns False if another process holds the lock. Where the system or the file system does not support
    locks the result is True. Child processes do not inherit the lock.
    """
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return False
    return True


class FolderInUseError(UserError):
    """Another process holds the lock of a folder."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on an existing folder, through its file `.lock`, which stays.

    A folder that cannot be written is not locked.

    Raises:
        FolderInUseError: another process holds the lock.
    """
    with (folder / ".lock").open("a") if os.access(folder, os.W_OK) else nullcontext() as file:
        if file and not try_lock(file):
            raise FolderInUseError(
                f"{folder} is in use by another process; wait until it ends, or choose another folder"
            )
        yield


@contextmanager
def held_open(folder: Path) -> Iterator[Callable[[], bool]]:
    """Hold an existing folder open; the yielded function returns whether its path still leads to it.

    It does not once the folder was deleted or moved, also if there is another one now.
    """
    if sys.platform == "win32":  # where an open file, such as a lock, keeps its folder in place
        yield lambda: True
        return
    opened = os.open(folder, os.O_RDONLY)

    def is_in_place() -> bool:
        try:
            return os.path.samestat(os.fstat(opened), folder.stat())
        except OSError:
            return False

    try:
        yield is_in_place
    finally:
        os.close(opened)


def read_text(path: Path, holds: str) -> str:
    """Read a text file, without its byte order mark and with each line ending in one newline.

    Args:
        path: the file.
        holds: what the file should contain, for error messages.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be UTF-8 text: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; it should contain {holds}") from None


class RepeatedKeyError(UserError):
    """JSON in which an object has a key twice: one of the values would be lost."""


def parse_json(where: Path | str, text: str) -> Any:
    """Return the value of JSON text.

    Args:
        where: the file, or the file and line, for error messages.
        text: the JSON.

    Raises:
        RepeatedKeyError: an object has a key twice.
        UserError: it is not valid JSON, or nested too deeply.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated = next(key for key, count in counts.items() if count > 1)
            raise RepeatedKeyError(
                f"{where}: the key '{excerpt(repeated)}' is there twice; remove or rename one"
            )
        return content

    try:
        return json.loads(text, object_pairs_hook=once)
    except RepeatedKeyError:
        raise
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: this JSON is nested too deeply; is it the right file?") from None


def csv_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield "file:line" and the cells of each row that is not empty; the line is where the row ends.

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
