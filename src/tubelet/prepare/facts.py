"""What is known of a video, be it that it was looked into or that it was written."""

from dataclasses import dataclass, replace
from typing import Self

from tubelet.data.index import VideoIndex


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the lists say of a video, or why it is not in them.

    Attributes:
        frames: how many can be decoded.
        fps: frames per second; 0 for a folder of pictures.
        width: in pixels, as shown.
        height: in pixels, as shown.
        codec: FFmpeg's name of it; the ending of the files in a folder of pictures.
        error: why it cannot be used, or the empty string.
        note: what is odd about it, or lost of it, though it can be used.
    """

    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    error: str = ""
    note: str = ""

    def with_index(self, index: VideoIndex) -> Self:
        """The same, and what an index tells."""
        return replace(
            self,
            frames=len(index),
            fps=round(index.fps, 4),
            width=index.width,
            height=index.height,
            codec=index.codec,
        )
