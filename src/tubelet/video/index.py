"""The index of a video file, found without decoding: its frames' times and where decoding can begin."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import NamedTuple

import av
from av.stream import Discard

from tubelet.video.demux import (
    DEFAULT_RATE,
    ReadableFrames,
    frame_packets,
    has_no_times,
    longest_step,
    position_of,
    rewind,
    seeks_by_bytes,
    stated_rate,
    times_are_guesses,
)
from tubelet.video.sources import Deadline, VideoError

# A time in seconds is not exactly a number of ticks, and lists have microseconds.
_ROUNDING_TICKS = 1e-3
_ROUNDING_S = 1e-6
_VP8_SHOWN_BIT = 1 << 4  # in the first byte of a frame


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video: how many, when each is shown, how large; `len(index)` is their number.

    Attributes:
        times: presentation time of each frame, ascending, in ticks of the stream's time base. In a file that
            was joined from several recordings, each continues the times of the one before.
        keys: numbers of the frames at which decoding can begin, ascending; the first is 0.
        fps: frames per second, 0 where the file does not specify them: the file's own number where the times
            differ from it only by rounding, as in WebM's milliseconds, and else the mean over all frames.
        height: height in pixels as shown, that is after the file's rotation.
        width: width in pixels as shown.
        codec: FFmpeg's name of the codec, such as `h264`; for a folder of images their suffix.
        tick_s: seconds of a tick; 0 in a folder of images, which has no times.
        parts: of each recording from which the file was joined, where its first packet is in bytes, and how
            many ticks are added to its times to continue those before; empty where it is one recording.
        key_positions: where to go in the file to decode from each of `keys`, in bytes; empty where that is
            found by time.
    """

    times: Sequence[int]
    keys: Sequence[int]
    fps: float
    width: int
    height: int
    codec: str
    tick_s: float = 0.0
    parts: Sequence[tuple[int, int]] = ()
    key_positions: Sequence[int] = ()

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.times)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels as shown."""
        return self.height, self.width

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def times_are_unique(self) -> bool:
        """False where ticks are too long for the frames, or the file has one time twice."""
        return len(set(self.times)) == len(self.times)

    def group_of(self, number: int) -> int:
        """Return the position in `keys` of the key frame at which decoding a frame begins."""
        return bisect_right(self.keys, number) - 1

    def key_before(self, number: int) -> int:
        """Return the number of the key frame at which decoding a frame begins; it may be that frame."""
        return self.keys[self.group_of(number)]

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame's time to the end of the last, which is as long as the mean frame."""
        return self.shown_at(-1) + (1 / self.fps if self.fps else 0.0)

    def shown_at(self, number: int) -> float:
        """Return when a frame is shown, in seconds after the first frame."""
        return (self.times[number] - self.times[0]) * self.tick_s

    def frames_between(self, start_s: float | None, end_s: float | None) -> range:
        """Return the numbers of the frames with times in [start_s, end_s), in seconds after the first frame.

        None is the start or the end of the video.
        """

        if not self.tick_s:
            return range(0)
        rounding = max(_ROUNDING_TICKS, _ROUNDING_S / self.tick_s)

        def first_from(seconds: float) -> int:
            return bisect_left(self.times, self.times[0] + seconds / self.tick_s - rounding)

        return range(first_from(start_s or 0.0), len(self) if end_s is None else first_from(end_s))

    def require(self, numbers: Sequence[int], path: Path | str) -> set[int]:
        """Return the distinct frame numbers.

        Raises:
            VideoError: no frames were requested, or a frame is not in the video.
        """
        wanted = set(numbers)
        if not wanted or min(wanted) < 0 or max(wanted) >= len(self):
            found = sorted(wanted - set(range(len(self))))[:5] or "none"
            raise VideoError(
                f"{path}: expected frame numbers of a video of {len(self)} frames, found {found}"
            )
        return wanted


def video_stream(container: av.container.InputContainer, path: Path | str) -> av.VideoStream:
    """Return the stream to show, with its decoder open and single-threaded.

    Raises:
        VideoError: the file has no video stream, or PyAV no decoder for it.
    """
    try:
        stream = container.streams.best("video")
    except IndexError:  # a broken file's stream that was found while probing and is not listed
        stream = None
    if not isinstance(stream, av.VideoStream):
        raise VideoError(f"{path}: no video in this file")
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise VideoError(
            f"{path}: cannot be read as a video (FFmpeg finds one image in it, {stream.codec_context.name})"
        )
    if stream.codec_context is None:
        raise VideoError(
            f"{path}: this build of PyAV has no decoder for it. Install its wheel: pip install av"
        )
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all  # audio is not even read
    stream.thread_count = 1  # each worker has one core
    stream.codec_context.open()  # some decoders read skip_frame only when they open
    return stream


def shows_frame(packet: av.Packet, stream: av.VideoStream) -> bool:
    """Return False for VP8's packets that only serve as references (RFC 6386, section 9.1)."""
    return stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & _VP8_SHOWN_BIT)


def scan_index(
    container: av.container.InputContainer, stream: av.VideoStream, deadline: Deadline
) -> VideoIndex:
    """Index any file by reading every packet, then seek back to the start.

    Not counted are the frames before the first key frame that do not decode, in a file that was cut out of
    another, and a last frame that is incomplete. Recordings that were joined end to end follow each other.

    Raises:
        VideoError: there are no frames, or the time limit is over.
    """
    frames, first_key = _read_frames(container, stream, deadline)
    rewind(container)
    if not frames:
        raise VideoError(f"{deadline.path}: no frames in this file")
    starts = [0] if times_are_guesses(container) else _part_starts(frames, longest_step(container, stream))
    parts, frames = _continue_times(frames, starts)
    if first_key is not None and frames[0].time < first_key and not has_no_times(container):
        packets = frame_packets(container, stream, parts)
        first = next(iter(ReadableFrames(packets, deadline)), None)
        begin = first_key if first is None or first.pts is None else first.pts
        frames = [frame for frame in frames if frame.time >= begin] or frames
        rewind(container)
    keys = [number for number, frame in enumerate(frames) if frame.is_key or not number]
    if has_no_times(container):
        keys = [0]
    index = _index(container, stream, tuple(frame.time for frame in frames), keys)
    key_positions = tuple(frames[key].position for key in keys) if seeks_by_bytes(container) else ()
    return replace(index, parts=parts, key_positions=key_positions)


class _Frame(NamedTuple):
    """A frame's packet: when it is shown and decoded in ticks, where it is in the file in bytes."""

    time: int
    decoded: int | None
    position: int
    is_key: bool


def _read_frames(
    container: av.container.InputContainer, stream: av.VideoStream, deadline: Deadline
) -> tuple[list[_Frame], int | None]:
    """Return the frames in the order in which they decode, and the time of the first key frame."""
    frames: list[_Frame] = []
    first_key: int | None = None
    last: av.Packet | None = None
    counted, step = has_no_times(container), _ticks_per_frame(container, stream)
    position = 0
    for packet in frame_packets(container, stream):
        deadline.check()
        time = len(frames) * step if counted else packet.pts
        if not packet.size or time is None:
            continue
        if packet.is_keyframe and first_key is None:
            first_key = time
        if not packet.is_discard and shows_frame(packet, stream):
            at = position_of(packet)
            position = position if at is None else at
            frames.append(_Frame(time, packet.dts, position, packet.is_keyframe))
            last = packet
    if last and last.is_corrupt and len(frames) > 1:
        frames.pop()
    return frames, first_key


def _part_starts(frames: Sequence[_Frame], longest_step: float) -> list[int]:
    """Return which frames, in decoding order, begin a recording: times step back there, or far ahead."""
    starts, latest = [0], frames[0].time
    for number, (early, late) in enumerate(pairwise(frames), 1):
        step = 0 if early.decoded is None or late.decoded is None else late.decoded - early.decoded
        steps_back = step < 0 or (late.is_key and late.time < latest)
        if (steps_back or step > longest_step) and late.position > frames[starts[-1]].position:
            starts.append(number)
            latest = late.time
        latest = max(latest, late.time)
    return starts


def _continue_times(
    frames: Sequence[_Frame], starts: Sequence[int]
) -> tuple[tuple[tuple[int, int], ...], list[_Frame]]:
    """Shift each recording's times to follow those of the one before; return the frames in shown order."""
    shown = [
        sorted(frames[start:end], key=itemgetter(0))
        for start, end in zip(starts, [*starts[1:], None], strict=True)
    ]
    if len(shown) == 1:
        return (), shown[0]
    steps = [late.time - early.time for part in shown for early, late in pairwise(part)]
    step = int(median(steps)) if steps else 1
    parts: list[tuple[int, int]] = []
    continued: list[_Frame] = []
    for start, part in zip(starts, shown, strict=True):
        shift = continued[-1].time + step - part[0].time if continued else 0
        parts.append((frames[start].position if continued else 0, shift))
        continued += [frame._replace(time=frame.time + shift) for frame in part]
    return tuple(parts), continued


def _ticks_per_frame(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    rate, tick = stated_rate(container, stream) or DEFAULT_RATE, stream.time_base
    return max(1, round(1 / (rate * tick))) if tick else 1


def header_index(container: av.container.InputContainer, stream: av.VideoStream) -> VideoIndex | None:
    """Index an MP4 by its header where that is regular; no packet is read.

    PyAV shows the header's decoding times. They are the presentation times, except for a shift, where frames
    are evenly spaced or in order. `Decoding` checks every packet that it reads against them.

    Returns:
        None where the packets have to be read: another container, a part of the file is missing or cut out,
        or frames are unevenly spaced and reordered.
    """
    entries = list(stream.index_entries)
    start = stream.start_time
    if "mov" not in container.format.name.split(",") or not entries or start is None:
        return None
    whole = len(entries) == stream.frames and not any(entry.is_discard for entry in entries)
    last = max(entry.pos + entry.size for entry in entries)
    if not whole or not entries[0].is_keyframe or last > container.size:
        return None
    decoding = [entry.timestamp for entry in entries]
    steps = {late - early for early, late in pairwise(decoding)}
    if any(step <= 0 for step in steps) or (len(steps) > 1 and stream.codec_context.has_b_frames):
        return None
    times = tuple(time - decoding[0] + start for time in decoding)
    return _index(
        container, stream, times, (number for number, entry in enumerate(entries) if entry.is_keyframe)
    )


def _index(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    times: tuple[int, ...],
    keys: Iterable[int],
) -> VideoIndex:
    context = stream.codec_context
    return VideoIndex(
        times=times,
        keys=(0, *(number for number in keys if number)),
        fps=_fps(times, container, stream),
        width=context.width,
        height=context.height,
        codec=context.name,
        tick_s=float(stream.time_base or 0),
    )


def _fps(times: tuple[int, ...], container: av.container.InputContainer, stream: av.VideoStream) -> float:
    stated, tick = stated_rate(container, stream), stream.time_base or 0
    seconds = (times[-1] - times[0]) * tick
    if stated and abs(seconds - (len(times) - 1) / stated) <= 2 * tick:
        return float(stated)
    return float((len(times) - 1) / seconds) if seconds > 0 else float(stated or 0)
