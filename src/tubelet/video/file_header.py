"""What must be known of a file before FFmpeg opens it: an MP4's number of samples, and if frames are turned.

FFmpeg builds a table of all samples in one step while it opens or reads a file, in which no time limit is
checked. A header can specify samples without listing them, so that 20 kB could cost minutes and gigabytes.
How a file turns its frames PyAV shows only of a decoded frame.
"""

import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

_CONTAINERS = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"edts", b"cmov"))
_HEADER, _LONG_LENGTH = struct.Struct(">I4s"), struct.Struct(">Q")
_MAX_DEPTH = 10  # FFmpeg's, too
_MAX_SAMPLES = 5_000_000  # 24 hours at 50 frames a second
_MIN_BYTES_PER_SAMPLE = 8  # with its entries in the header
_FREE_SAMPLES = 10_000  # in a file of any size
_FREE_EDITS = 10
_SAMPLES_PER_PACKET = 160  # at least, of sound whose samples last one tick
_MAX_INFLATED_BYTES = 2**22
_MATROSKA = b"\x1aE\xdf\xa3"
_MATROSKA_HEADER_BYTES = 2**13
_ROLL = re.compile(rb"\x76\x75[\x84\x88]")  # ProjectionPoseRoll, a float of 4 or 8 bytes


def most_samples(size: int) -> int:
    """Return how many samples a file of this many bytes may specify."""
    return min(_MAX_SAMPLES, size // _MIN_BYTES_PER_SAMPLE + _FREE_SAMPLES)


class FileHeader(NamedTuple):
    """What is read of a file before it is opened.

    Attributes:
        num_samples: how long FFmpeg's tables for an MP4 would be; 0 for other files.
        may_be_turned: whether a track of an MP4 is turned by 90 or 270 degrees, or Matroska's has a rotation.
    """

    num_samples: int
    may_be_turned: bool


def read_header(peek: Callable[[int, int], bytes], size: int) -> FileHeader:
    """Read the header of any file.

    Args:
        peek: returns (start, count) bytes of the file.
        size: of the file in bytes.
    """
    if peek(0, 4) == _MATROSKA:
        return FileHeader(0, bool(_ROLL.search(peek(0, _MATROSKA_HEADER_BYTES))))
    count = position = 0
    turned = False
    while position + 8 <= size:
        kind, length, start = _box(peek(position, 16))
        if not kind.isalnum():
            break
        if kind in (b"moov", b"moof"):
            content = peek(position + start, min(length or size, size - position) - start)
            boxes = [*_boxes(memoryview(content))]
            count += _count_in(boxes)
            turned |= any(kind == b"tkhd" and _is_turned(track) for kind, track in boxes)
        position += length or size
    return FileHeader(count, turned)


def _is_turned(track: memoryview) -> bool:
    """Return whether the matrix of a track header turns rows into columns."""
    position = 52 if bytes(track[:1]) == b"\1" else 40  # by the box's version
    if len(track) < position + 8:
        return False
    a, b = struct.unpack_from(">2i", track, position)
    return abs(b) > abs(a)


def _box(data: bytes | memoryview, position: int = 0) -> tuple[bytes, int, int]:
    """Return a box's type, its length, and where in it its content begins; length 0 is all that follows."""
    length, kind = _HEADER.unpack_from(data, position)
    if length == 1 and position + 16 <= len(data):
        (length,) = _LONG_LENGTH.unpack_from(data, position + 8)
        return kind, max(length, 16), 16
    return kind, length and max(length, 8), 8


def _boxes(content: memoryview, depth: int = 0) -> Iterator[tuple[bytes, memoryview]]:
    """Yield each box before those in it."""
    position = 0
    while position + 8 <= len(content):
        kind, length, start = _box(content, position)
        end = position + (length or len(content))
        inner = content[position + start : end]
        yield kind, inner
        if kind in _CONTAINERS and depth < _MAX_DEPTH:
            yield from _boxes(inner, depth + 1)
        elif kind == b"cmvd" and depth < _MAX_DEPTH:  # a compressed header
            yield from _boxes(_inflated(inner[4:]), depth + 1)
        position = end


def _inflated(content: memoryview) -> memoryview:
    try:
        return memoryview(zlib.decompressobj().decompress(content, _MAX_INFLATED_BYTES))
    except zlib.error:
        return memoryview(b"")


def _count_in(boxes: Iterable[tuple[bytes, memoryview]]) -> int:
    count = 0
    track: dict[bytes, list[memoryview]] = defaultdict(list)
    for kind, content in boxes:
        if kind == b"trak":
            count += _count_in_track(track)
            track = defaultdict(list)
        if kind == b"trun":
            count += _number(content, 4)
        track[kind].append(content)
    return count + _count_in_track(track)


def _count_in_track(boxes: dict[bytes, list[memoryview]]) -> int:
    """Count a track's samples, those repeated by edits as well, as FFmpeg's table has them."""
    count = sum(_number(table, 8) for table in boxes[b"stsz"] + boxes[b"stz2"])
    handlers = {bytes(content[8:12]) for content in boxes[b"hdlr"]}  # MOV has one of the data, too
    is_sound = b"soun" in handlers and b"vide" not in handlers
    if is_sound and all(_number(times, 4) == _number(times, 12) == 1 for times in boxes[b"stts"]):
        count = max(count, _count_in_chunks(boxes)) // _SAMPLES_PER_PACKET
    edits = sum(_number(table, 4) for table in boxes[b"elst"])
    return count * max(1, edits // _FREE_EDITS)


def _count_in_chunks(boxes: dict[bytes, list[memoryview]]) -> int:
    """Count samples by the table of chunks: rows of (first chunk, samples in each, description)."""
    chunks = sum(_number(table, 4) for table in boxes[b"stco"] + boxes[b"co64"])
    count = 0
    for table in boxes[b"stsc"]:
        rows = np.frombuffer(table[8 : 8 + (len(table) - 8) // 12 * 12], ">u4").reshape(-1, 3).astype(float)
        count += int((np.diff(rows[:, 0], append=chunks + 1) * rows[:, 1]).clip(0).sum())
    return count


def _number(content: memoryview, position: int) -> int:
    return int.from_bytes(content[position : position + 4], "big")
