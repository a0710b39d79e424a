"""Elementary streams, which have no container and no times: one scan counts their frames."""

from pathlib import Path

import av
import numpy as np
import pytest

from tests.prepare.test_encode import encode
from tests.videos import decode_all, index_of, moving_frames, read_frames
from tubelet.video.reader import IndexChanged, open_video
from tubelet.video.sources import VIDEO_SUFFIXES

QUIET = {"x265-params": "keyint=12:bframes=2:log-level=none"}
STREAMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "a.h264": ("libx264", "h264", {"g": "12", "bf": "2"}),
    "a.264": ("libx264", "h264", {"g": "12", "bf": "0"}),
    "named_as_container.mp4": ("libx264", "h264", {"g": "12", "bf": "2"}),
    "a.hevc": ("libx265", "hevc", QUIET),
    "a.m4v": ("mpeg4", "m4v", {"g": "12", "bf": "2"}),
    "a.m2v": ("mpeg2video", "mpeg2video", {"g": "12", "bf": "2"}),
}


def write_stream(path: Path, fps: int = 25, count: int = 40) -> Path:
    codec, muxer, options = STREAMS[path.name]
    with av.open(str(path), "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for image in moving_frames(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", STREAMS)
def test_every_frame_can_be_read(tmp_path: Path, name: str):
    assert Path(name).suffix in VIDEO_SUFFIXES
    for fps in (25, 60):
        path = write_stream(tmp_path / name, fps)
        truth, index = decode_all(path), index_of(path)
        assert (len(truth), len(index), index.fps) == (40, 40, fps)
        assert (index.height, index.width) == (48, 64)
        for wanted in (range(40), [39, 3, 3, 20], [0], [12], [39]):
            frames = read_frames(path, wanted).permute(0, 2, 3, 1).numpy()
            np.testing.assert_array_equal(frames, truth[list(wanted)])
        with open_video(path) as video:
            for number in (30, 2, 39):
                np.testing.assert_array_equal(video.read([number])[0].permute(1, 2, 0), truth[number])


@pytest.mark.parametrize("name", ["a.h264", "a.hevc", "a.m2v"])
def test_a_stream_that_begins_between_key_frames_gives_the_frames_that_decode(tmp_path: Path, name: str):
    path = write_stream(tmp_path / name, 60)
    path.write_bytes(path.read_bytes()[path.stat().st_size // 3 :])
    truth = decode_all(path)
    with open_video(path) as video:
        for _ in range(2):
            try:
                frames = video.read(range(len(video.index)))
            except IndexChanged:
                continue
    np.testing.assert_array_equal(frames.permute(0, 2, 3, 1).numpy(), truth)
    assert len(video.index) == len(truth) < 40


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_encoded_at_its_rate(tmp_path: Path, name: str):
    _, result = encode(write_stream(tmp_path / name, 60), 48)
    assert (result.error, result.frames, result.fps) == ("", 40, 60)
