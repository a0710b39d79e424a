"""Field-coded H.264, as camcorders and broadcasters record it: a frame may be two packets, one a field.

FFmpeg shows both fields as one frame, at the time of the first. Whether a packet is a field is in its slice
header, which needs the stream's parameter sets to be read (ITU-T H.264, 7.3.2 and 7.3.3).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import av

_SLICES, _SEQUENCE, _PICTURE = (1, 2, 5), 7, 8  # types of NAL units: slices, parameter sets
_PROFILES_WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_HEADER_BYTES = 512  # more than any part of a unit that is read


class Field(NamedTuple):
    """The field that a packet has: its parity, and the number that both fields of a frame share."""

    is_bottom: bool
    frame_num: int

    def completes(self, first: "Field") -> bool:
        """Return whether this is the second field of the frame that `first` begins."""
        return self.is_bottom != first.is_bottom and self.frame_num == first.frame_num


def may_have_fields(stream: av.VideoStream) -> bool:
    """Return whether frames of a stream may be stored as two fields, by its header's parameter sets."""
    context = stream.codec_context
    return context.name == "h264" and _allows_fields(bytes(context.extradata or b""))


@lru_cache(maxsize=256)
def _allows_fields(setup: bytes) -> bool:
    return any(sequence.has_fields for sequence in FieldParser(setup).sequences.values())


def one_packet_per_frame(packets: Iterable[av.Packet], stream: av.VideoStream) -> Iterator[av.Packet]:
    """Join the packets of two fields of a frame; its `opaque` is the position of the first in the file.

    A field without its other one is never shown, so it gets no time.
    """
    parser = FieldParser(bytes(stream.codec_context.extradata or b""))
    first: tuple[av.Packet, Field] | None = None
    for packet in packets:
        field = parser.field(packet)
        if first and field and field.completes(first[1]):
            yield _joined(first[0], packet)
            first = None
            continue
        if first:
            first[0].pts = None
            yield first[0]
        first = (packet, field) if field else None
        if not field:
            yield packet


def _joined(first: av.Packet, second: av.Packet) -> av.Packet:
    frame = av.Packet(bytes(first) + bytes(second))
    frame.pts, frame.dts, frame.time_base = first.pts, first.dts, first.time_base
    frame.stream, frame.is_keyframe, frame.opaque = first.stream, first.is_keyframe, first.pos
    frame.is_corrupt = first.is_corrupt or second.is_corrupt
    return frame


@dataclass(frozen=True)
class SequenceParameters:
    """What is needed of a sequence parameter set to read slice headers."""

    has_fields: bool
    separate_planes: bool
    frame_num_bits: int


class FieldParser:
    """Reads the headers of a stream's packets.

    Args:
        setup: the decoder's configuration, in the stream's header.

    Attributes:
        sequences: the sequence parameter sets that were read so far, by their numbers.
    """

    def __init__(self, setup: bytes) -> None:
        self.sequences: dict[int, SequenceParameters] = {}
        self._sequence_of: dict[int, int] = {}  # by the number of the picture parameter set
        self._length_bytes = (setup[4] & 3) + 1 if setup[:1] == b"\1" and len(setup) > 6 else 0
        units = _configured(setup) if self._length_bytes else _by_start_codes(setup)
        for unit in units:
            self._read_parameters(unit)

    def field(self, packet: av.Packet) -> Field | None:
        """Return the field of a packet, None of a whole frame."""
        data = bytes(packet)
        for unit in _by_lengths(data, self._length_bytes) if self._length_bytes else _by_start_codes(data):
            self._read_parameters(unit)
            if unit[0] & 31 in _SLICES:
                try:
                    return self._field_of_slice(_Bits(unit))
                except (IndexError, KeyError):  # broken, or its parameters are missing
                    return None
        return None

    def _read_parameters(self, unit: bytes) -> None:
        try:
            if unit[0] & 31 == _SEQUENCE:
                number, sequence = _sequence(_Bits(unit))
                self.sequences[number] = sequence
            elif unit[0] & 31 == _PICTURE:
                bits = _Bits(unit)
                picture = bits.number()
                self._sequence_of[picture] = bits.number()
        except IndexError:
            pass  # broken: the decoder cannot use it either

    def _field_of_slice(self, bits: "_Bits") -> Field | None:
        bits.number()  # first macroblock
        bits.number()  # type
        sequence = self.sequences[self._sequence_of[bits.number()]]
        bits.take(2 * sequence.separate_planes)
        frame_num = bits.take(sequence.frame_num_bits)
        if not sequence.has_fields or not bits.take(1):
            return None
        return Field(bool(bits.take(1)), frame_num)


def _sequence(bits: "_Bits") -> tuple[int, SequenceParameters]:
    """Read a sequence parameter set up to the flag that allows fields."""
    profile = bits.take(8)
    bits.take(16)  # constraints and level
    number = bits.number()
    separate_planes = False
    if profile in _PROFILES_WITH_CHROMA_FORMAT:
        chroma = bits.number()
        separate_planes = chroma == 3 and bool(bits.take(1))
        bits.number()  # bits of luma
        bits.number()  # bits of chroma
        bits.take(1)
        if bits.take(1):
            for position in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    bits.skip_scaling_list(16 if position < 6 else 64)
    frame_num_bits = bits.number() + 4
    order = bits.number()
    if order == 0:
        bits.number()
    elif order == 1:
        bits.take(1)
        bits.number(), bits.number()
        for _ in range(bits.number()):
            bits.number()
    bits.number()  # reference frames
    bits.take(1)
    bits.number(), bits.number()  # width and height
    return number, SequenceParameters(not bits.take(1), separate_planes, frame_num_bits)


class _Bits:
    """The bits of a NAL unit after its first byte; reading beyond them raises an IndexError."""

    def __init__(self, unit: bytes) -> None:
        data = unit[1:_HEADER_BYTES].replace(b"\0\0\3", b"\0\0")
        self._bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
        self._at = 0

    def take(self, count: int) -> int:
        """Read an integer of this many bits."""
        end = self._at + count
        if end > len(self._bits):
            raise IndexError
        value = int(self._bits[self._at : end] or "0", 2)
        self._at = end
        return value

    def number(self) -> int:
        """Read an Exp-Golomb code (9.1)."""
        one = self._bits.find("1", self._at)
        if one < 0:
            raise IndexError
        zeros, self._at = one - self._at, one
        return self.take(zeros + 1) - 1

    def skip_scaling_list(self, size: int) -> None:
        """Read past a scaling list (7.3.2.1.1.1)."""
        scale = 8
        for _ in range(size):
            code = self.number()
            scale = (scale + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
            if not scale:
                return


def _by_start_codes(data: bytes) -> Iterator[bytes]:
    """Yield the starts of NAL units that begin with 00 00 01."""
    at = data.find(b"\0\0\1")
    while at >= 0:
        end = data.find(b"\0\0\1", at + 3)
        if unit := data[at + 3 : end if end >= 0 else len(data)]:
            yield unit
        at = end


def _by_lengths(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yield NAL units that follow their lengths, as in MP4 and Matroska."""
    at = 0
    while at + length_bytes < len(data):
        start = at + length_bytes
        at = start + int.from_bytes(data[at:start], "big")
        if unit := data[start:at]:
            yield unit


def _configured(setup: bytes) -> Iterator[bytes]:
    """Yield the parameter sets of an MP4's or Matroska's header (ISO/IEC 14496-15, 5.2.4.1)."""
    at = 5
    for mask in (31, 255):
        if at >= len(setup):
            return
        count, at = setup[at] & mask, at + 1
        for _ in range(count):
            start = at + 2
            at = start + int.from_bytes(setup[at:start], "big")
            if unit := setup[start:at]:
                yield unit
