"""TorchCodec as the decoder: the same frames by the same numbers."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.conftest import moving_frames, write_video
from tests.video.test_crops import turned
from tests.video.test_reader import IRREGULAR
from tubelet.errors import UserError
from tubelet.video.crop import Box
from tubelet.video.reader import Crop, VideoError, read_crops, read_frames

B_FRAMES = {"g": "250", "bf": "3", "b_strategy": "0"}


@pytest.fixture
def torchcodec(tmp_path: Path) -> ModuleType:
    module = pytest.importorskip("torchcodec")
    path = write_video(tmp_path / "try.mp4", moving_frames(2))
    try:
        read_frames(path, [0], backend="torchcodec")
    except UserError as error:
        pytest.skip(str(error))
    return module


FILES = {
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


@pytest.mark.parametrize("kind", FILES)
def test_both_backends_give_the_same_frames(tmp_path: Path, torchcodec: ModuleType, kind: str):
    path = FILES[kind](tmp_path)
    every = read_frames(path, lambda length: list(range(length))).float()
    wanted = [len(every) - 1, 3, 3, len(every) // 2]
    frames = read_frames(path, wanted, backend="torchcodec").float()
    assert frames.shape == every[wanted].shape
    for frame, number in zip(frames, wanted, strict=True):
        assert int((every - frame).abs().mean((1, 2, 3)).argmin()) == number
    crop = Crop(wanted, Box(2, 5, 30, 40), (20, 24), flip=True)
    (ours,), (theirs,) = (read_crops(path, lambda _: [crop], backend=b) for b in ("pyav", "torchcodec"))
    assert theirs.dtype == torch.uint8
    assert (ours.float() - theirs.float()).abs().mean() < 5


def test_a_broken_file_is_named(tmp_path: Path, torchcodec: ModuleType):
    path = tmp_path / "a.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(VideoError, match=r"a.mp4: TorchCodec cannot read it"):
        read_frames(path, [0], backend="torchcodec")


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "torchcodec.decoders", None)
    path = write_video(tmp_path / "a.mp4", moving_frames(2))
    with pytest.raises(UserError, match=r"torchcodec cannot be loaded .*pip install 'tubelet\[codec\]'"):
        read_frames(path, [0], backend="torchcodec")
