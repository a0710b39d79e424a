"""Whether a file can be trained on: its frames are counted, and the first, middle and last are decoded."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av

from tubelet.data.folders import folder_pictures
from tubelet.data.video import VideoError, probe, read_frames

_PART = 1 << 16  # bytes of the head, the middle and the tail that tell files apart
_SECONDS = 120.0  # to read all packets of a file, and again to decode its frames


@dataclass(frozen=True)
class Stamp:
    """What changes when a file does: its size in bytes (of a folder, its entries) and time of change."""

    size: int
    time: int


@dataclass(frozen=True)
class Checked:
    """What was found in a file.

    Attributes:
        path: the file, or a folder of pictures.
        stamp: of the file as it was looked at.
        content: the same for files of the same content.
        frames: how many can be decoded.
        fps: frames per second; 0 for a folder of pictures.
        width: in pixels, as shown.
        height: in pixels, as shown.
        codec: FFmpeg's name of it; the ending of the files in a folder of pictures.
        error: why it cannot be used, or the empty string.
        note: what is odd about it, though it can be used.
    """

    path: str
    stamp: Stamp
    content: str = ""
    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    error: str = ""
    note: str = ""

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.frames / self.fps if self.fps else 0.0


EMPTY = "the file is empty"


def stamp_of(path: str) -> Stamp:
    """The stamp of a file or of a folder of pictures."""
    found = os.stat(path)  # noqa: PTH116
    return Stamp(found.st_size, found.st_mtime_ns)


def check_file(path: str) -> Checked:
    """Look into a file or a folder of pictures; what is wrong with it is in the answer."""
    try:
        checked = Checked(path, stamp_of(path))
        if Path(path).is_dir():
            return _check_frames(replace(checked, content=_content(folder_pictures(Path(path)))))
        if not checked.stamp.size:
            return replace(checked, error=EMPTY)
        checked = _check_frames(replace(checked, content=_content([Path(path)])))
    except OSError as error:
        return Checked(path, Stamp(-1, -1), error=error.strerror or str(error))
    except VideoError as error:
        return replace(checked, error=str(error).removeprefix(f"{path}: "))
    promised = _promised_seconds(path) if checked.fps else 0.0
    if promised - checked.seconds > max(0.05 * promised, 0.5):
        note = f"its frames end after {checked.seconds:.1f} of {promised:.1f} s; it may be cut off"
        return replace(checked, note=note)
    return checked


def _check_frames(checked: Checked) -> Checked:
    index = probe(checked.path, limit=_SECONDS)
    numbers = sorted({0, len(index) // 2, len(index) - 1})
    frames = read_frames(checked.path, numbers, index, limit=_SECONDS)
    return replace(
        checked,
        frames=len(index),
        fps=round(index.fps, 4),
        width=frames.shape[-1],
        height=frames.shape[-2],
        codec=index.codec,
    )


def _promised_seconds(path: str) -> float:
    """How long the video plays by its header; 0 where it does not tell."""
    try:
        with av.open(path, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            of_stream = float(stream.duration * stream.time_base) if _has_duration(stream) else 0.0  # type: ignore
            of_file = container.duration / 1e6 if container.duration else 0.0
    except (av.FFmpegError, OSError):
        return 0.0
    return min((seconds for seconds in (of_stream, of_file) if seconds > 0), default=0.0)


def _has_duration(stream: object) -> bool:
    return bool(getattr(stream, "duration", None) and getattr(stream, "time_base", None))


def _content(paths: Sequence[Path]) -> str:
    """The same for files that hold the same: of the sizes, and of the head, the middle and the tail."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (paths[0], paths[len(paths) // 2], paths[-1]) if len(paths) > 1 else paths:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{len(paths)} {size}".encode())
            for place in sorted({0, max(size // 2 - _PART // 2, 0), max(size - _PART, 0)}):
                file.seek(place)
                digest.update(file.read(_PART))
    return digest.hexdigest()


def same_content(checks: Sequence[Checked]) -> list[list[str]]:
    """Groups of files that hold the same."""
    groups: dict[str, list[str]] = {}
    for check in checks:
        if check.content:
            groups.setdefault(check.content, []).append(check.path)
    return [paths for paths in groups.values() if len(paths) > 1]
