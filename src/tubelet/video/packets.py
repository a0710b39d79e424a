"""Decode the frames that are wanted and as few others as possible.

Decoding begins at the key frame before a wanted frame and ends with the last packet that is wanted from
there; whatever lies between two such runs is never sent to the decoder. Of the packets that are sent, those
of unwanted frames go with `skip_frame` at NONREF, and the decoder drops the frames that no other refers to.
Pixels of the frames that are kept are those of a full decode.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import av

from tubelet.video.index import VideoIndex, shows_frame, times_are_guesses
from tubelet.video.sources import Deadline, VideoError

_EXACT_SEEKS = {"mov", "matroska", "mpegts"}  # FFmpeg's names of the containers
_MOST_REORDERED = 16  # packets between one and another that is shown before it, in H.264 and HEVC
Take = Callable[[int, av.VideoFrame], None]


class WrongIndexError(Exception):
    """A packet is not where the index has it."""


@dataclass
class Decoding:
    """One reading of the wanted frames of one open file.

    Attributes:
        container: the open file.
        stream: its video, from `video_stream`.
        index: what is known of it.
        wanted: numbers of frames.
        deadline: when to give up.
        guessed: the index is from the header alone, so that packets have to confirm it.
        decoded: frames that the decoder has handed out so far.
    """

    container: av.container.InputContainer
    stream: av.VideoStream
    index: VideoIndex
    wanted: set[int]
    deadline: Deadline
    guessed: bool = False
    decoded: int = 0
    _by_time: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_time = {self.index.times[number]: number for number in self.wanted}

    @property
    def spanned(self) -> int:
        """Frames of the video from the first key frame that is needed to the last wanted frame."""
        return max(self.wanted) - self._key_before(min(self.wanted)) + 1

    def run(self, take: Take) -> None:
        """Hand every wanted frame to `take(number, frame)`, once, in the order in which they decode.

        Raises:
            VideoError: some frames do not decode, or the time is over.
            WrongIndexError: a guessed index is wrong; nothing taken so far is to be trusted.
        """
        missing = set(self.wanted)

        def take_once(number: int, frame: av.VideoFrame) -> None:
            if number in missing:
                missing.discard(number)
                take(number, frame)

        if self.index.distinct and _EXACT_SEEKS & set(self.container.format.name.split(",")):
            self._run(take_once)
        if missing and self.guessed:
            raise WrongIndexError
        if missing:
            self._run_from_start(take_once, missing)
        if missing:
            self._fail(missing)

    def packets(self) -> Iterator[av.Packet | None]:
        """The packets to send to the decoder in their order; None: drain and flush it."""
        groups: dict[int, set[int]] = {}  # key frame -> times of what is wanted up to the next
        for number in sorted(self.wanted):
            groups.setdefault(self._key_before(number), set()).add(self.index.times[number])
        seen: set[int | None] = set()  # what was read, by time
        sent: set[int] = set()
        began: set[int] = set()  # key frames sent in this run, by time
        read: set[int] = set()  # key frames read since the last seek, by time
        source: Iterator[av.Packet] | None = None
        position = 0  # of the last group, in index.keys
        for key, times in groups.items():
            left = times - sent
            if not left:
                continue
            start = self.index.times[key]
            place = bisect_right(self.index.keys, key) - 1
            waiting = start not in began
            if waiting:
                if began:
                    yield None
                    began = set()
                if source is None or start in read or place > position + 1:
                    if source is not None or key:
                        self.container.seek(start, stream=self.stream, backward=True)
                    source = self.container.demux(self.stream)
                    read = set()
            assert source is not None
            for packet in source:
                self.deadline.check()
                if not packet.size:
                    break
                if packet.is_keyframe and packet.pts is not None:
                    read.add(packet.pts)
                if self.guessed:
                    self._confirm(packet)
                    seen.add(packet.pts)
                # A seek may land on an earlier key frame. The first shown frame need not be one: an edit
                # list may cut into a group, and then everything from where the seek lands is needed.
                if waiting and key and not (packet.pts == start and packet.is_keyframe):
                    continue
                if waiting:
                    began = {start}
                    waiting = False
                if packet.pts is not None and shows_frame(packet, self.stream):
                    sent.add(packet.pts)
                    left.discard(packet.pts)
                    if packet.is_keyframe:
                        began.add(packet.pts)
                yield packet
                if not left:
                    break
            if self.guessed:
                # And the next frame: it is not there where it has the time of one that is wanted.
                last = bisect_right(self.index.times, max(times)) + 1
                source = self._with_all_before(source, set(self.index.times[key:last]) - seen)
            position = place
        yield None

    def _key_before(self, number: int) -> int:
        """The key frame that decoding a frame begins at, which may be that frame."""
        return self.index.keys[bisect_right(self.index.keys, number) - 1]

    def _confirm(self, packet: av.Packet) -> None:
        """That a guessed index has such a packet, and key frames where they are."""
        number = bisect_left(self.index.times, packet.pts or 0)
        there = self.index.times[number : number + 1] == (packet.pts,)
        if not there or (packet.is_keyframe and self._key_before(number) != number):
            raise WrongIndexError

    def _with_all_before(self, source: Iterator[av.Packet], missing: set[int]) -> Iterator[av.Packet]:
        """The same packets, once it is sure that the frames which a guessed index has are among the next.

        Were one not there, all that are shown later would have numbers too high by one.
        """
        ahead: list[av.Packet] = []
        while missing and len(ahead) < _MOST_REORDERED and (packet := next(source, None)):
            ahead.append(packet)
            missing.discard(packet.pts)
        if missing:
            raise WrongIndexError
        return chain(ahead, source)

    def _run(self, take: Take) -> None:
        context = self.stream.codec_context
        dropping = None
        for packet in list(self.packets()) if self.guessed else self.packets():  # none is decoded in vain
            if packet is not None:
                unwanted = packet.pts is not None and packet.pts not in self._by_time
                if unwanted != dropping:  # setting it costs more than comparing
                    dropping = unwanted
                    context.skip_frame = "NONREF" if unwanted else "DEFAULT"
            for frame in context.decode(packet):
                self.decoded += 1
                number = self._by_time.get(frame.pts) if frame.pts is not None else None
                if number is not None:
                    take(number, frame)
            if packet is None:
                context.flush_buffers()

    def _run_from_start(self, take: Take, missing: set[int]) -> None:
        """Without seeking."""
        counted = times_are_guesses(self.container) or not self.index.distinct
        self.container.seek(0)
        self.stream.codec_context.skip_frame = "DEFAULT"
        for count, frame in enumerate(self.container.decode(self.stream)):
            self.deadline.check()
            self.decoded += 1
            number = count if counted else self._by_time.get(frame.pts) if frame.pts is not None else None
            if number in self.wanted:
                take(number, frame)
                if not missing:
                    break

    def _fail(self, missing: set[int]) -> None:
        raise VideoError(
            f"{self.deadline.path}: {len(missing)} of {len(self.wanted)} frames do not decode:"
            f" {sorted(missing)[:5]}"
        )
