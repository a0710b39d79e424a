"""Encoding for training: every kind of file becomes small upright H.264 of short groups, with its times."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.prepare.files import FAST, cut, small, upright, write_audio, write_rotated
from tests.videos import decode_all, index_of, moving_frames, read_frames, write_video
from tubelet.errors import UserError
from tubelet.prepare.encode import EncodeJob, EncodeResult, encode_file


def encode(
    source: Path, short_side: int = 32, part: tuple[int, int] | None = None
) -> tuple[Path, EncodeResult]:
    target = source.parent / "out" / f"{source.stem}.mp4"
    result = encode_file(EncodeJob(str(source), str(target), short_side, part))
    assert isinstance(result, EncodeResult)
    return target, result


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def test_a_video_becomes_small_h264_of_short_groups_without_sound(tmp_path: Path):
    frames = moving_frames(40, 96, 144)
    path = write_video(tmp_path / "a.mkv", frames, codec="mpeg4", options={"bf": "2", "qscale": "2"})
    target, result = encode(path, 48)
    assert (result.error, result.note) == ("", "")
    assert (result.frames, result.width, result.height, result.codec) == (40, 72, 48, "h264")
    assert result.size == target.stat().st_size
    index = index_of(target)
    assert index.keys == (0, 16, 32)
    assert index.fps == pytest.approx(25)
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        kinds = "".join(" IPB"[int(frame.pict_type)] for frame in container.decode(stream))
    assert kinds == "IBBBPBBBPBBBPBBP" * 2 + "IBBBPBBP"
    content = target.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert list(target.parent.iterdir()) == [target]


def test_rotation_flags_are_applied(tmp_path: Path):
    frames = upright(6, 64, 48)
    for degrees in (0, 90, 180, 270):
        for mirrored in (False, True):
            path = write_rotated(tmp_path / f"{degrees}-{mirrored}.mp4", frames, degrees, mirrored=mirrored)
            target, result = encode(path, 48)
            assert (result.width, result.height) == (48, 64), target
            assert difference(decode_all(target), frames) < 4, target
            with av.open(str(target)) as container:
                assert next(container.decode(video=0)).rotation == 0, target


def test_odd_and_small_sizes_become_even_ones(tmp_path: Path):
    for height, width, size in [(47, 65, (44, 32)), (65, 47, (32, 44)), (21, 31, (32, 20))]:
        path = tmp_path / f"{height}.mkv"
        write_video(path, moving_frames(4, height, width), codec="ffv1", pixels="bgr0")
        _, result = encode(path)
        assert (result.width, result.height) == size, (height, width)


def test_pixels_that_are_not_square_stay_as_they_are_stored(tmp_path: Path):
    frames = moving_frames(4, 48, 64)
    for degrees, size, ratio in ((0, (64, 48), Fraction(4, 3)), (90, (48, 64), Fraction(3, 4))):
        path = tmp_path / f"{degrees}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={**FAST, "crf": "4"})
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
            stream.set_display_rotation(degrees)
            for picture in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(stream.encode(None))
        target, result = encode(path, 48)
        assert (result.width, result.height) == size
        assert difference(decode_all(target), read_frames(path, range(4)).permute(0, 2, 3, 1).numpy()) < 8
        with av.open(str(target)) as container:
            assert container.streams.video[0].sample_aspect_ratio == ratio  # for players


def test_untagged_colors_of_high_definition_are_those_that_reading_gives(tmp_path: Path):
    path = tmp_path / "a.mkv"
    frames = np.full((2, 720, 64, 3), (200, 40, 40), dtype=np.uint8)
    write_video(path, frames, codec="libx264", options={"crf": "4"})
    target, _ = encode(path, 64)
    read = read_frames(path, [0])[0].permute(1, 2, 0).numpy()
    assert difference(read, frames[0]) < 3
    assert difference(decode_all(target)[0], read) < 3


def test_variable_times_are_kept(tmp_path: Path):
    times = np.cumsum(np.random.default_rng(0).integers(15, 90, size=30)).tolist()
    for name in ("a.mp4", "a.mkv"):
        path = write_video(tmp_path / name, moving_frames(30), times=times, options={"bf": "2"})
        target, result = encode(path)
        with av.open(str(target)) as container:
            kept = [frame.time for frame in container.decode(video=0)]
        assert np.array(kept) == pytest.approx((np.array(times) - times[0]) / 1000, abs=0.001)
        assert result.frames == 30


def test_the_guessed_times_of_avi_do_not_matter(tmp_path: Path):
    path = write_video(tmp_path / "a.avi", moving_frames(20), codec="mpeg4", options={"bf": "2"})
    target, result = encode(path)
    assert result.frames == 20
    steps = np.diff(index_of(target).times)
    assert (steps == steps[0]).all()
    assert result.fps == pytest.approx(25)


def test_colors_stay_what_they_are(tmp_path: Path):
    palette = [(250, 250, 250), (5, 5, 5), (200, 40, 40), (40, 200, 40), (40, 40, 200), (128, 128, 128)]
    centers = slice(8, None, 16)
    for codec, pixels, options in [
        ("libx264", "yuv420p", {"crf": "4"}),
        ("libx264", "yuvj420p", {"crf": "4"}),
        ("libx264", "yuv420p10le", {"crf": "4"}),
        ("libx264", "yuv444p", {"crf": "4"}),
        ("mjpeg", "yuvj422p", {"qscale": "2"}),
        ("ffv1", "bgr0", {}),
        ("ffv1", "gray", {}),
    ]:
        frames = np.zeros((4, 64, 96, 3), dtype=np.uint8)
        for k, color in enumerate(palette):
            frames[:, :, 16 * k : 16 * k + 16] = color if pixels != "gray" else sum(color) // 3
        path = tmp_path / f"{codec}-{pixels}.mkv"
        target, _ = encode(write_video(path, frames, codec=codec, pixels=pixels, options=options), 64)
        decoded = decode_all(target)[0, (8, 32, 56), centers]
        assert decoded == pytest.approx(frames[0, (8, 32, 56), centers].astype(int), abs=7), target
        with av.open(str(target)) as container:
            frame = next(container.decode(video=0))
            assert (int(frame.color_range), int(frame.colorspace)) == (1, 6), target


def test_colors_of_high_definition_are_read_by_their_tags(tmp_path: Path):
    frames = np.full((2, 64, 64, 3), (200, 40, 40), dtype=np.uint8)
    path = tmp_path / "hd.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=FAST)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
        container.mux(stream.encode(None))
    target, _ = encode(path, 64)
    assert difference(decode_all(target), frames) < 3


def test_packets_that_do_not_decode_are_left_out_and_noted(tmp_path: Path):
    path = write_video(tmp_path / "a.mkv", moving_frames(40), options={"g": "8"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][20]
        assert packet.pos is not None
        start, size = packet.pos, packet.size
    content[start + 8 : start + size] = b"\xff" * (size - 8)
    path.write_bytes(content)
    _, result = encode(path)
    assert (result.frames, result.error) == (39, "")
    assert result.note == "1 of its packets do not decode and are left out"


def test_a_file_without_video_has_an_error_and_leaves_no_file(tmp_path: Path):
    whole = small(tmp_path / "whole.mp4")
    for path, reason in [
        (write_audio(tmp_path / "audio.mp4"), "no video in this file"),
        (cut(tmp_path / "cut.mp4", whole), "cannot be encoded"),
    ]:
        target, result = encode(path)
        assert reason in result.error
        assert not any(target.parent.iterdir())


def test_an_image_folder_becomes_a_video(tmp_path: Path):
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = moving_frames(12, 40, 56)
    for k, picture in enumerate(frames, start=1):
        Image.fromarray(picture).save(folder / f"img_{k:05}.jpg", quality=95)
    target, result = encode(folder, 40)
    assert (result.frames, result.width, result.height, result.fps) == (12, 56, 40, 30)
    assert difference(decode_all(target), frames) < 20
    assert difference(decode_all(target), frames[::-1]) > 25
    _, part = encode(folder, 40, (3, 5))
    assert part.frames == 5


def test_a_build_without_the_encoder_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_video(tmp_path / "a.mp4", moving_frames(2))
    monkeypatch.setattr(av.codec, "codecs_available", set())
    with pytest.raises(UserError, match="pip install av"):
        encode(path)
