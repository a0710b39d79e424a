"""Damage to the bytes of a file, as copying, disks and networks cause it, or as an attacker would."""

from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut off the end."""
    return data[: int(rng.integers(len(data)))]


def one_flipped_bit(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip one bit anywhere."""
    return _flipped(data, rng, 1)


def flipped_bits(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip up to 300 bits, sometimes only in the header."""
    return _flipped(data, rng, int(np.exp(rng.uniform(0, np.log(300)))))


def _flipped(data: bytes, rng: np.random.Generator, count: int) -> bytes:
    changed = np.frombuffer(data, np.uint8).copy()
    end = len(changed) if rng.random() < 0.7 else min(len(changed), 512)
    for position in rng.integers(end, size=count):
        changed[position] ^= 1 << int(rng.integers(8))
    return changed.tobytes()


def zeroed_range(data: bytes, rng: np.random.Generator) -> bytes:
    """Set a range to zero, as a hole in a sparse file."""
    first, last = _range(data, rng)
    return data[:first] + bytes(last - first) + data[last:]


def random_range(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace a range by random bytes."""
    first, last = _range(data, rng)
    return data[:first] + rng.bytes(last - first) + data[last:]


def removed_range(data: bytes, rng: np.random.Generator) -> bytes:
    """Remove a range."""
    first, last = _range(data, rng)
    return data[:first] + data[last:]


def repeated_range(data: bytes, rng: np.random.Generator) -> bytes:
    """Repeat a range."""
    first, last = _range(data, rng)
    return data[:last] + data[first:]


def swapped_halves(data: bytes, rng: np.random.Generator) -> bytes:
    """Put the end before the start."""
    middle = int(rng.integers(1, len(data)))
    return data[middle:] + data[:middle]


def extreme_numbers(data: bytes, rng: np.random.Generator) -> bytes:
    """Set one to four integers, of 2, 4 or 8 bytes near the start or the end, to an extreme value."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        width = int(rng.choice((2, 4, 8)))
        near = int(rng.integers(min(4096, max(1, len(data) - width))))
        position = near if rng.random() < 0.7 else max(0, len(data) - width - near)
        values = (b"\xff" * width, b"\x7f" + b"\xff" * (width - 1), bytes(width), b"\x80" + bytes(width - 1))
        changed[position : position + width] = values[int(rng.integers(len(values)))]
    return bytes(changed[: len(data)])


def emptied(data: bytes, rng: np.random.Generator) -> bytes:
    """Leave nothing."""
    return b""


def random_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Return as many random bytes."""
    return rng.bytes(len(data))


def text(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a page of text, as a server's error page that was saved under the file's name."""
    return b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * int(rng.integers(1, 100))


def _range(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    length = int(np.exp(rng.uniform(0, np.log(max(2, len(data) // 2)))))
    first = int(rng.integers(max(1, len(data) - length)))
    return first, first + length


DAMAGES: dict[str, Mutation] = {
    "truncated": truncated,
    "flipped bits": flipped_bits,
    "zeroed range": zeroed_range,
    "random range": random_range,
    "removed range": removed_range,
    "repeated range": repeated_range,
    "swapped halves": swapped_halves,
    "extreme numbers": extreme_numbers,
    "empty": emptied,
    "random bytes": random_bytes,
    "text": text,
}
