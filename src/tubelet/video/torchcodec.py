"""The same frames from TorchCodec, where it is installed: its exact mode, which numbers frames as we do."""

from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.errors import UserError
from tubelet.video.index import VideoIndex
from tubelet.video.sources import Deadline, VideoError


class CodecVideo:
    """An open file.

    Raises:
        UserError: TorchCodec or its FFmpeg cannot be loaded; the message says how to install it.
        VideoError: it cannot open the file.
    """

    def __init__(self, path: Path | str, deadline: Deadline) -> None:
        self._deadline = deadline
        try:
            from torchcodec.decoders import VideoDecoder

            self._decoder: Any = VideoDecoder(
                str(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NCHW"
            )
        except (ImportError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            if isinstance(error, ImportError) or "libtorchcodec" in reason:  # it looks for FFmpeg when used
                raise UserError(
                    f"backend torchcodec cannot be loaded ({reason}): pip install 'tubelet[codec]', and see"
                    " that FFmpeg's shared libraries are there; or take backend pyav"
                ) from error
            raise VideoError(f"{path}: {_reason(error)}") from error

    def index(self) -> VideoIndex:
        """What it knows of the file; times are frame numbers and key frames are not known."""
        data = self._decoder.metadata
        count = len(self._decoder)
        if not count:
            raise VideoError(f"{self._deadline.path}: no frames in this file")
        return VideoIndex(
            range(count), (0,), data.average_fps or 0.0, data.width, data.height, data.codec or "unknown"
        )

    def frames(self, numbers: set[int]) -> dict[int, Tensor]:
        """uint8 (C=3, H, W), RGB, by frame number."""
        self._deadline.check()
        order = sorted(numbers)
        try:
            decoded = self._decoder.get_frames_at(order).data
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoError(f"{self._deadline.path}: {_reason(error)}") from error
        self._deadline.check()
        return dict(zip(order, decoded, strict=True))


def _reason(error: Exception) -> str:
    return f"TorchCodec cannot read it ({str(error).strip().partition(chr(10))[0]})"
