"""Files joined from several recordings: all of their frames, in the order of the recordings."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.prepare.test_encode import encode
from tests.videos import index_of, read_frames
from tubelet.video.reader import open_video

_TICK = Fraction(1, 90_000)
FIRST, SECOND, THIRD = range(30), range(100, 130), range(200, 230)
JOINS: dict[str, list[float]] = {
    "overlap by half a frame": [0, 0.66],
    "the same times": [0, 0],
    "times that restart below": [100, 0],
    "a gap": [0, 5],
    "a long gap": [0, 400],
    "times that continue": [0, 1.2],
    "three recordings": [0, 0.66, 0.1],
}


def numbered(numbers: range) -> list[np.ndarray]:
    """Frames (64, 128, 3) with their numbers in the first rows: one block for each bit, and noise below."""
    noise = np.random.default_rng(numbers.start).integers(0, 256, (len(numbers), 48, 128, 3), dtype=np.uint8)
    frames = []
    for number, below in zip(numbers, noise, strict=True):
        bits = np.array([255 * (number >> bit & 1) for bit in range(8)], np.uint8).repeat(16)
        frames.append(np.concatenate([np.broadcast_to(bits[None, :, None], (16, 128, 3)), below]))
    return frames


def numbers_of(frames: np.ndarray) -> list[int]:
    """The numbers in frames (T, C, H, W)."""
    blocks = frames[:, :, 4:12].reshape(len(frames), 3, 8, 8, 16)[..., 4:12].mean((1, 2, 4)) > 128
    return (blocks @ (1 << np.arange(8))).tolist()


def recording(path: Path, numbers: range, start_s: float, codec: str, b_frames: int) -> bytes:
    options = {"g": "12", "bf": str(b_frames), "b": "2000000"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 64, 128, "yuv420p"
        frames = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in numbered(numbers)]
        for frame in [*frames, None]:
            for packet in stream.encode(frame):
                assert packet.pts is not None
                assert packet.dts is not None
                ticks = packet.time_base / _TICK
                packet.pts = int((packet.pts * ticks) + start_s / _TICK)
                packet.dts = int((packet.dts * ticks) + start_s / _TICK)
                packet.time_base = _TICK
                container.mux(packet)
    return path.read_bytes()


def joined(path: Path, starts: list[float], codec: str = "libx264", b_frames: int = 2) -> list[int]:
    """Write a file of a recording for each start, and return its frames' numbers."""
    parts = list(zip([FIRST, SECOND, THIRD], starts, strict=False))
    part = path.with_stem("part")
    path.write_bytes(b"".join(recording(part, numbers, start, codec, b_frames) for numbers, start in parts))
    return [number for numbers, _ in parts for number in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    ("suffix", "codec"), [("ts", "libx264"), ("ts", "mpeg2video"), ("mpg", "mpeg2video")]
)
def test_recordings_follow_each_other(tmp_path: Path, suffix: str, codec: str, b_frames: int):
    for name, starts in JOINS.items():
        path = tmp_path / f"a.{suffix}"
        truth = joined(path, starts, codec, b_frames)
        index = index_of(path)
        assert len(index) == len(truth), name
        assert index.fps == pytest.approx(25, rel=0.02), name
        assert numbers_of(read_frames(path, range(len(truth))).numpy()) == truth, name
        for wanted in ([len(truth) - 1, 31, 4, 30, 29], *([number] for number in range(26, 36))):
            assert numbers_of(read_frames(path, wanted).numpy()) == [truth[k] for k in wanted], name


@pytest.mark.slow
def test_a_joined_transport_stream_is_decoded_from_the_key_frame_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.ts"
    for name in ("overlap by half a frame", "times that restart below", "a gap"):
        truth = joined(path, JOINS[name])
        with monkeypatch.context() as patch:
            patch.delattr("tubelet.video.packets.Decoding._decode_from_start")
            for number in range(0, len(truth), 3):
                assert numbers_of(read_frames(path, [number]).numpy()) == [truth[number]]


def test_the_duration_of_a_joined_file_is_not_known(tmp_path: Path):
    joined(tmp_path / "a.ts", [0, 0.66])
    with open_video(tmp_path / "a.ts") as video:
        assert video.stated_duration_s == 0


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_an_encoded_copy_has_the_same_frames_at_the_same_rate(tmp_path: Path, suffix: str):
    for name, starts in JOINS.items():
        truth = joined(tmp_path / f"a.{suffix}", starts, "mpeg2video")
        target, result = encode(tmp_path / f"a.{suffix}", 64)
        assert (result.error, result.frames) == ("", len(truth)), name
        assert result.fps == pytest.approx(25, rel=0.02), name
        assert numbers_of(read_frames(target, range(len(truth))).numpy()) == truth, name
