"""Videos written by tests, and what tests read of them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from tubelet.video.reader import Crop, IndexChanged, VideoIndex, open_video


def moving_frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """RGB frames (count, H, W, 3) that all differ: a textured disc crosses a gradient that brightens."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 80, size=(height, width, 3))
    y, x = np.mgrid[:height, :width]
    frames = []
    for k in range(count):
        disc = (x - (k * 3) % width) ** 2 + (y - height / 2 - (k % 7)) ** 2 < (height / 4) ** 2
        frame = texture + (x + k * 2)[..., None] % 100 + 70 * disc[..., None]
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    pixels: str = "yuv420p",
    fps: int = 25,
) -> Path:
    """Encode RGB frames; `times` are presentation times in milliseconds, otherwise `fps` is constant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        base = Fraction(1, 1000) if times is not None else Fraction(1, fps)
        stream.codec_context.time_base = base
        for k, pixels_of_frame in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels_of_frame, format="rgb24")
            frame.pts = k if times is None else times[k]
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def index_of(path: Path | str) -> VideoIndex:
    """The index of a video by all of its packets."""
    with open_video(path, exact=True) as video:
        return video.index


def read_frames(path: Path | str, numbers: Sequence[int]) -> torch.Tensor:
    """Frames (T, C, H, W) of a video by number, also if its header is wrong."""
    with open_video(path) as video:
        try:
            return video.read(numbers)
        except IndexChanged:
            return video.read(numbers)


def read_crops(path: Path | str, crops: Sequence[Crop]) -> list[torch.Tensor]:
    """Crops of a video, also if its header is wrong."""
    with open_video(path) as video:
        try:
            return video.read_crops(crops)
        except IndexChanged:
            return video.read_crops(crops)


def decode_all(path: Path) -> np.ndarray:
    """Every frame (N, H, W, 3) of a file, in the order in which a plain sequential decode shows them."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
