"""An encoder of field-coded H.264, as FFmpeg has none: every field is its own picture, uncompressed."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_IDR, _SLICE, _SEQUENCE, _PICTURE, _DELIMITER = 5, 1, 7, 8, 9
_INTRA, _PREDICTED = 7, 5  # types of slices
_PCM_IN = {_INTRA: 25, _PREDICTED: 30}  # the type of an uncompressed macroblock
_TICK = Fraction(1, 90_000)
_TICKS_PER_FIELD = 1800


def bars(count: int) -> np.ndarray:
    """Luma (count, 32, 16) that brightens with the frame's number, twice as fast in the lower field."""
    frames = np.full((count, 32, 16), 30, np.uint8)
    for number in range(count):
        frames[number, 0::2] += 3 * number
        frames[number, 1::2] += 6 * number
    return frames


def write_field_coded(
    path: Path, frames: np.ndarray, *, group: int = 8, single: Sequence[int] = (), one_packet: bool = False
) -> Path:
    """Write luma frames (N, 32, 16) of values from 16 on as gray video of 25 frames per second.

    No frame refers to every second one. A file other than .ts gets its packets by way of one.

    Args:
        path: the file.
        frames: what to write.
        group: frames from one IDR picture to the next.
        single: numbers of frames whose second field is left out.
        one_packet: write both fields of a frame in one packet.
    """
    transport = path.with_suffix(".ts")
    with av.open(str(transport), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 32, 16, "yuv420p"
        for number, frame in enumerate(frames):
            fields = _fields(frame, number, group)[: 1 if number in single else 2]
            for k, data in enumerate([b"".join(fields)] if one_packet else fields):
                packet: av.Packet[av.VideoStream] = av.Packet(data)  # type: ignore[assignment]
                packet.pts = packet.dts = (2 * number + k) * _TICKS_PER_FIELD
                packet.time_base, packet.stream = _TICK, stream
                packet.is_keyframe = not number % group and not k
                container.mux(packet)
    if path != transport:
        with av.open(str(transport)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    return path


def _fields(frame: np.ndarray, number: int, group: int) -> list[bytes]:
    in_group = number % group
    is_reference = not in_group % 2
    fields = []
    for is_bottom in (False, True):
        is_idr = not in_group and not is_bottom
        slices = _INTRA if is_idr else _PREDICTED
        bits = (
            _code(0) + _code(slices) + _code(0)  # first macroblock, type, picture parameters
            + f"{(in_group + 1) // 2 % 16:04b}"  # counts the reference frames before
            + f"1{is_bottom:b}" + (_code(0) if is_idr else "")
            + f"{(2 * in_group + is_bottom) % 256:08b}"  # order
            + ("" if is_idr else "00")  # the usual references
            + ("00" if is_idr else "0" if is_reference else "")  # marks no references
            + _code(0) + ("" if is_idr else _code(0)) + _code(_PCM_IN[slices])  # quantizer, none skipped
        )  # fmt: skip
        samples = frame[is_bottom::2].tobytes() + bytes([128] * 128)
        kind = _IDR if is_idr else _SLICE
        slice_unit = bytes([is_reference << 5 | kind]) + _bytes(bits, end="0") + samples + b"\x80"
        parameters = [_SEQUENCE_UNIT, _PICTURE_UNIT] if is_idr else []
        units = [bytes([_DELIMITER, 0xF0]), *parameters, slice_unit]
        fields.append(b"".join(b"\0\0\0\1" + unit for unit in units))
    return fields


def _code(value: int) -> str:
    """An Exp-Golomb code."""
    bits = f"{value + 1:b}"
    return "0" * (len(bits) - 1) + bits


def _bytes(bits: str, end: str) -> bytes:
    """Fill up to whole bytes with one bit `end` and zeros."""
    bits = (bits + end * bool(end == "1" or len(bits) % 8)).ljust(
        -(-(len(bits) + (end == "1")) // 8) * 8, "0"
    )
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


_MAIN_PROFILE, _LEVEL = 77, 10
_SEQUENCE_UNIT = bytes([1 << 5 | _SEQUENCE, _MAIN_PROFILE, 0, _LEVEL]) + _bytes(
    _code(0) + _code(0) + _code(0) + _code(4)  # number, bits of the frame's number, order of type 0, its bits
    + _code(1) + "0" + _code(0) + _code(0)  # one reference; one macroblock wide, one pair of them high
    + "0" + "0" + "1" + "0" + "0",  # fields; not mixed in a frame
    end="1",
)  # fmt: skip
_PICTURE_UNIT = bytes([1 << 5 | _PICTURE]) + _bytes(
    _code(0)
    + _code(0)
    + "00"
    + _code(0)
    + _code(0)
    + _code(0)
    + "000"
    + _code(0)
    + _code(0)
    + _code(0)
    + "000",
    end="1",
)
