"""Frames of any number, in any order, are exactly those of a full sequential decode."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.videos import decode_all, index_of, moving_frames, read_frames, write_video
from tubelet.clips import DenseClip
from tubelet.data.dataset import read_clip
from tubelet.video import packets, reader
from tubelet.video.index import scan_index
from tubelet.video.reader import IndexChanged, VideoError, VideoFile, VideoIndex, open_video

TICKS = 512  # of a frame in an MP4 with 25 frames a second
IRREGULAR = np.cumsum(np.random.default_rng(1).integers(15, 90, size=70)).tolist()

FILES: dict[str, Callable[[Path], Path]] = {
    "h264 with B-frames and one key frame": lambda folder: write_video(
        folder / "gop250.mp4", moving_frames(90), options={"g": "250", "bf": "3", "b_strategy": "0"}
    ),
    "h264 with short open GOPs": lambda folder: write_video(
        folder / "open.mp4",
        moving_frames(60),
        options={"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"},
    ),
    "h264 with B-pyramid in matroska": lambda folder: write_video(
        folder / "pyramid.mkv",
        moving_frames(60),
        options={"g": "30", "bf": "5", "x264-params": "b-pyramid=normal:b-adapt=0"},
    ),
    "h264 in an MPEG transport stream": lambda folder: write_video(
        folder / "stream.ts", moving_frames(50), options={"g": "10", "bf": "2"}
    ),
    "MPEG-2 in a program stream": lambda folder: write_video(
        folder / "program.mpg", moving_frames(50), codec="mpeg2video", options={"g": "12", "bf": "2"}
    ),
    "mpeg4": lambda folder: write_video(
        folder / "mpeg4.mp4", moving_frames(40), codec="mpeg4", options={"g": "12"}
    ),
    "mpeg4 with B-frames": lambda folder: write_video(
        folder / "mpeg4b.mp4", moving_frames(40), codec="mpeg4", options={"g": "12", "bf": "2"}
    ),
    "mpeg4 with B-frames in AVI": lambda folder: write_video(
        folder / "mpeg4.avi", moving_frames(40), codec="mpeg4", options={"g": "12", "bf": "2"}
    ),
    "vp9": lambda folder: write_video(
        folder / "vp9.webm",
        moving_frames(40),
        codec="libvpx-vp9",
        options={"g": "15", "deadline": "realtime", "cpu-used": "8"},
    ),
    "vp9 with hidden frames": lambda folder: write_video(
        folder / "altref.webm",
        moving_frames(40),
        codec="libvpx-vp9",
        options={"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "5"},
    ),
    "motion JPEG in AVI": lambda folder: write_video(
        folder / "mjpeg.avi", moving_frames(20), codec="mjpeg", pixels="yuvj420p"
    ),
    "h264 cut into by an edit list": lambda folder: cut_start(folder / "edit.mp4", moving_frames(40), 8),
    "h264 of 10 bits": lambda folder: write_video(
        folder / "deep.mp4", moving_frames(30), pixels="yuv420p10le", options={"g": "12", "bf": "2"}
    ),
    "h264 in full color": lambda folder: write_video(
        folder / "full.mp4", moving_frames(30), pixels="yuv444p", options={"g": "12", "bf": "2"}
    ),
    "h264 of only key frames": lambda folder: write_video(
        folder / "intra.mp4", moving_frames(30), options={"g": "1"}
    ),
    "h264 in fragments": lambda folder: mux_mp4(
        folder / "fragments.mp4", moving_frames(40), {"movflags": "frag_keyframe+empty_moov"}
    ),
    "h264 in fragments that do not specify how far frames are reordered": lambda folder: hide_reordering(
        mux_mp4(folder / "unspecified.mp4", moving_frames(40), {"movflags": "frag_keyframe+empty_moov"})
    ),
    "mpeg4 with B-frames in MP4": lambda folder: write_video(
        folder / "part2.mp4", moving_frames(40), codec="mpeg4", options={"g": "12", "bf": "2"}
    ),
    "h264 with a gap that its header does not show": lambda folder: remux(
        write_video(folder / "whole.mp4", moving_frames(60), options={"g": "50", "bf": "3"}),
        folder / "gap.mp4",
        lambda _, packet: later(packet) if (packet.pts or 0) >= 40 * TICKS else packet,
    ),
    "h264 cut out between key frames of open GOPs": lambda folder: cut_out(
        write_video(
            folder / "whole.mp4",
            moving_frames(60),
            options={"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"},
        ),
        19,
    ),
    "hevc cut out at a key frame of open GOPs": lambda folder: cut_out(hevc_groups(folder), 10),
    "hevc cut out where the frames before a key frame decode": lambda folder: cut_out(
        hevc_groups(folder, "radl=2:open-gop=0"), 8, earlier=8
    ),
    "h264 with its header in front": lambda folder: mux_mp4(
        folder / "front.mp4", moving_frames(40), {"movflags": "faststart"}
    ),
    "hevc": lambda folder: write_video(
        folder / "hevc.mp4",
        moving_frames(40),
        codec="libx265",
        options={"x265-params": "keyint=15:bframes=3:log-level=none"},
    ),
    "av1": lambda folder: write_video(
        folder / "av1.mp4",
        moving_frames(30, 64, 64),
        codec="libsvtav1",
        options={"g": "10", "preset": "12", "svtav1-params": "lp=1"},
    ),
    "one frame": lambda folder: write_video(folder / "one.mp4", moving_frames(1)),
    "odd sides": lambda folder: write_video(
        folder / "odd.mkv", moving_frames(20, 47, 65), codec="ffv1", pixels="bgr0"
    ),
    "variable frame rate": lambda folder: write_video(
        folder / "vfr.mp4", moving_frames(70), times=IRREGULAR, options={"g": "20", "bf": "2"}
    ),
    "times that begin late": lambda folder: write_video(
        folder / "late.mkv",
        moving_frames(30),
        times=[5000 + 40 * k for k in range(30)],
        options={"g": "10", "bf": "2"},
    ),
}


def mux_mp4(path: Path, frames: np.ndarray, muxing: dict[str, str], hidden: int = 0) -> Path:
    """Write an MP4 with these muxer options, and times that begin `hidden` frames before zero."""
    with av.open(str(path), "w", options=muxing) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "3", "b_strategy": "0"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        images = [av.VideoFrame.from_ndarray(image, format="rgb24") for image in frames]
        for image in [*images, None]:
            for packet in stream.encode(image):
                assert packet.pts is not None
                assert packet.dts is not None
                packet.pts, packet.dts = packet.pts - hidden, packet.dts - hidden
                container.mux(packet)
    return path


def cut_start(path: Path, frames: np.ndarray, hidden: int) -> Path:
    """Write an MP4 whose edit list begins `hidden` frames after the first, which the others refer to."""
    return mux_mp4(path, frames, {"avoid_negative_ts": "disabled"}, hidden)


def remux(source: Path, target: Path, change: Callable[[int, av.Packet], av.Packet | None]) -> Path:
    """Copy the packets of a file to another, each changed or left out."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for position, packet in enumerate(old.demux(video=0)):
            if packet.size and (changed := change(position, packet)):
                changed.stream = stream
                new.mux(changed)
    return target


def cut_out(whole: Path, first: int, earlier: int = 0) -> Path:
    """Copy the packets from number `first` on, some frames earlier."""
    return remux(
        whole,
        whole.with_name("cut.mp4"),
        lambda position, packet: later(packet, -earlier, both=True) if position >= first else None,
    )


def hevc_groups(folder: Path, more: str = "open-gop=1") -> Path:
    """Write a HEVC video with a key frame every ten frames."""
    params = f"keyint=10:min-keyint=10:bframes=3:{more}:log-level=none"
    return write_video(
        folder / "whole.mp4", moving_frames(40), codec="libx265", options={"x265-params": params}
    )


def later(packet: av.Packet, frames: int = 1, *, both: bool = False) -> av.Packet:
    """Move a packet's presentation some frames later, and with `both` its decoding."""
    assert packet.pts is not None
    assert packet.dts is not None
    packet.pts += frames * TICKS
    packet.dts += frames * TICKS * both
    return packet


def hide_reordering(path: Path) -> Path:
    """Remove the usability information (H.264, annex E) from the sequence parameters of a file by x264."""
    with av.open(str(path)) as container:
        setup = bytes(container.streams.video[0].codec_context.extradata or b"")
    whole = setup[8 : 8 + int.from_bytes(setup[6:8], "big")]
    bits = "".join(f"{byte:08b}" for byte in whole)
    at = 32  # after the NAL's type, the profile and the level

    def number() -> int:
        nonlocal at
        zeros = bits.index("1", at) - at
        at += 2 * zeros + 1
        return int(bits[at - zeros - 1 : at], 2) - 1

    assert whole[1] == 100
    assert [number() for _ in range(4)] == [0, 1, 0, 0]  # id, 4:2:0, 8 bits of luma and of chroma
    at += 2
    number()
    if number() == 0:
        number()
    number()
    at += 1
    number(), number()
    assert bits[at] == "1"  # frames, not fields
    at += 2
    at += 1
    if bits[at - 1] == "1":  # cropping
        number(), number(), number(), number()
    assert bits[at] == "1"
    short = (bits[:at] + "01").ljust(len(bits), "0")
    data = path.read_bytes()
    assert data.count(whole) == 1
    path.write_bytes(data.replace(whole, bytes(int(short[k : k + 8], 2) for k in range(0, len(short), 8))))
    return path


@pytest.fixture(scope="module", params=FILES, ids=[name.replace(" ", "-") for name in FILES])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = FILES[request.param](tmp_path_factory.mktemp("videos"))
    return path, decode_all(path)


def frames_of(path: Path, wanted: list[int], index: VideoIndex | None = None) -> np.ndarray:
    """Frames (T, H, W, C) by a given index, or by the file's own."""
    if index is None:
        frames = read_frames(path, wanted)
    else:
        with open_video(path, exact=True) as video:
            assert isinstance(video, VideoFile)
            video.index = index
            frames = video.read(wanted)
    return frames.permute(0, 2, 3, 1).numpy()


def test_the_index_has_the_frames_that_decode(file: tuple[Path, np.ndarray]):
    path, truth = file
    index = index_of(path)
    assert len(index) == len(truth)
    assert (index.height, index.width) == truth.shape[1:3]
    assert index.keys[0] == 0
    assert list(index.keys) == sorted(set(index.keys))


def test_random_frames_are_those_of_a_sequential_decode(file: tuple[Path, np.ndarray]):
    path, truth = file
    index = index_of(path)
    rng = np.random.default_rng(0)
    for count in (1, 1, 4, 16, 40):
        wanted = rng.integers(len(truth), size=count).tolist()
        np.testing.assert_array_equal(frames_of(path, wanted, index), truth[wanted], err_msg=str(wanted))


def test_frames_by_the_index_of_the_header_are_the_same(file: tuple[Path, np.ndarray]):
    path, truth = file
    single = [[number] for number in range(2, len(truth), 7)]
    for wanted in (list(range(len(truth)))[::-5], [len(truth) - 1], [len(truth) // 2, 0], *single):
        np.testing.assert_array_equal(frames_of(path, wanted), truth[wanted], err_msg=str(wanted))


def test_an_open_video_can_be_read_again(file: tuple[Path, np.ndarray]):
    path, truth = file
    last = len(truth) - 1
    for exact in (False, True):
        with open_video(path, exact=exact) as video:
            for wanted in ([last], [last // 2, 0], [last], list(range(len(truth))), [0], [0]):
                try:
                    frames = video.read(wanted)
                except IndexChanged:
                    frames = video.read(wanted)
                np.testing.assert_array_equal(
                    frames.permute(0, 2, 3, 1).numpy(), truth[wanted], err_msg=str(wanted)
                )
            assert len(video.index) == len(truth)


def test_every_frame_can_be_read_on_its_own(file: tuple[Path, np.ndarray]):
    path, truth = file
    index = index_of(path)
    for number in range(0, len(truth), 3):
        np.testing.assert_array_equal(frames_of(path, [number], index)[0], truth[number], err_msg=str(number))


def test_all_frames_at_once_are_the_sequential_decode(file: tuple[Path, np.ndarray]):
    path, truth = file
    np.testing.assert_array_equal(frames_of(path, list(range(len(truth)))), truth)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_random_frames_need_no_decoding_from_the_start(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
):
    path = write_video(tmp_path / f"a.{suffix}", moving_frames(60), options={"g": "12", "bf": "3"})
    truth = decode_all(path)
    monkeypatch.delattr(packets.Decoding, "_decode_from_start")
    for number in range(60):
        np.testing.assert_array_equal(frames_of(path, [number])[0], truth[number], err_msg=str(number))
    np.testing.assert_array_equal(frames_of(path, [50, 7, 31]), truth[[50, 7, 31]])


def test_the_guessed_times_of_an_avi_file_do_not_matter(tmp_path: Path):
    path = write_video(tmp_path / "a.avi", moving_frames(30), codec="mpeg4", options={"bf": "2"})
    index = index_of(path)
    guess = replace(index, times=index.times[::-1])
    np.testing.assert_array_equal(frames_of(path, [3, 20, 11], guess), decode_all(path)[[3, 20, 11]])


def twice(whole: Path, number: int, *, both: bool) -> Path:
    """Copy a file, with the time of frame `number` set to the one before it, `both` also for decoding."""
    with av.open(str(whole)) as container:
        times = sorted(packet.pts for packet in container.demux(video=0) if packet.pts is not None)

    def earlier(_: int, packet: av.Packet) -> av.Packet:
        if packet.pts == times[number]:
            packet.pts = times[number - 1]
            packet.dts = packet.pts if both else packet.dts
        return packet

    return remux(whole, whole.with_name(f"twice{whole.suffix}"), earlier)


@pytest.mark.slow
@pytest.mark.parametrize("number", [12, *(pytest.param(k, marks=pytest.mark.slow) for k in (7, 13, 14))])
@pytest.mark.parametrize(("suffix", "between"), [("mkv", "2"), ("flv", "0"), ("mp4", "2")])
def test_two_frames_of_one_time_are_distinguished(tmp_path: Path, suffix: str, between: str, number: int):
    options = {"g": "12", "bf": between}
    whole = write_video(tmp_path / f"a.{suffix}", moving_frames(40), options=options)
    every_frame_is_right(twice(whole, number, both=between == "0"), moments=39)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "codec"), [("mkv", "libx264"), pytest.param("webm", "libvpx", marks=pytest.mark.slow)]
)
def test_frames_faster_than_the_ticks_of_their_container_are_distinguished(
    tmp_path: Path, suffix: str, codec: str
):
    path = write_video(tmp_path / f"a.{suffix}", moving_frames(40), codec=codec, fps=2000)
    every_frame_is_right(path, moments=21)


def every_frame_is_right(path: Path, moments: int) -> None:
    """Check all frames of a video with 40 frames and this number of different times."""
    truth, index = decode_all(path), index_of(path)
    assert (len(truth), len(index), len(set(index.times))) == (40, 40, moments)
    for number in range(40):
        for known in (index, None):
            np.testing.assert_array_equal(frames_of(path, [number], known)[0], truth[number], str(number))
    for wanted in (range(40), range(5, 25), [30, 14, 2, 13, 13]):
        np.testing.assert_array_equal(frames_of(path, list(wanted)), truth[list(wanted)], str(wanted))


@pytest.fixture
def short(tmp_path: Path) -> Path:
    return write_video(tmp_path / "short.mp4", moving_frames(20), options={"g": "8", "bf": "2"})


@pytest.mark.parametrize("late", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (20, 40))])
def test_frames_that_are_only_references_do_not_count(tmp_path: Path, late: int):
    """libvpx writes them to VP8 in two passes: alternate references, before the next frame or at its time."""
    plain = write_video(tmp_path / "a.webm", moving_frames(60), codec="libvpx", options={"g": "25"})
    path = tmp_path / "b.webm"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            assert packet.pts is not None
            data, hidden = bytearray(bytes(packet)), number % 10 == 7
            data[0] &= 0xEF if hidden else 0xFF
            copy = av.Packet(bytes(data))
            copy.pts = copy.dts = packet.pts + (late if hidden else 0)
            copy.time_base, copy.stream, copy.is_keyframe = packet.time_base, stream, packet.is_keyframe
            target.mux(copy)
    truth = torch.from_numpy(decode_all(path)).permute(0, 3, 1, 2)
    assert len(truth) == 54
    assert len(index_of(path)) == 54
    assert torch.equal(read_frames(path, range(54)), truth)
    for number in range(54):
        assert torch.equal(read_frames(path, [number])[0], truth[number])


def test_frames_come_in_the_given_order_with_repeats(short: Path):
    truth = decode_all(short)
    wanted = [19, 3, 3, 0, 19, 7]
    np.testing.assert_array_equal(frames_of(short, wanted), truth[wanted])


def test_frames_are_uint8_with_channels_before_height(short: Path):
    frames = read_frames(short, [0, 1])
    assert frames.dtype == torch.uint8
    assert frames.shape == (2, 3, 48, 64)


def test_a_frame_resembles_the_one_that_was_written_more_than_any_other(short: Path):
    written = moving_frames(20).astype(int)
    for number in (0, 4, 11, 19):
        error = np.abs(written - frames_of(short, [number])).mean((1, 2, 3))
        assert error.argmin() == number


def test_the_index_has_rate_and_codec(short: Path):
    index = index_of(short)
    assert index.fps == pytest.approx(25)
    assert index.codec == "h264"


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx")])
@pytest.mark.parametrize("fps", [24, 30, 60])
def test_the_rate_of_even_frames_is_exact(tmp_path: Path, suffix: str, codec: str, fps: int):
    path = write_video(tmp_path / f"a.{suffix}", moving_frames(80), codec=codec, fps=fps)
    assert index_of(path).fps == fps


def test_the_rate_of_irregular_frames_is_their_mean(tmp_path: Path):
    index = index_of(write_video(tmp_path / "vfr.mp4", moving_frames(70), times=IRREGULAR))
    assert index.fps == pytest.approx(69_000 / (IRREGULAR[-1] - IRREGULAR[0]), rel=1e-3)


def test_key_frames_are_where_the_encoder_put_them(tmp_path: Path):
    path = write_video(
        tmp_path / "keys.mp4", moving_frames(35), options={"g": "10", "bf": "2", "sc_threshold": "0"}
    )
    assert index_of(path).keys == (0, 10, 20, 30)


@pytest.mark.parametrize("wanted", [[], [20], [-1], [0, 20]])
def test_frames_outside_the_video_are_refused(short: Path, wanted: list[int]):
    with pytest.raises(VideoError, match=r"short.mp4: .* of a video of 20 frames"):
        read_frames(short, wanted)


def audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def broken_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.mp4"
    whole = write_video(folder / "whole.mp4", moving_frames(20)).read_bytes()
    match kind:
        case "missing":
            pass
        case "folder":
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("This is not a video.\n" * 50)
        case "audio":
            audio(path)
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "damaged":
            start = whole.index(b"mdat") + 100
            noise = np.random.default_rng(0).bytes(len(whole) // 3)
            path.write_bytes(whole[:start] + noise + whole[start + len(noise) :])
    return path


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "audio", "truncated"])
def test_a_file_that_is_not_a_video_is_named(tmp_path: Path, kind: str):
    path = broken_file(tmp_path, kind)
    with pytest.raises(VideoError) as opened:
        index_of(path)
    with pytest.raises(VideoError) as read:
        read_frames(path, [0])
    assert str(opened.value).startswith(f"{path}: ")
    assert str(read.value).startswith(f"{path}: ")


def test_the_message_for_an_avi_that_begins_between_key_frames_is_about_seeking(tmp_path: Path):
    whole = write_video(tmp_path / "whole.avi", moving_frames(20), codec="mpeg4", options={"g": "8"})
    path = tmp_path / "a.avi"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[1:]:
            packet.stream = stream
            target.mux(packet)
    with pytest.raises(VideoError, match=r"a.avi: cannot be read as a video \(seeking to its start"):
        index_of(path)


def test_an_image_is_not_a_video(tmp_path: Path):
    images = [Image.fromarray(frame) for frame in moving_frames(3)]
    for kind in ("png", "jpeg", "bmp", "webp"):
        path = tmp_path / f"{kind}.mp4"
        images[0].save(path, format=kind)
        with pytest.raises(
            VideoError, match=rf"{kind}.mp4: cannot be read as a video \(FFmpeg finds one image"
        ):
            index_of(path)
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:])
    with pytest.raises(VideoError, match=r"a.webp: cannot be read as a video \(FFmpeg finds one image"):
        index_of(tmp_path / "a.webp")
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=40)
    assert len(index_of(tmp_path / "a.gif")) == 3


def test_a_file_of_which_no_frame_decodes_is_not_a_video(tmp_path: Path):
    options = {"g": "250", "sc_threshold": "0", "bf": "2"}
    whole = write_video(tmp_path / "whole.ts", moving_frames(30), options=options)
    path = remux(whole, tmp_path / "a.ts", lambda position, packet: packet if position else None)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.width == 0
    for exact in (False, True):
        with (
            pytest.raises(VideoError, match=r"a.ts: cannot be read as a video \(none of its frames decode\)"),
            open_video(path, exact=exact),
        ):
            pass
    with pytest.raises(VideoError, match=r"a.ts: "):
        read_clip(path, DenseClip(frames=4, stride=2), size=32)


def test_the_size_is_that_of_the_first_frame_that_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_video(tmp_path / "a.ts", moving_frames(30), options={"g": "10"})

    def without_size(*arguments: Any) -> VideoIndex:
        return replace(scan_index(*arguments), height=0, width=0)

    monkeypatch.setattr(reader, "scan_index", without_size)
    with open_video(path) as video:
        assert (video.index.height, video.index.width) == (48, 64)
    assert read_clip(path, DenseClip(frames=4, stride=2), size=32).shape == (4, 3, 32, 32)


def test_a_missing_file_is_reported_as_missing(tmp_path: Path):
    with pytest.raises(VideoError, match=r"no such file"):
        index_of(tmp_path / "gone.mp4")


def test_frames_that_do_not_decode_are_an_error_that_names_the_file(tmp_path: Path):
    path = broken_file(tmp_path, "damaged")
    with pytest.raises(VideoError, match=r"damaged.mp4: "):
        read_frames(path, list(range(20)))


def test_a_stream_cut_short_gives_the_frames_that_are_left(tmp_path: Path):
    whole = write_video(tmp_path / "whole.ts", moving_frames(50), options={"g": "10"})
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    index = index_of(cut)
    assert 10 < len(index) < 50
    np.testing.assert_array_equal(frames_of(cut, [3, 9], index), decode_all(whole)[[3, 9]])


def test_a_change_of_size_within_a_file_is_an_error_that_names_it(tmp_path: Path):
    early, late = ([start + 40 * k for k in range(10)] for start in (0, 400))
    small = write_video(tmp_path / "small.ts", moving_frames(10, 48, 64), times=early)
    large = write_video(tmp_path / "large.ts", moving_frames(10, 96, 128), times=late)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    assert len(index_of(both)) == 20
    with pytest.raises(VideoError, match=r"both.ts: the frames.* size changes"):
        read_frames(both, [2, 15])


def test_texts_in_other_encodings_do_not_matter(tmp_path: Path):
    path = tmp_path / "title.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "plain title"
        stream = container.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = 48, 64
        for image in moving_frames(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"plain title", b"pl\xe4in t\xeftle"))
    assert len(index_of(path)) == 3
    assert read_frames(path, [2]).shape == (1, 3, 48, 64)
