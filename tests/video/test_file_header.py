"""Headers that specify more samples than their file has are refused before FFmpeg makes a table of them."""

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

from tests.videos import index_of, moving_frames, read_frames, write_video
from tubelet.video.file_header import most_samples, read_header
from tubelet.video.reader import VideoError, open_video


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def table(kind: bytes, *numbers: int) -> bytes:
    return box(kind, struct.pack(f">{1 + len(numbers)}I", 0, *numbers))


def track(*tables: bytes, handler: bytes = b"vide", edits: int = 1) -> bytes:
    media = box(b"hdlr", bytes(8) + handler + bytes(12)) + box(b"minf", box(b"stbl", b"".join(tables)))
    return box(b"trak", box(b"edts", table(b"elst", edits)) + box(b"mdia", media))


def count(data: bytes) -> int:
    return read_header(lambda start, length: data[start : start + length], len(data)).num_samples


MOVIE = box(b"ftyp", b"isom" + bytes(4))


def test_samples_of_all_boxes_are_counted():
    video = track(table(b"stsz", 0, 1000))
    assert count(MOVIE + box(b"moov", video)) == 1000
    assert count(MOVIE + box(b"moov", video * 3)) == 3000
    assert count(MOVIE + box(b"moov", track(table(b"stz2", 8, 70)))) == 70
    fragment = box(b"moof", box(b"traf", table(b"trun", 500) * 2))
    assert count(MOVIE + box(b"moov", video) + fragment * 4) == 5000
    assert count(MOVIE + struct.pack(">I4sQ", 1, b"free", 24) + bytes(8) + box(b"moov", video)) == 1000
    assert count(MOVIE + box(b"moov", video)[8:].join([struct.pack(">I4s", 0, b"moov"), b""])) == 1000
    assert count(MOVIE + box(b"moov", track(table(b"stsz", 0, 1000), edits=50))) == 5000


def test_a_compressed_header_is_counted():
    packed = zlib.compress(box(b"moov", track(table(b"stsz", 1, 12_345))))
    content = box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", 200) + packed)
    assert count(MOVIE + box(b"moov", box(b"cmov", content))) == 12_345


def test_sound_in_samples_of_one_tick_counts_by_its_packets():
    times, size = table(b"stts", 1, 480_000, 1), table(b"stsz", 4, 480_000)
    chunks, runs = table(b"stco", 3, 0, 0, 0), table(b"stsc", 2, 1, 200_000, 1, 3, 80_000, 1)
    assert count(MOVIE + box(b"moov", track(times, size, chunks, runs, handler=b"soun"))) == 3000
    claims = table(b"stsc", 1, 1, 400_000_000, 1)
    assert count(MOVIE + box(b"moov", track(times, size, chunks, claims, handler=b"soun"))) == 7_500_000
    assert count(MOVIE + box(b"moov", track(times, size, chunks, runs))) == 480_000


@pytest.mark.parametrize(
    "data", [b"", b"abc", bytes(100), b"\x1aE\xdf\xa3" * 9, b"G@\x11\x10" * 47, b"RIFF" * 9]
)
def test_other_files_have_none(data: bytes):
    assert count(data) == 0


def test_any_bytes_are_counted_without_an_error():
    rng = np.random.default_rng(0)
    whole = MOVIE + box(
        b"moov", track(table(b"stsz", 0, 1000), table(b"stts", 1, 1000, 1), handler=b"soun") * 2
    )
    for _ in range(1000):
        data = bytearray(whole)
        for offset in rng.integers(len(data), size=rng.integers(1, 6)):
            data[offset] = rng.integers(256)
        assert count(bytes(data[: rng.integers(len(data))])) >= 0


def claim(path: Path, samples: int) -> Path:
    """Write a video whose header gives this number of samples one byte each."""
    data = bytearray(write_video(path, moving_frames(10)).read_bytes())
    for kind, fields in (
        (b"stsz", (0, 1, samples)),
        (b"stts", (0, 1, samples, 512)),
        (b"stsc", (0, 1, 1, samples, 1)),
    ):
        start = data.index(kind) + 4
        packed = struct.pack(f">{len(fields)}I", *fields)
        data[start : start + len(packed)] = packed
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "named_otherwise.mkv"])
def test_a_header_of_many_samples_is_refused_by_its_file(tmp_path: Path, name: str):
    path = claim(tmp_path / "a.mp4", 50_000_000).rename(tmp_path / name)
    with pytest.raises(VideoError, match=rf"{name}: .*50,000,000 samples"):
        index_of(path)


def test_what_videos_have_is_allowed(tmp_path: Path):
    for name, muxing in (
        ("a.mp4", {}),
        ("b.mp4", {"movflags": "frag_every_frame+empty_moov"}),
        ("c.mov", {}),
    ):
        path = tmp_path / name
        with av.open(str(path), "w", options=muxing) as container:
            video = container.add_stream("libx264", rate=25)
            sound = container.add_stream("pcm_s16le" if name == "c.mov" else "aac", rate=48_000)
            assert isinstance(video, av.VideoStream)
            assert isinstance(sound, av.AudioStream)
            video.height, video.width, video.pix_fmt, sound.layout = 48, 64, "yuv420p", "mono"
            for k, image in enumerate(moving_frames(100)):
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
                part.sample_rate, part.pts = 48_000, 1024 * k
                container.mux(sound.encode(part))
            container.mux(video.encode(None))
            container.mux(sound.encode(None))
        data = path.read_bytes()
        assert 100 <= count(data) < 1000
        assert count(data) < most_samples(len(data)) / 10
        assert read_frames(path, [98]).shape == (1, 3, 48, 64)


def test_files_of_any_size_have_a_limit():
    assert most_samples(20_000) < 20_000
    assert most_samples(10**12) <= 10_000_000


def test_a_remote_header_of_many_samples_is_refused(tmp_path: Path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/claims/a.mp4", claim(tmp_path / "a.mp4", 50_000_000).read_bytes())
    memory.pipe("/claims/b.mp4", write_video(tmp_path / "b.mp4", moving_frames(30)).read_bytes())
    with pytest.raises(VideoError, match="50,000,000 samples"), open_video("memory://claims/a.mp4"):
        pass
    assert read_frames("memory://claims/b.mp4", [29, 3]).equal(read_frames(tmp_path / "b.mp4", [29, 3]))
