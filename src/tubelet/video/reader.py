"""Open a video, look at its index, choose frames and crops, and read them.

    with open_video("cat.mp4") as video:
        last = len(video.index) - 1
        frames = video.read([0, last // 2, last])

A video is a file, a folder of numbered images, or a remote file (s3://, gs://, oss://, hf://, http://,
https://). A read decodes each frame once, however many crops show it, and as few other frames as possible.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import av
from torch import Tensor

from tubelet.video.demux import ReadableFrames, frame_packets, rewind
from tubelet.video.image_folder import ImageFolder
from tubelet.video.index import VideoIndex as VideoIndex
from tubelet.video.index import header_index, scan_index, video_stream
from tubelet.video.packets import Decoding, FewerFramesError, WrongIndexError
from tubelet.video.pixels import Crop as Crop
from tubelet.video.pixels import FrameConverter, Orientation, converter_of
from tubelet.video.remote import remote_url
from tubelet.video.sources import (
    TIME_LIMIT_S,
    Deadline,
    OpenFile,
    SizeChangesError,
    open_container,
    video_errors,
)
from tubelet.video.sources import IndexChanged as IndexChanged
from tubelet.video.sources import VideoError as VideoError

_OTHER_FRAMES = "its header describes other frames than it has; choose frames and crops again"


class Video(Protocol):
    """An open video, from `open_video`."""

    @property
    def index(self) -> VideoIndex:
        """The number, times, rate and size of the frames, by which to choose what to read.

        It comes from the file's header where that is regular, and reading may mend it.
        """
        ...

    @property
    def stated_duration_s(self) -> float:
        """The duration that the file states, in seconds; 0 if it does not."""
        ...

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Decode whole frames.

        `index.height` and `index.width` are the frames' afterwards, should the header have another size.

        Args:
            numbers: frame numbers from 0, in any order, repeats allowed.

        Returns:
            uint8 (len(numbers), C=3, H, W), RGB, rotated as the file specifies. Pixels that are not square
            are not stretched.

        Raises:
            IndexChanged: the header was wrong about the frames, and `index` is mended: choose again.
            SizeChangesError: the frames are not all of one size.
            VideoError: a frame is not in the video or does not decode, or the time limit is over.
            FetchError: the video is remote and could not be fetched.
        """
        ...

    def read_crops(self, crops: Sequence[Crop]) -> list[Tensor]:
        """Decode frames, each once, and cut out and scale parts of them.

        Args:
            crops: which part of which frames, and how large.

        Returns:
            For each crop uint8 (len(crop.frames), C=3, *crop.size), RGB.

        Raises:
            IndexChanged: the header was wrong about the frames or their size, and `index` is mended: choose
                again.
            VideoError: as `read`, of which SizeChangesError and FetchError are kinds; or a box is not within
                the frames.
        """
        ...


@contextmanager
def open_video(
    path: Path | str,
    *,
    exact: bool = False,
    limit: float = TIME_LIMIT_S,
    start: float | None = None,
    end: float | None = None,
) -> Iterator[Video]:
    """Open a video for reading and close it at the end of the `with` block.

    Args:
        path: a file, a folder of numbered images, or the URL of a file.
        exact: index the video by reading every packet and decoding a frame, so that reading need not mend
            the index; otherwise a regular MP4 is indexed by its header, which is faster.
        limit: seconds from opening after which reading fails.
        start: seconds after the first frame at which the segment to read begins; None for the whole video.
        end: seconds at which it ends: the frame that is shown from then on is not part of it. Frame 0 of the
            open video is then the first of the segment.

    Yields:
        The open video: see `Video`.

    Raises:
        VideoError: the file is missing, is not a video, has no frames (in the segment), or does not open in
            time.
        FetchError: it is remote and could not be fetched.
    """
    with _open_whole(path, Deadline(path, limit), exact) as video:
        yield video if start is None and end is None else VideoSegment(video, path, start, end)


class LastVideo:
    """Opens segments of videos; a file stays open until a segment of another one is asked for.

    Opening a long file takes far longer than reading a segment of it: all its packets may have to be read.
    """

    def __init__(self) -> None:
        self._last: tuple[Path | str, Video, Deadline] | None = None
        self._opened = ExitStack()

    @contextmanager
    def open(self, path: Path | str, start: float | None, end: float | None) -> Iterator[Video]:
        """Open a segment as `open_video` does; a whole video is closed at the end of the `with` block."""
        if start is None and end is None:
            with open_video(path) as video:
                yield video
            return
        if self._last is None or self._last[0] != path:
            self.close()
            deadline = Deadline(path, TIME_LIMIT_S)
            video = self._opened.enter_context(_open_whole(path, deadline, exact=False))
            self._last = path, video, deadline
        _, video, deadline = self._last
        deadline.restart()
        try:
            yield VideoSegment(video, path, start, end)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file that is open, if any."""
        self._last = None
        self._opened.close()


@contextmanager
def _open_whole(path: Path | str, deadline: Deadline, exact: bool) -> Iterator[Video]:
    if not remote_url(path) and Path(path).is_dir():
        yield ImageFolder(Path(path), deadline)
        return
    with open_container(path, deadline) as file:
        yield VideoFile(file, deadline, exact)


class VideoFile:
    """An open video file; see `Video` and `open_video`."""

    def __init__(self, file: OpenFile, deadline: Deadline, exact: bool) -> None:
        self._container = container = file.container
        self._deadline = deadline
        self._at_start = True
        with video_errors(deadline):
            self._stream = video_stream(container, deadline.path)
            header = None if exact else header_index(container, self._stream)
            self._from_header = header is not None
            self.index = header or scan_index(container, self._stream, deadline)
            if exact or file.may_be_turned or not self._size_is_known:
                self._mend_size(*self._shown_size())
        if not self._size_is_known:
            raise VideoError(f"{deadline.path}: cannot be read as a video (none of its frames decode)")

    @property
    def stated_duration_s(self) -> float:
        """The shorter of the durations that the video stream and the whole file state, in seconds."""
        if self.index.parts:
            return 0.0  # FFmpeg's estimate takes the file for one recording
        stream = self._stream
        of_stream = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        of_file = (self._container.duration or 0) / av.time_base
        return min((seconds for seconds in (of_stream, of_file) if seconds > 0), default=0.0)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """See `Video.read`."""
        converter = FrameConverter(list(numbers))
        with video_errors(self._deadline):
            for number, frame, orientation in self._decode(numbers):
                self._mend_size(*orientation.size(frame))
                converter.convert(number, frame, orientation)
        return converter.clip

    def read_crops(self, crops: Sequence[Crop]) -> list[Tensor]:
        """See `Video.read_crops`."""
        converters = [converter_of(crop) for crop in crops]
        with video_errors(self._deadline):
            for number, frame, orientation in self._decode([n for crop in crops for n in crop.frames]):
                if self._mend_size(*orientation.size(frame)):
                    raise IndexChanged(f"{self._deadline.path}: {_OTHER_FRAMES}")
                for crop, converter in zip(crops, converters, strict=True):
                    crop.require_within(self.index.height, self.index.width, self._deadline.path)
                    converter.convert(number, frame, orientation)
        return [converter.clip for converter in converters]

    def stream(self, crop: Crop) -> Iterator[tuple[int, Tensor]]:
        """Decode the frames of a crop in one pass, each once, for as long as it takes.

        The memory in use does not grow with the video, if it was opened as `exact`. The time limit is for
        one frame.

        Args:
            crop: which part of which frames, and how large; the order of its frames is not used.

        Yields:
            The number of a frame and its pixels, uint8 (C=3, *crop.size), RGB, in ascending order except
            after frames that do not decode at first.

        Raises:
            VideoError: as `read_crops`.
        """
        converter = converter_of(replace(crop, frames=[0]))
        with video_errors(self._deadline):
            for number, frame, orientation in self._decode(crop.frames):
                self._deadline.restart()
                if self._mend_size(*orientation.size(frame)):
                    raise IndexChanged(f"{self._deadline.path}: {_OTHER_FRAMES}")
                crop.require_within(self.index.height, self.index.width, self._deadline.path)
                converter.convert(0, frame, orientation)
                yield number, converter.clip[0].clone()
                self._deadline.restart()  # the caller may have taken longer

    def _decode(self, numbers: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame, Orientation]]:
        """Yield the frames of these numbers as they decode; they are all of one size."""
        size = None
        for number, frame in self._wanted_frames(self.index.require(numbers, self._deadline.path)):
            orientation = Orientation.of(frame)
            size = size or orientation.size(frame)
            if orientation.size(frame) != size:
                raise SizeChangesError(f"{self._deadline.path}: the frames' size changes within the file")
            yield number, frame, orientation

    def _wanted_frames(self, wanted: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        try:
            yield from self._decoding(wanted).frames()
        except WrongIndexError:
            self._mend_index()
            yield from self._decoding(wanted).frames()
        except FewerFramesError as error:
            self._shorten_index(error.num_frames)

    def _decoding(self, wanted: set[int]) -> Decoding:
        if not self._at_start:
            rewind(self._container)
        self._at_start = False
        return Decoding(self._container, self._stream, self.index, wanted, self._deadline, self._from_header)

    def _mend_index(self) -> None:
        """Index the file by its packets; raise IndexChanged where the header had other frames."""
        before, self._from_header = self.index, False
        rewind(self._container)
        self.index = scan_index(self._container, self._stream, self._deadline)
        self._mend_size(*self._shown_size())
        if (self.index.times, self.index.size) != (before.times, before.size):
            raise IndexChanged(f"{self._deadline.path}: {_OTHER_FRAMES}")

    def _shorten_index(self, num_frames: int) -> None:
        """Leave the last frames out of the index, and raise IndexChanged."""
        keys = tuple(key for key in self.index.keys if key < num_frames)
        self.index = replace(self.index, times=self.index.times[:num_frames], keys=keys)
        raise IndexChanged(f"{self._deadline.path}: {_OTHER_FRAMES}")

    def _mend_size(self, height: int, width: int) -> bool:
        """Set the size of the frames as shown; return whether the index had another."""
        changed = (height, width) != (self.index.height, self.index.width)
        if changed:
            self.index = replace(self.index, height=height, width=width)
        return changed

    @property
    def _size_is_known(self) -> bool:
        return self.index.height > 0 < self.index.width

    def _shown_size(self) -> tuple[int, int]:
        """Return (height, width) as shown of the first frame that decodes, or the index's if none does."""
        self._at_start = False
        self._stream.codec_context.skip_frame = "DEFAULT"
        packets = frame_packets(self._container, self._stream, self.index.parts)
        first = next(iter(ReadableFrames(packets, self._deadline)), None)
        return Orientation.of(first).size(first) if first else (self.index.height, self.index.width)


class VideoSegment:
    """The frames of an open video in [start, end) seconds, numbered from 0; see `Video`.

    Raises:
        VideoError: no frame is in the segment.
    """

    def __init__(self, video: Video, path: Path | str, start: float | None, end: float | None) -> None:
        self._video = video
        self._path = path
        self._start, self._end = start, end
        self._frames()

    @property
    def index(self) -> VideoIndex:
        """The index of the segment only; decoding its first frames may begin before them."""
        whole, frames = self._video.index, self._frames()
        within = slice(bisect_right(whole.keys, frames.start), bisect_left(whole.keys, frames.stop))
        keys = (0, *(key - frames.start for key in whole.keys[within]))
        times = whole.times[frames.start : frames.stop]
        return replace(whole, times=times, keys=keys, parts=(), key_positions=())

    @property
    def stated_duration_s(self) -> float:
        """The duration that the whole file states, in seconds."""
        return self._video.stated_duration_s

    def read(self, numbers: Sequence[int]) -> Tensor:
        """See `Video.read`."""
        return self._video.read(self._in_whole(numbers))

    def read_crops(self, crops: Sequence[Crop]) -> list[Tensor]:
        """See `Video.read_crops`."""
        return self._video.read_crops([replace(crop, frames=self._in_whole(crop.frames)) for crop in crops])

    def _in_whole(self, numbers: Sequence[int]) -> list[int]:
        """Return the numbers of the segment's frames in the whole video."""
        first = self._frames().start
        self.index.require(numbers, self._path)
        return [first + number for number in numbers]

    def _frames(self) -> range:
        frames = self._video.index.frames_between(self._start, self._end)
        if not frames:
            raise VideoError(f"{self._path}: {no_frames_between(self._video.index, self._start, self._end)}")
        return frames


def no_frames_between(index: VideoIndex, start: float | None, end: float | None) -> str:
    """Return why a segment has no frames."""
    if not index.tick_s:
        return "a folder of images has no times, so that no segment in seconds can be read from it"
    ends = "its end" if end is None else f"{end:g} s"
    return f"no frame between {start or 0:g} s and {ends}; the video lasts {index.duration_s:.2f} s"
