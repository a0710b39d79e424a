"""Packets of an open file: one for each frame, with times that continue where recordings were joined."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import av

from tubelet.video.h264_fields import may_have_fields, one_packet_per_frame
from tubelet.video.sources import Deadline

DEFAULT_RATE = Fraction(25)  # frames per second, as FFmpeg assumes
_NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS
_BROADCAST_FORMATS = {"mpegts", "mpeg"}
_LONGEST_STEP_S = 1.0  # between frames of one recording, or ten frames where these are longer


def frame_packets(
    container: av.container.InputContainer, stream: av.VideoStream, parts: Sequence[tuple[int, int]] = ()
) -> Iterator[av.Packet]:
    """Yield one packet for each frame from where the file is to its end, and then an empty one.

    Args:
        container: the open file.
        stream: its video stream.
        parts: `VideoIndex.parts`, by which the packets' times are shifted.
    """
    packets: Iterator[av.Packet] = container.demux(stream)
    if may_have_fields(stream):
        packets = one_packet_per_frame(packets, stream)
    return _continued(packets, parts) if parts else packets


def _continued(packets: Iterable[av.Packet], parts: Sequence[tuple[int, int]]) -> Iterator[av.Packet]:
    positions = [position for position, _ in parts]
    shift = 0
    for packet in packets:
        if (position := position_of(packet)) is not None:
            _, shift = parts[max(0, bisect_right(positions, position) - 1)]
        if packet.pts is not None:
            packet.pts += shift
        if packet.dts is not None:
            packet.dts += shift
        yield packet


def position_of(packet: av.Packet) -> int | None:
    """Return where in the file a packet of `frame_packets` begins, in bytes."""
    position = packet.opaque if packet.pos is None else packet.pos
    return position if isinstance(position, int) else None


def times_are_guesses(container: av.container.InputContainer) -> bool:
    """Return whether frames have to be counted: AVI and elementary streams have no presentation times."""
    return container.format.name == "avi" or has_no_times(container)


def has_no_times(container: av.container.InputContainer) -> bool:
    """Return whether a file is an elementary stream, such as H.264 without a container."""
    return bool(container.format.flags & _NO_TIMESTAMPS)


def stated_rate(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    """Return the frames per second that a file states, None if it does not."""
    by_codec = stream.guessed_rate if has_no_times(container) else None
    return by_codec or stream.average_rate


def longest_step(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Return how many ticks two frames of one recording may be apart; infinity where that has no limit.

    Broadcasts and camera recordings have frames all the time, so that more is a gap between two of them.
    """
    if container.format.name not in _BROADCAST_FORMATS or not stream.time_base:
        return float("inf")
    rate = stated_rate(container, stream)
    frame_s = 1 / rate if rate else 0
    return max(_LONGEST_STEP_S, 10 * frame_s) / float(stream.time_base)


def seeks_by_bytes(container: av.container.InputContainer) -> bool:
    """Return whether a frame is found by its position in the file, as times are ambiguous or missing."""
    return container.format.name in _BROADCAST_FORMATS or has_no_times(container)


def rewind(container: av.container.InputContainer) -> None:
    """Go to the start of a file."""
    container.seek(0, unsupported_byte_offset=seeks_by_bytes(container))


class ReadableFrames:
    """The frames that decode, in order; `num_bad_packets` counts the packets that do not.

    Args:
        packets: a file's packets, from its start.
        deadline: when to give up.
    """

    def __init__(self, packets: Iterable[av.Packet], deadline: Deadline) -> None:
        self.num_bad_packets = 0
        self._packets = iter(packets)
        self._deadline = deadline

    def __iter__(self) -> Iterator[av.VideoFrame]:
        while True:
            self._deadline.check()
            try:
                packet = next(self._packets)
            except StopIteration:
                return
            except (av.FFmpegError, IndexError):  # IndexError: a new stream appears in the middle of the file
                self.num_bad_packets += 1
                return
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self.num_bad_packets += 1
