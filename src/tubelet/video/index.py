"""What a video file holds, learnt without decoding it: its frames' times and where decoding can begin."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import av
from av.stream import Discard

from tubelet.video.sources import Deadline, VideoError

_VP8_SHOWN = 1 << 4  # in the first byte of a frame


@dataclass(frozen=True)
class VideoIndex:
    """What one pass over a file's packets tells.

    Attributes:
        times: the frames' presentation times in order, in the stream's ticks: one for each frame.
        keys: positions in `times` at which decoding can begin, ascending; the first is 0.
        fps: frames per second, 0 where the file does not tell: the file's own number where its frames' times
            are that but for rounding, as in WebM's milliseconds, and else their mean.
        width: pixels, as shown.
        height: pixels, as shown.
        codec: FFmpeg's name.
    """

    times: Sequence[int]
    keys: Sequence[int]
    fps: float
    width: int
    height: int
    codec: str

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def distinct(self) -> bool:
        """Whether a time tells a frame: ticks may be too few for the frames, or a file may err."""
        return len(set(self.times)) == len(self.times)


def video_stream(container: av.container.InputContainer, path: Path | str) -> av.VideoStream:
    """The stream to show, its decoder open and with one thread.

    Raises:
        VideoError: there is none, or no decoder for it.
    """
    try:
        stream = container.streams.best("video")
    except IndexError:  # found while probing, in a broken file, and not listed
        stream = None
    if not isinstance(stream, av.VideoStream):
        raise VideoError(f"{path}: no video in this file")
    if stream.codec_context is None:
        raise VideoError(
            f"{path}: this build of PyAV has no decoder for it; install its wheel: pip install av"
        )
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all  # sound is not even read
    stream.thread_count = 1  # one thread a worker: more only get in each other's way
    stream.codec_context.open()  # some decoders read skip_frame once, when they open
    return stream


def times_are_guesses(container: av.container.InputContainer) -> bool:
    """Whether frames have to be counted: AVI has no times of showing, and FFmpeg's guesses err."""
    return container.format.name == "avi"


def shows_frame(packet: av.Packet, stream: av.VideoStream) -> bool:
    """Whether a frame comes of it: some in VP8 are only referred to by others (RFC 6386, section 9.1)."""
    return stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & _VP8_SHOWN)


def scan_index(
    container: av.container.InputContainer, stream: av.VideoStream, deadline: Deadline
) -> VideoIndex:
    """Read every packet, then go back to the start. Right for any file; costs reading all of it.

    Frames before the first key frame of a file that was cut out of another are not counted as far as they do
    not decode, and neither is a last frame of which a part is missing.

    Raises:
        VideoError: there are no frames, or the time is over.
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
        begin = _first_decoded(container, stream)
        shown = [frame for frame in shown if frame[0] >= (first_key if begin is None else begin)] or shown
    times = tuple(pts for pts, _ in shown)
    return _index(stream, times, (number for number, (_, key) in enumerate(shown) if key))


def _first_decoded(container: av.container.InputContainer, stream: av.VideoStream) -> int | None:
    """The time of the first frame that decodes; reading goes on from the start."""
    try:
        return next((frame.pts for frame in container.decode(stream)), None)
    except (av.FFmpegError, ValueError):
        return None
    finally:
        container.seek(0)


def header_index(container: av.container.InputContainer, stream: av.VideoStream) -> VideoIndex | None:
    """What the header of an MP4 tells, where it alone can be relied on; reads no packet.

    The header as PyAV shows it has decoding times. They are the presentation times but for a shift where
    frames are evenly spaced or come in order. `Decoding` checks every packet that it reads against them.

    Returns:
        None where the packets have to be read: another container, a part of the file is missing or cut out,
        or frames are spaced unevenly and reordered.
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
    )


def _fps(times: tuple[int, ...], stream: av.VideoStream) -> float:
    told, tick = stream.average_rate, stream.time_base or 0
    seconds = (times[-1] - times[0]) * tick
    if told and abs(seconds - (len(times) - 1) / told) <= 2 * tick:
        return float(told)
    return float((len(times) - 1) / seconds) if seconds > 0 else float(told or 0)
