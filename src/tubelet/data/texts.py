"""Text files that others have written."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from tubelet.errors import UserError


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
