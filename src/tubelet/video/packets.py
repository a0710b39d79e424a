"""Decode the wanted frames and as few others as possible.

Decoding begins at the key frame before a wanted frame and ends with the last packet that is needed from
there; packets between two such runs are never sent to the decoder. Packets of unwanted frames are sent with
`skip_frame` at NONREF, so the decoder drops those that no other frame refers to. The pixels of the wanted
frames are those of a full decode.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import av

from tubelet.video.demux import frame_packets, rewind, times_are_guesses
from tubelet.video.index import VideoIndex, shows_frame
from tubelet.video.sources import Deadline, VideoError

_EXACT_SEEKS = {"mov", "matroska", "mpegts"}  # FFmpeg's names of the containers
# H.264 and HEVC: packets between a packet and another that is shown before it.
_MAX_REORDERED_PACKETS = 16


class WrongIndexError(Exception):
    """A packet is not where the header's index has it."""


class FewerFramesError(Exception):
    """A file without times was decoded to its end and had fewer frames than packets.

    Attributes:
        num_frames: how many it had.
    """

    def __init__(self, num_frames: int) -> None:
        super().__init__(num_frames)
        self.num_frames = num_frames


@dataclass
class Decoding:
    """One reading of the wanted frames of an open file that is at its start.

    Attributes:
        container: the open file.
        stream: its video stream, from `video_stream`.
        index: the file's index.
        wanted: frame numbers.
        deadline: when to give up.
        from_header: the index is the header's, so packets have to confirm it.
        num_decoded: frames that the decoder has returned so far.
    """

    container: av.container.InputContainer
    stream: av.VideoStream
    index: VideoIndex
    wanted: set[int]
    deadline: Deadline
    from_header: bool = False
    num_decoded: int = 0
    _by_time: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_time = {self.index.times[number]: number for number in self.wanted}

    @property
    def num_spanned(self) -> int:
        """Frames of the video from the first key frame that is needed to the last wanted frame."""
        return max(self.wanted) - self.index.key_before(min(self.wanted)) + 1

    @property
    def _can_seek(self) -> bool:
        index = self.index
        if index.parts and not index.key_positions:
            return False  # the file's own times are ambiguous
        return index.times_are_unique and bool(_EXACT_SEEKS & set(self.container.format.name.split(",")))

    def frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield every wanted frame with its number, once, in the order in which they decode.

        Raises:
            VideoError: a wanted frame does not decode, or the time limit is over.
            WrongIndexError: the header's index is wrong; the frames yielded so far may have wrong numbers.
            FewerFramesError: the index counts packets, and fewer frames decode.
        """
        missing = set(self.wanted)
        if self._can_seek:
            for number, frame in self._decode_runs():
                if number in missing:
                    missing.remove(number)
                    yield number, frame
        if missing and self.from_header:
            raise WrongIndexError
        if missing:
            for number, frame in self._decode_from_start():
                if number in missing:
                    missing.remove(number)
                    yield number, frame
                if not missing:
                    break
        if missing:
            raise VideoError(
                f"{self.deadline.path}: {len(missing)} of {len(self.wanted)} frames do not decode:"
                f" {sorted(missing)[:5]}"
            )

    def packets(self) -> Iterator[av.Packet | None]:
        """Yield the packets to send to the decoder in their order; None: drain and flush it.

        Raises:
            WrongIndexError: the header's index is wrong.
        """
        reader = _PacketReader(self)
        sent: set[int] = set()  # times
        run_keys: set[int] = set()  # times of the key frames sent since the decoder was last flushed
        for group, times in self._wanted_times_by_group().items():
            unsent = times - sent
            if not unsent:
                continue
            key = self.index.keys[group]
            key_time = self.index.times[key]
            sending = key_time in run_keys
            if not sending:
                if run_keys:
                    yield None
                    run_keys = set()
                reader.go_to(group)
            for packet in reader.packets():
                # A seek may land on an earlier key frame. The first shown frame need not be a key frame: an
                # edit list may cut into a group, and then every packet from where the seek lands is needed.
                if not sending and key and not (packet.pts == key_time and packet.is_keyframe):
                    continue
                if not sending:
                    run_keys = {key_time}
                    sending = True
                if packet.pts is not None and shows_frame(packet, self.stream):
                    sent.add(packet.pts)
                    unsent.discard(packet.pts)
                    if packet.is_keyframe:
                        run_keys.add(packet.pts)
                yield packet
                if not unsent:
                    break
            reader.finish(group, max(times))
        yield None

    def _wanted_times_by_group(self) -> dict[int, set[int]]:
        """Return the wanted times from each key frame to the next, by the key frame's position in `keys`."""
        groups: dict[int, set[int]] = {}
        for number in sorted(self.wanted):
            groups.setdefault(self.index.group_of(number), set()).add(self.index.times[number])
        return groups

    def _decode_runs(self) -> Iterator[tuple[int | None, av.VideoFrame]]:
        """Decode only what `packets` yields; None numbers a frame that is not wanted."""
        context = self.stream.codec_context
        dropping = None
        # The packets confirm a header's index before anything is decoded.
        for packet in list(self.packets()) if self.from_header else self.packets():
            if packet is not None:
                unwanted = packet.pts is not None and packet.pts not in self._by_time
                if unwanted != dropping:  # setting it costs more than comparing
                    dropping = unwanted
                    context.skip_frame = "NONREF" if unwanted else "DEFAULT"
            for frame in context.decode(packet):
                self.num_decoded += 1
                yield self._number_of(frame), frame
            if packet is None:
                context.flush_buffers()

    def _decode_from_start(self) -> Iterator[tuple[int | None, av.VideoFrame]]:
        """Decode every frame, without seeking to key frames."""
        guessed = times_are_guesses(self.container)
        counted = guessed or not self.index.times_are_unique
        rewind(self.container)
        context, count, has_begun = self.stream.codec_context, 0, False
        context.skip_frame = "DEFAULT"
        for packet in frame_packets(self.container, self.stream, self.index.parts):
            self.deadline.check()
            has_begun |= packet.is_keyframe
            try:
                frames = context.decode(packet)
            except av.FFmpegError:
                if has_begun:
                    raise
                continue  # the file was cut out of another between key frames
            for frame in frames:
                self.num_decoded += 1
                yield count if counted else self._number_of(frame), frame
                count += 1
        if guessed and 0 < count < len(self.index):
            raise FewerFramesError(count)

    def _number_of(self, frame: av.VideoFrame) -> int | None:
        return self._by_time.get(frame.pts) if frame.pts is not None else None


class _PacketReader:
    """Packets of an open file, group by group; they are checked against an index that is the header's.

    A group is a key frame and all packets to the next key frame.
    """

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self._index = decoding.index
        self._source: Iterator[av.Packet] | None = None
        self._group = 0  # the last one read
        self._keys_read: set[int] = set()  # times of the key frames read since the last seek
        self._times_read: set[int | None] = set()

    def go_to(self, group: int) -> None:
        """Continue with this group: read on where it is the next one, and seek otherwise."""
        key = self._index.keys[group]
        time = self._index.times[key]
        if self._source is not None and time not in self._keys_read and group <= self._group + 1:
            return
        container, stream = self._decoding.container, self._decoding.stream
        if self._source is not None or key:
            if self._index.key_positions:
                container.seek(self._index.key_positions[group], unsupported_byte_offset=True)
            else:
                container.seek(time, stream=stream, backward=True)
        self._source = frame_packets(container, stream, self._index.parts)
        self._keys_read = set()

    def packets(self) -> Iterator[av.Packet]:
        """Yield packets to the end of the file."""
        assert self._source is not None
        for packet in self._source:
            self._decoding.deadline.check()
            if not packet.size:
                return
            if packet.is_keyframe and packet.pts is not None:
                self._keys_read.add(packet.pts)
            if self._decoding.from_header:
                self._confirm(packet)
                self._times_read.add(packet.pts)
            yield packet

    def finish(self, group: int, last_time: int) -> None:
        """End a group of which `last_time` is the last wanted frame's.

        With a header's index this checks that the frames up to the one after it are among the packets read
        and the next ones. If one were missing, the frames after it would have numbers too high by one.
        """
        self._group = group
        if not self._decoding.from_header:
            return
        assert self._source is not None
        start, end = self._index.keys[group], bisect_right(self._index.times, last_time) + 1
        missing = set(self._index.times[start:end]) - self._times_read
        ahead: list[av.Packet] = []
        while missing and len(ahead) < _MAX_REORDERED_PACKETS and (packet := next(self._source, None)):
            ahead.append(packet)
            missing.discard(packet.pts)
        if missing:
            raise WrongIndexError
        self._source = chain(ahead, self._source)

    def _confirm(self, packet: av.Packet) -> None:
        """Check that the header's index has this packet's time, and a key frame where it is one."""
        number = bisect_left(self._index.times, packet.pts or 0)
        found = self._index.times[number : number + 1] == (packet.pts,)
        if not found or (packet.is_keyframe and self._index.key_before(number) != number):
            raise WrongIndexError
