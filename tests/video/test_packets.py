"""How few frames are decoded, and when a file is indexed by only its header."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.videos import decode_all, index_of, moving_frames, read_frames, write_video
from tubelet.video import reader
from tubelet.video.index import VideoIndex, header_index, scan_index, video_stream
from tubelet.video.packets import Decoding
from tubelet.video.reader import IndexChanged, open_video
from tubelet.video.sources import Deadline, open_container


def decoding(path: Path, wanted: list[int]) -> Decoding:
    deadline = Deadline(path, 60)
    with open_container(path, deadline) as (container, _):
        stream = video_stream(container, path)
        index = scan_index(container, stream, deadline)
        done = Decoding(container, stream, index, set(wanted), deadline)
        taken = [number for number, _ in done.frames()]
    assert sorted(taken) == sorted(set(wanted))
    return done


def needed(path: Path, wanted: list[int]) -> int:
    """How many frames of an H.264 file have to be decoded, by the file's own bits.

    From each key frame (NAL type 5) up to the last wanted frame before the next one in decoding order: the
    wanted frames, and the others that a frame may refer to (nal_ref_idc).
    """
    groups: list[list[tuple[int, bool]]] = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            data, offset = bytes(packet), 0
            while offset < len(data):
                kind = data[offset + 4] & 31
                if kind == 5:
                    groups.append([])
                if kind in (1, 5):
                    assert packet.pts is not None
                    groups[-1].append((packet.pts, data[offset + 4] & 0x60 != 0))
                    break
                offset += 4 + int.from_bytes(data[offset : offset + 4], "big")
    times = sorted(pts for group in groups for pts, _ in group)
    wanted_times = {times[number] for number in wanted}
    count = 0
    for group in groups:
        positions = [k for k, (pts, _) in enumerate(group) if pts in wanted_times]
        head = group[: positions[-1] + 1] if positions else []
        count += sum(refers or pts in wanted_times for pts, refers in head)
    return count


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds with x264's defaults: a key frame every 250 frames, B-frames where they help."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, size=(10, 50, 3)).repeat(12, 0).repeat(12, 1)
    left = (150 + 140 * np.sin(np.arange(300) / 40)).astype(int)
    view = np.stack([wide[k // 8 : k // 8 + 72, x : x + 96] for k, x in enumerate(left)])
    grain = rng.integers(0, 8, size=view.shape)
    return write_video(
        tmp_path_factory.mktemp("packets") / "default.mp4", (view * 0.9 + grain).astype(np.uint8), fps=30
    )


def test_only_wanted_frames_and_their_references_are_decoded(default: Path):
    decoded = spanned = 0
    for start in range(0, 236, 15):
        wanted = list(range(start, start + 64, 4))
        done = decoding(default, wanted)
        assert done.num_decoded == needed(default, wanted)
        decoded += done.num_decoded
        spanned += done.num_spanned
    assert decoded / spanned <= 0.6


@pytest.fixture
def short_groups(tmp_path: Path) -> Path:
    options = {"g": "16", "keyint_min": "16", "sc_threshold": "0", "bf": "0"}
    return write_video(tmp_path / "g16.mp4", moving_frames(100), options=options)


def test_packets_after_the_last_wanted_frame_of_a_group_are_not_sent(short_groups: Path):
    done = decoding(short_groups, [3, 18, 50])
    assert (done.num_decoded, done.num_spanned) == (4 + 3 + 3, 51)


class CountsSeeks:
    """A container that counts its seeks."""

    def __init__(self, container: av.container.InputContainer) -> None:
        self.container, self.seeks = container, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)

    def seek(self, *args: Any, **options: Any) -> None:
        self.seeks += 1
        self.container.seek(*args, **options)


def test_successive_groups_are_decoded_with_one_seek(short_groups: Path):
    deadline, index = Deadline(short_groups, 60), index_of(short_groups)
    with open_container(short_groups, deadline) as (container, _):
        stream, plural = video_stream(container, short_groups), CountsSeeks(container)
        done = Decoding(plural, stream, index, set(range(20, 84, 4)), deadline)  # type: ignore[arg-type]
        assert len(list(done.frames())) == 16
    # 16-20..28, then 32..44, 48..60, 64..76, 80: each up to the last wanted frame
    assert done.num_decoded == 13 + 13 + 13 + 13 + 1
    assert plural.seeks == 1


def test_in_a_file_of_only_key_frames_only_the_wanted_are_decoded(tmp_path: Path):
    path = write_video(tmp_path / "intra.mp4", moving_frames(60), options={"g": "1"})
    assert decoding(path, [50, 3, 20, 21]).num_decoded == 4


def test_a_frame_wanted_twice_is_decoded_once(short_groups: Path):
    assert decoding(short_groups, [5, 5, 2]).num_decoded == 6


def test_all_frames_of_open_groups_are_decoded_in_one_run(tmp_path: Path):
    path = write_video(
        tmp_path / "open.mp4",
        moving_frames(60),
        options={"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"},
    )
    assert decoding(path, list(range(60))).num_decoded == 60


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mov", "libx265"), ("webm", "libvpx-vp9")]
)
def test_nothing_is_decoded_to_open_a_file(tmp_path: Path, suffix: str, codec: str):
    path = write_video(tmp_path / f"a.{suffix}", moving_frames(10), codec=codec)
    with open_container(path, Deadline(path, 60)) as (container, _):
        assert container.streams.video[0].pix_fmt is None  # FFmpeg finds it only by decoding
    with av.open(str(path)) as container:
        assert container.streams.video[0].pix_fmt


def both_indexes(path: Path) -> tuple[VideoIndex | None, VideoIndex]:
    deadline = Deadline(path, 60)
    with open_container(path, deadline) as (container, _):
        stream = video_stream(container, path)
        return header_index(container, stream), scan_index(container, stream, deadline)


EVEN = [40 * k for k in range(50)]
UNEVEN = np.cumsum(np.random.default_rng(0).integers(15, 90, size=50)).tolist()


@pytest.mark.parametrize(
    ("suffix", "frames", "times", "regular"),
    [("mp4", "2", EVEN, True), ("mp4", "0", EVEN, True), ("mp4", "0", UNEVEN, True),
     ("mp4", "2", UNEVEN, False), ("mkv", "0", EVEN, False)],
)  # fmt: skip
def test_the_header_is_the_index_where_it_is_regular(
    tmp_path: Path, suffix: str, frames: str, times: list[int], regular: bool
):
    path = write_video(
        tmp_path / f"a.{suffix}", moving_frames(50), times=times, options={"g": "12", "bf": frames}
    )
    header, packets = both_indexes(path)
    assert header == (packets if regular else None)


def test_a_file_cut_short_is_not_indexed_by_its_header(tmp_path: Path):
    path = tmp_path / "cut.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10", "bf": "0"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for image in moving_frames(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    truth = decode_all(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    header, packets = both_indexes(path)
    assert header is None
    assert 10 < len(packets) < 50
    every = list(range(len(packets)))  # without the incomplete frame
    assert np.array_equal(read_frames(path, every).permute(0, 2, 3, 1).numpy(), truth[every])


@pytest.mark.parametrize("error", ["times", "keys", "too many"])
def test_a_wrong_header_is_mended_and_reported(
    short_groups: Path, error: str, monkeypatch: pytest.MonkeyPatch
):
    truth = decode_all(short_groups)

    def wrong(container: av.container.InputContainer, stream: av.VideoStream) -> VideoIndex | None:
        index = header_index(container, stream)
        assert index is not None
        match error:
            case "times":
                return replace(index, times=tuple(time + 40 for time in index.times))
            case "keys":
                return replace(index, keys=(0, 40))
            case _:
                return replace(index, times=(*index.times, index.times[-1] + 512))

    monkeypatch.setattr(reader, "header_index", wrong)
    with open_video(short_groups) as video:
        if error == "keys":  # which do not matter to who chooses frames
            video.read([len(video.index) - 1, 45])
        else:
            with pytest.raises(IndexChanged, match=r"g16.mp4: "):
                video.read([len(video.index) - 1, 45])
        assert video.index == index_of(short_groups)
        assert len(video.index) == 100
        frames = video.read([len(video.index) - 1, 45])
    assert np.array_equal(frames.permute(0, 2, 3, 1).numpy(), truth[[99, 45]])
