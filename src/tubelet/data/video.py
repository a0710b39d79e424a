"""Frames out of video files, exactly the ones asked for and no more work than that takes.

`probe` reads a file's packets without decoding them and learns its true frames; `read_frames` then seeks to
the key frame before the first frame wanted, drops packets that no wanted frame needs, and matches what comes
out by its time stamp. Containers that cannot seek exactly are decoded from their first frame instead.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from tubelet.errors import UserError

_EXACT_SEEKS = {"mov", "matroska", "mpegts"}  # FFmpeg's names of the containers


class VideoError(UserError):
    """A video that cannot be read: the message names the file and says what is wrong with it."""


@dataclass(frozen=True)
class VideoIndex:
    """What one pass over a file's packets tells.

    Attributes:
        times: the frames' presentation times in order, in the stream's ticks: one for each frame.
        keys: positions in `times` at which decoding can begin, ascending; the first is 0.
        fps: mean frames per second.
        width: pixels, as shown.
        height: pixels, as shown.
        codec: FFmpeg's name.
    """

    times: tuple[int, ...]
    keys: tuple[int, ...]
    fps: float
    width: int
    height: int
    codec: str

    def __len__(self) -> int:
        return len(self.times)


def probe(path: Path | str) -> VideoIndex:
    """Index a video without decoding it.

    Raises:
        VideoError: the file cannot be opened, has no video or no frames.
    """
    try:
        with _open(path) as container:
            return _index(container, _stream(container, path), path)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: {_reason(error)}") from error


def read_frames(
    path: Path | str,
    wanted: Sequence[int] | Callable[[int], Sequence[int]],
    index: VideoIndex | None = None,
) -> Tensor:
    """Decode frames by their number, with one opening of the file.

    Args:
        path: the file.
        wanted: frame numbers from 0, in any order, repeats allowed; or what gives them for a length.
        index: what `probe` said of this file, where it is known already.

    Returns:
        uint8 (len(wanted), C=3, H, W), RGB.

    Raises:
        VideoError: the file cannot be read or one of the frames does not decode.
    """
    try:
        with _open(path) as container:
            stream = _stream(container, path)
            index = index or _index(container, stream, path)
            chosen = wanted(len(index)) if callable(wanted) else wanted
            numbers = sorted(set(chosen))
            if not numbers or numbers[0] < 0 or numbers[-1] >= len(index):
                raise VideoError(f"{path}: frames {list(chosen)} asked of a video of {len(index)} frames")
            exact = _EXACT_SEEKS & set(container.format.name.split(","))
            frames = _decode(container, stream, index, numbers) if exact else {}
            if len(frames) < len(numbers):
                frames = _decode_from_start(container, stream, index, numbers)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: {_reason(error)}") from error
    missing = [number for number in numbers if number not in frames]
    if missing:
        raise VideoError(f"{path}: {len(missing)} of {len(numbers)} frames do not decode: {missing[:5]}")
    if len({frame.shape for frame in frames.values()}) > 1:
        raise VideoError(f"{path}: the frames' size changes within the file")
    return torch.from_numpy(np.stack([frames[number] for number in chosen])).permute(0, 3, 1, 2)


def _open(path: Path | str) -> av.container.InputContainer:
    return av.open(str(path), metadata_errors="replace")  # titles in another encoding do no harm


def _stream(container: av.container.InputContainer, path: Path | str) -> av.VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        raise VideoError(f"{path}: no video in this file")
    if stream.codec_context is None:
        raise VideoError(
            f"{path}: this build of PyAV has no decoder for it; install its wheel: pip install av"
        )
    stream.thread_count = 1  # one thread a worker: more only get in each other's way
    stream.codec_context.open()  # some decoders read skip_frame once, when they open
    return stream


def _index(container: av.container.InputContainer, stream: av.VideoStream, path: Path | str) -> VideoIndex:
    shown = sorted(
        (packet.pts, packet.is_keyframe)
        for packet in container.demux(stream)
        if packet.size and packet.pts is not None and not packet.is_discard
    )
    container.seek(0)
    if not shown:
        raise VideoError(f"{path}: no frames in this file")
    context = stream.codec_context
    times = tuple(pts for pts, _ in shown)
    seconds = float((times[-1] - times[0]) * stream.time_base) if stream.time_base else 0.0
    return VideoIndex(
        times=times,
        keys=(0, *(number for number, (_, key) in enumerate(shown) if key and number)),
        fps=(len(times) - 1) / seconds if seconds > 0 else float(stream.average_rate or 0),
        width=context.width,
        height=context.height,
        codec=context.name,
    )


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream, index: VideoIndex, numbers: list[int]
) -> dict[int, np.ndarray]:
    """RGB pictures (H, W, 3) by frame number: one run of the decoder from each key frame that is needed."""
    frames: dict[int, np.ndarray] = {}
    reformatter = VideoReformatter()
    context = stream.codec_context
    groups: dict[int, dict[int, int]] = {}  # key frame -> time and number of what is wanted up to the next
    for number in numbers:
        group = groups.setdefault(index.keys[bisect_right(index.keys, number) - 1], {})
        group[index.times[number]] = number
    for key, by_time in groups.items():
        last = max(by_time.values())
        reached = False
        container.seek(index.times[key], stream=stream, backward=True)
        for packet in container.demux(stream):
            reached = reached or packet.pts == index.times[key]
            if not reached and not packet.size:
                break
            if not reached:
                continue  # a seek may land on an earlier key frame
            context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in by_time else "NONREF"
            for frame in context.decode(packet if packet.size else None):
                if frame.pts in by_time:
                    frames[by_time[frame.pts]] = _to_rgb(frame, reformatter)
            if last in frames or not packet.size:
                break
    return frames


def _decode_from_start(
    container: av.container.InputContainer, stream: av.VideoStream, index: VideoIndex, numbers: list[int]
) -> dict[int, np.ndarray]:
    """As `_decode`, without seeking."""
    counted = container.format.name == "avi"  # it has no presentation times; FFmpeg guesses, and errs
    by_time: dict[int | None, int] = {index.times[number]: number for number in numbers}
    wanted = set(numbers)
    frames: dict[int, np.ndarray] = {}
    reformatter = VideoReformatter()
    container.seek(0)
    stream.codec_context.skip_frame = "DEFAULT"
    for count, frame in enumerate(container.decode(stream)):
        number = count if counted else by_time.get(frame.pts)
        if number in wanted:
            frames[number] = _to_rgb(frame, reformatter)
            if len(frames) == len(numbers):
                break
    return frames


def _to_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """(H, W, 3) uint8. One converter for all frames and one thread: setting either up costs far more."""
    return reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"cannot be read as a video ({getattr(error, 'strerror', None) or error})"
