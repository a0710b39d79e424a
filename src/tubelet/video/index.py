"""The index of a video file, found without decoding: its frames' times and where decoding can begin."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import av
from av.stream import Discard

from tubelet.video.sources import Deadline, VideoError

_ROUNDING_TICKS = 1e-3  # a time in seconds is not exactly a number of ticks
_VP8_SHOWN_BIT = 1 << 4  # in the first byte of a frame


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video: how many, when each is shown, how large; `len(index)` is their number.

    Attributes:
        times: presentation time of each frame, ascending, in ticks of the stream's time base.
        keys: numbers of the frames at which decoding can begin, ascending; the first is 0.
        fps: frames per second, 0 where the file does not specify them: the file's own number where the times
            differ from it only by rounding, as in WebM's milliseconds, and else the mean over all frames.
        height: height in pixels as shown, that is after the file's rotation.
        width: width in pixels as shown.
        codec: FFmpeg's name of the codec, such as `h264`; for a folder of images their suffix.
        tick_s: seconds of a tick; 0 in a folder of images, which has no times.
    """

    times: Sequence[int]
    keys: Sequence[int]
    fps: float
    width: int
    height: int
    codec: str
    tick_s: float = 0.0

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
        return (self.times[-1] - self.times[0]) * self.tick_s + (1 / self.fps if self.fps else 0.0)

    def frames_between(self, start_s: float | None, end_s: float | None) -> range:
        """Return the numbers of the frames with times in [start_s, end_s), in seconds after the first frame.

        None is the start or the end of the video.
        """

        def first_from(seconds: float) -> int:
            return bisect_left(self.times, self.times[0] + seconds / self.tick_s - _ROUNDING_TICKS)

        if not self.tick_s:
            return range(0)
        return range(first_from(start_s or 0.0), len(self) if end_s is None else first_from(end_s))

    def require(self, numbers: Sequence[int], path: Path | str) -> set[int]:
        """Return the distinct frame numbers.

        Raises:
            VideoError: no frames were asked for, or a frame is not in the video.
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


def times_are_guesses(container: av.container.InputContainer) -> bool:
    """Return whether frames have to be counted: AVI has no presentation times, and FFmpeg's guesses err."""
    return container.format.name == "avi"


def shows_frame(packet: av.Packet, stream: av.VideoStream) -> bool:
    """Return False for VP8's packets that only serve as references (RFC 6386, section 9.1)."""
    return stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & _VP8_SHOWN_BIT)


def scan_index(
    container: av.container.InputContainer, stream: av.VideoStream, deadline: Deadline
) -> VideoIndex:
    """Index any file by reading every packet, then seek back to the start.

    Not counted are the frames before the first key frame that do not decode, in a file that was cut out of
    another, and a last frame that is incomplete.

    Raises:
        VideoError: there are no frames, or the time limit is over.
    """
    shown = []
    first_key: int | None = None
    last: av.Packet | None = None
    for packet in container.demux(stream):
        deadline.check()
        if packet.size and packet.pts is not None:
            if packet.is_keyframe and first_key is None:
                first_key = packet.pts
            if not packet.is_discard and shows_frame(packet, stream):
                shown.append((packet.pts, packet.is_keyframe))
                last = packet
    if last and last.is_corrupt and len(shown) > 1:
        shown.pop()
    container.seek(0)
    if not shown:
        raise VideoError(f"{deadline.path}: no frames in this file")
    shown.sort()
    if first_key is not None and shown[0][0] < first_key:
        begin = _first_decoded_time(container, stream)
        shown = [frame for frame in shown if frame[0] >= (first_key if begin is None else begin)] or shown
    times = tuple(pts for pts, _ in shown)
    return _index(stream, times, (number for number, (_, key) in enumerate(shown) if key))


def _first_decoded_time(container: av.container.InputContainer, stream: av.VideoStream) -> int | None:
    """Return the time of the first frame that decodes, then seek back to the start."""
    try:
        return next((frame.pts for frame in container.decode(stream)), None)
    except (av.FFmpegError, ValueError):
        return None
    finally:
        container.seek(0)


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
    return _index(stream, times, (number for number, entry in enumerate(entries) if entry.is_keyframe))


def _index(stream: av.VideoStream, times: tuple[int, ...], keys: Iterable[int]) -> VideoIndex:
    context = stream.codec_context
    return VideoIndex(
        times=times,
        keys=(0, *(number for number in keys if number)),
        fps=_fps(times, stream),
        width=context.width,
        height=context.height,
        codec=context.name,
        tick_s=float(stream.time_base or 0),
    )


def _fps(times: tuple[int, ...], stream: av.VideoStream) -> float:
    stated, tick = stream.average_rate, stream.time_base or 0
    seconds = (times[-1] - times[0]) * tick
    if stated and abs(seconds - (len(times) - 1) / stated) <= 2 * tick:
        return float(stated)
    return float((len(times) - 1) / seconds) if seconds > 0 else float(stated or 0)
