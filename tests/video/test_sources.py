"""Slow and broken files, and errors while a file is open."""

import os
import socket
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.videos import moving_frames, read_crops, read_frames, write_video
from tubelet.video.crop import Box
from tubelet.video.reader import Crop, IndexChanged, VideoError, open_video


def test_a_slow_file_times_out(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", moving_frames(20))
    with pytest.raises(VideoError, match=r"a.mp4: not read within 0 s"), open_video(path, limit=0) as video:
        video.read([19])
    with pytest.raises(VideoError, match=r"a.mp4: not read within 0 s"), open_video(path, limit=0) as video:
        video.read_crops([Crop([3], None, (8, 8))])
    with pytest.raises(VideoError, match=r"a.mp4: not read within 0 s"):  # noqa: SIM117 - raised by opening
        with open_video(path, exact=True, limit=0):
            pass


@pytest.mark.parametrize("exact", [False, True])
def test_the_time_limit_counts_from_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: bool):
    path = write_video(tmp_path / "a.mp4", moving_frames(20))
    with open_video(path, exact=exact, limit=1000) as video:
        assert video.read([3]).shape == (1, 3, 48, 64)
        later = time.monotonic() + 1001
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(VideoError, match=r"a.mp4: not read within 1000 s"):
            video.read([3])
        with pytest.raises(VideoError, match=r"a.mp4: not read within 1000 s"):
            video.read_crops([Crop([3], None, (8, 8))])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match=r"pipe.mp4: neither a regular file nor a folder"):
        read_frames(tmp_path / "pipe.mp4", [0])


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no such sockets on this system")
def test_sockets_and_devices_are_refused(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.mp4"))
        (tmp_path / "zero.mp4").symlink_to("/dev/zero")
        for path in (tmp_path / "s.mp4", tmp_path / "zero.mp4"):
            with pytest.raises(VideoError, match=f"{path.name}: neither a regular file nor a folder"):
                read_frames(path, [0])


@pytest.mark.parametrize(
    "error", [IndexError("no such box"), FileNotFoundError(2, "no such weights"), av.EOFError(0, "")]
)
def test_errors_raised_while_a_video_is_open_are_not_translated(tmp_path: Path, error: Exception):
    path = write_video(tmp_path / "a.mp4", moving_frames(8))
    with pytest.raises(type(error)) as caught, open_video(path):
        raise error
    assert caught.value is error


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(whole)
    kind = rng.integers(4)
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, len(data) // 4))
    if kind == 0:
        return bytes(data[:start])
    if kind == 1:
        data[start : start + length] = bytes(len(data[start : start + length]))
    elif kind == 2:
        data[start : start + length] = rng.bytes(len(data[start : start + length]))
    else:
        for offset in rng.integers(len(data), size=20):
            data[offset] ^= 1 << rng.integers(8)
    return bytes(data)


def last_and_middle(path: Path) -> list[torch.Tensor]:
    with open_video(path, limit=20) as video:
        for _ in range(3):
            length = len(video.index)
            try:
                return video.read_crops([Crop([length - 1, length // 2], None, (16, 16))])
            except IndexChanged:
                continue
    raise AssertionError("the index changed thrice")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.ts", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.webm", "libvpx-vp9"),
    ],
)
def test_a_broken_file_gives_frames_or_a_message(tmp_path: Path, name: str, codec: str):
    options = {"g": "8"} | ({"deadline": "realtime", "cpu-used": "8"} if "vpx" in codec else {"bf": "2"})
    whole = write_video(tmp_path / name, moving_frames(24), codec=codec, options=options).read_bytes()
    path = tmp_path / f"broken-{name}"
    rng = np.random.default_rng(len(name))
    outcomes = {"frames": 0, "message": 0}
    for _ in range(60):
        path.write_bytes(damaged(whole, rng))
        try:
            clips = last_and_middle(path)
        except VideoError as error:
            outcomes["message"] += str(error).startswith(f"{path}: ")
        else:
            assert clips[0].shape == (2, 3, 16, 16)
            outcomes["frames"] += 1
    assert sum(outcomes.values()) == 60
    assert min(outcomes.values()) > 0


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_opening_a_thousand_files_leaks_nothing(tmp_path: Path):
    good = write_video(tmp_path / "a.mp4", moving_frames(10), options={"g": "5", "bf": "2"})
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(good.read_bytes()[:-300])

    def open_many(count: int) -> None:
        for k in range(count):
            read_crops(good, [Crop([7, 2], Box(3, 3, 30, 30), (24, 24))])
            if k % 4 == 0:
                with pytest.raises(VideoError):
                    read_frames(bad, [0])

    open_many(200)
    before, handles = memory(), len(list(Path("/proc/self/fd").iterdir()))
    open_many(1000)
    assert memory() - before < 8 * 2**20
    assert len(list(Path("/proc/self/fd").iterdir())) <= handles
