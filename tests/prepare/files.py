"""Video files as phones and cameras write them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.videos import moving_frames, write_video

FAST = {"preset": "ultrafast", "g": "8"}


def upright(count: int = 10, height: int = 64, width: int = 48) -> np.ndarray:
    """Frames (count, height, width, 3) whose upper half is bright and whose lower right is red."""
    frames = np.full((count, height, width, 3), 30, dtype=np.uint8)
    frames[:, : height // 2] = 220
    frames[:, height // 2 :, width // 2 :] = (200, 30, 30)
    return frames


def write_rotated(path: Path, frames: np.ndarray, degrees: int, *, mirrored: bool = False) -> Path:
    """A file that stores frames turned, with the flag that turns them `degrees` counterclockwise.

    It may mirror them after that, left to right, as it does in videos of phones' front cameras.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.rot90(frames[:, :, ::-1] if mirrored else frames, -degrees // 90, axes=(1, 2))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=FAST)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *stored.shape[1:3], "yuv420p"
        stream.set_display_rotation(degrees, hflip=mirrored)
        for picture in stored:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))
        container.mux(stream.encode(None))
    return path


def write_growing(path: Path) -> Path:
    """Twenty frames, the last ten of twice the size, as calls over networks are recorded."""
    parts = []
    for k, (height, width) in enumerate([(48, 64), (96, 128)]):
        part = path.with_name(f"part{k}.ts")
        times = [400 * k + 40 * n for n in range(10)]
        write_video(part, moving_frames(10, height, width), times=times)
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))
    return path


def write_audio(path: Path) -> Path:
    """A file with sound and without video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        for k in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, k * 1024, Fraction(1, 44100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def small(path: Path, seed: int = 0, count: int = 10, height: int = 32, width: int = 40) -> Path:
    """A readable video of a few kilobytes."""
    return write_video(path, moving_frames(count, height, width, seed=seed), options=FAST)


def cut(path: Path, source: Path, share: float = 0.5) -> Path:
    """The first part of a file."""
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def phone_folder(folder: Path) -> Path:
    """Videos of a phone among other things."""
    small(folder / "2024 Urlaub" / "Überraschung – видео.mp4", seed=1)
    write_rotated(folder / "portrait.mov", upright(), 270)
    small(folder / "IMG 0001, copy (1).mp4", seed=2, height=70, width=90)
    write_video(folder / "odd.mkv", moving_frames(8, 47, 65, seed=3), codec="ffv1", pixels="bgr0")
    cut(folder / "broken.mp4", folder / "IMG 0001, copy (1).mp4")
    write_audio(folder / "voice memo.mp4")
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("milk, eggs")
    (folder / "._IMG 0001.mp4").write_bytes(b"a resource fork")
    return folder
