"""TorchCodec in its exact mode as a reference: frames of the same number are the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.video.test_pixels import turned
from tests.video.test_reader import IRREGULAR
from tests.videos import index_of, moving_frames, read_crops, read_frames, write_video
from tubelet.video.crop import Box, crop_resize
from tubelet.video.reader import Crop

B_FRAMES = {"g": "250", "bf": "3", "b_strategy": "0"}
FILES: dict[str, Callable[[Path], Path]] = {
    "B-frames": lambda path: write_video(path / "a.mp4", moving_frames(60), options=B_FRAMES),
    "10 bits": lambda path: write_video(
        path / "a.mp4", moving_frames(40), options=B_FRAMES, pixels="yuv420p10le"
    ),
    "variable rate": lambda path: write_video(
        path / "a.mp4", moving_frames(70), times=IRREGULAR, options=B_FRAMES
    ),
    "webm": lambda path: write_video(
        path / "a.webm",
        moving_frames(40),
        codec="libvpx-vp9",
        options={"g": "15", "deadline": "realtime", "cpu-used": "8"},
    ),
    "turned": lambda path: turned(path / "a.mp4", 90),
}


def torchcodec_decoder(path: Path) -> Any:
    """TorchCodec's decoder of a file; the test is skipped where it or its FFmpeg cannot be loaded."""
    pytest.importorskip("torchcodec")
    try:
        from torchcodec.decoders import VideoDecoder

        return VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NCHW")
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"TorchCodec cannot be loaded: {error}")


@pytest.mark.parametrize("kind", FILES)
def test_frames_are_those_of_torchcodec(tmp_path: Path, kind: str):
    path = FILES[kind](tmp_path)
    decoder = torchcodec_decoder(path)
    index = index_of(path)
    assert len(decoder) == len(index)
    assert decoder.metadata.average_fps == pytest.approx(index.fps, rel=0.02)
    every = read_frames(path, range(len(index))).float()
    wanted = [len(every) - 1, 3, 3, len(every) // 2]
    theirs = decoder.get_frames_at(wanted).data
    assert theirs.shape == every[wanted].shape
    for frame, number in zip(theirs, wanted, strict=True):
        assert int((every - frame.float()).abs().mean((1, 2, 3)).argmin()) == number
    crop = Crop(wanted, Box(2, 5, 30, 40), (20, 24), flip=True)
    (ours,) = read_crops(path, [crop])
    assert ours.dtype == theirs.dtype == torch.uint8
    cropped = crop_resize(theirs, Box(2, 5, 30, 40), (20, 24)).flip(-1)
    assert (ours.float() - cropped.float()).abs().mean() < 5
