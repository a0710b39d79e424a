"""Large arrays in parts: written and looked at a few megabytes at a time, and mapped from files."""

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

_ROW_BYTES = 2**23  # of a matrix, looked at together
_COLUMN_BYTES = 2**25


def write_array(
    file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]
) -> None:
    """Write an array in NumPy's format (.npy), given in blocks along its first axis."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for block in blocks:
        file.write(block.tobytes())


def mapped_array(
    dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray], folder: Path | None = None
) -> np.ndarray:
    """Return an array, given in blocks along its first axis, that is mapped from a file.

    The file has no name and is gone when the array is. It is in the system's temporary folder unless another
    one is given.
    """
    with TemporaryFile(dir=folder) as file:
        for block in blocks:
            file.write(block.tobytes())
        file.flush()
        if 0 in shape:  # nothing can be mapped
            return np.empty(shape, dtype)
        return np.memmap(file, dtype, "r", shape=shape)


def row_blocks(matrix: np.ndarray) -> Iterator[slice]:
    """Yield slices of an array along its first axis; each one's memory is released before the next."""
    num_rows = max(1, _ROW_BYTES // max(1, matrix[:1].nbytes))
    for first in range(0, len(matrix), num_rows):
        yield slice(first, first + num_rows)
        _release(matrix)


def columns(matrix: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the columns of a matrix, each in memory that later ones overwrite; many from one reading."""
    num_rows, num_columns = matrix.shape
    together = min(num_columns, max(1, _COLUMN_BYTES // max(1, num_rows * matrix.itemsize)))
    buffer = np.empty((together, num_rows), matrix.dtype)
    for first in range(0, num_columns, together):
        count = min(together, num_columns - first)
        for rows in row_blocks(matrix):
            buffer[:count, rows] = matrix[rows, first : first + count].T
        yield from buffer[:count]


def _release(matrix: np.ndarray) -> None:
    """Drop the pages of a memory-mapped file that is only read; they are read again when they are needed."""
    mapping: Any = matrix
    while isinstance(mapping, np.ndarray):
        mapping = mapping.base
    read_only = isinstance(matrix, np.memmap) and matrix.mode == "r"
    if read_only and isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
