"""Folders of numbered images as videos."""

import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from tests.videos import index_of, moving_frames, read_frames
from tubelet.video.crop import Box, Scaling
from tubelet.video.image_folder import size_and_version
from tubelet.video.reader import Crop, IndexChanged, VideoError, open_video

SCALINGS: tuple[Scaling, ...] = ("antialias", "bilinear")


@pytest.fixture(params=["img_{:05d}.jpg", "image_000{:03d}.png", "{}.PNG"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "video"
    path.mkdir()
    for number, frame in enumerate(moving_frames(12), start=1):
        Image.fromarray(frame).save(path / request.param.format(number), quality=95, subsampling=0)
    (path / "notes.txt").write_text("not a frame")
    return path


def test_a_folder_of_images_is_a_video(folder: Path):
    index = index_of(folder)
    assert (len(index), index.height, index.width) == (12, 48, 64)
    frames = read_frames(folder, [11, 1, 1, 0]).permute(0, 2, 3, 1).numpy()
    error = np.abs(frames.astype(int) - moving_frames(12)[[11, 1, 1, 0]]).mean()
    assert error == 0 if any(folder.glob("*.[pP]*")) else error < 8


def test_hidden_files_are_ignored(folder: Path):
    for path in list(folder.iterdir()):
        (folder / f"._{path.name}").write_bytes(b"a resource fork")
    assert len(index_of(folder)) == 12
    assert read_frames(folder, range(12)).shape == (12, 3, 48, 64)


def test_names_may_contain_digits_that_are_not_numbers(tmp_path: Path):
    for name, shade in (("²1", 10), ("²2", 20), ("²10", 30)):
        Image.new("RGB", (8, 8), (shade,) * 3).save(tmp_path / f"{name}.png")
    assert read_frames(tmp_path, range(3))[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_frames_of_a_folder_are_cropped_like_a_videos(folder: Path):
    with open_video(folder) as video:
        assert len(video.index) == 12
        whole = video.read([4, 7])
        crops = [Crop([4, 7], Box(3, 5, 24, 32), (24, 32)), Crop([7], None, (24, 32), flip=True)]
        cut, small = video.read_crops(crops)
    assert torch.equal(cut, whole[:, :, 3:27, 5:37])
    halved = whole[1:].float().unflatten(2, (24, 2)).unflatten(4, (32, 2)).mean((3, 5)).flip(-1)
    assert (small - halved).abs().mean() < 6


def test_frames_of_a_folder_are_scaled_as_asked(folder: Path):
    with open_video(folder) as video:
        whole = video.read([4])
        one_step, antialias, bilinear = video.read_crops(
            [Crop([4], None, (16, 21)), *(Crop([4], None, (16, 21), scaling=s) for s in SCALINGS)]
        )
    assert torch.equal(one_step, antialias)
    plain = torch.nn.functional.interpolate(whole.float(), (16, 21), mode="bilinear")
    assert torch.equal(bilinear, plain.round().to(torch.uint8))


@pytest.mark.parametrize("kind", ["empty", "broken", "sizes"])
def test_a_folder_that_is_not_a_video_is_named(tmp_path: Path, kind: str):
    path = tmp_path / "video"
    path.mkdir()
    if kind == "broken":
        (path / "1.jpg").write_bytes(b"\xff\xd8 not an image")
    if kind == "sizes":
        for k in (1, 2):
            Image.new("RGB", (8 * k, 8)).save(path / f"{k}.png")
    match = r"video.*(no images|cannot be read as an image|size changes)"
    with pytest.raises(VideoError, match=match), open_video(path) as video:
        video.read(range(len(video.index)))


def test_frames_beyond_a_folder_are_refused(folder: Path):
    with pytest.raises(VideoError, match=r"of a video of 12 frames"):
        read_frames(folder, [12])


@pytest.mark.parametrize("broken", [False, True])
def test_a_folder_whose_first_image_differs_in_size_is_read_by_the_others(tmp_path: Path, broken: bool):
    for k, size in enumerate([8, 16, 16, 24 if broken else 16]):
        Image.new("RGB", (size, 8), (k, k, k)).save(tmp_path / f"{k}.png")
    with open_video(tmp_path) as video:
        crop = Crop([1, 2, 3], None, (8, 16))
        if broken:
            with pytest.raises(VideoError, match="size changes"):
                video.read_crops([crop])
            return
        with pytest.raises(IndexChanged):
            video.read_crops([crop])
        assert (video.index.height, video.index.width) == (8, 16)
        (clip,) = video.read_crops([crop])
        assert clip[:, 0, 0, 0].tolist() == [1, 2, 3]
        assert video.read([0]).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_of_16_bits_are_scaled_to_8(tmp_path: Path, suffix: str):
    ramps = [np.linspace(low, high, 64).astype(np.uint16) for low, high in ((500, 4000), (0, 65535))]
    for k, ramp in enumerate(ramps):
        Image.fromarray(np.broadcast_to(ramp, (32, 64)).copy()).save(tmp_path / f"{k}.{suffix}")
    frames = read_frames(tmp_path, [0, 1])
    for frame, ramp in zip(frames, ramps, strict=True):
        assert np.abs(frame.numpy() - ramp / 257).max() <= 0.5


def test_color_of_16_bits_is_scaled_to_8(tmp_path: Path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    written = np.stack([ramp, ramp[::-1], ramp // 2], -1)[None].repeat(32, 0)
    frame = av.VideoFrame.from_ndarray(written, format="rgb48le")
    with av.open(str(tmp_path / "0.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "rgb48be"
        container.mux(stream.encode(frame))
    with Image.open(tmp_path / "0.png") as image:
        assert image.info or image.size == (64, 32)
    assert np.abs(read_frames(tmp_path, [0])[0].permute(1, 2, 0).numpy() - written / 257).max() <= 1


@pytest.mark.parametrize("values", [np.array([[0.0, 0.5]], np.float32), np.array([[0, 70000]], np.int32)])
def test_other_depths_are_refused(tmp_path: Path, values: np.ndarray):
    Image.fromarray(values).save(tmp_path / "0.tif")
    with pytest.raises(VideoError, match=r"0.tif: .*16 bits per channel"):
        read_frames(tmp_path, [0])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_images_are_turned_as_their_exif_orientation_specifies(tmp_path: Path, suffix: str):
    stored = Image.fromarray(moving_frames(1)[0])
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        path = tmp_path / str(orientation) / f"0.{suffix}"
        path.parent.mkdir()
        stored.save(path, exif=exif, quality=95)
        with Image.open(path) as image:
            expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
        with open_video(path.parent) as video:
            frame = video.read([0])[0].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(frame, expected, err_msg=str(orientation))
            assert (video.index.height, video.index.width) == expected.shape[:2]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_image_with_broken_exif_is_read_as_stored(tmp_path: Path):
    Image.fromarray(moving_frames(1)[0]).save(tmp_path / "0.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_frames(tmp_path, [0])[0].permute(1, 2, 0), moving_frames(1)[0])


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(VideoError, match=f"^{tmp_path}: .*Permission denied"):
        read_frames(tmp_path, [0])


def test_what_is_not_a_regular_file_among_the_images_is_refused(tmp_path: Path):
    for name in ("pipe.jpg", "folder.png", "dangling.jpg", "device.jpg"):
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        for k in range(3):
            Image.fromarray(moving_frames(1)[0]).save(folder / f"{k}.jpg")
        odd = folder / name
        if name == "pipe.jpg":
            os.mkfifo(odd)
        elif name == "folder.png":
            odd.mkdir()
        else:
            odd.symlink_to("/dev/zero" if name == "device.jpg" else "nowhere")
        with pytest.raises(VideoError, match=f"{name}: expected an image, found what is not a regular file"):
            read_frames(folder, [0])


def test_an_image_written_again_or_added_changes_the_version_of_its_folder(folder: Path):
    versions = [size_and_version(folder)]
    image = next(path for path in folder.iterdir() if path.suffix != ".txt")
    changed = folder.stat().st_mtime_ns
    image.write_bytes(image.read_bytes()[:-1])
    os.utime(image, ns=(0, 0))
    versions.append(size_and_version(folder))
    os.utime(image, ns=(0, changed + 10**9))
    versions.append(size_and_version(folder))
    shutil.copy(image, folder / f"copy{image.suffix}")
    versions.append(size_and_version(folder))
    assert len(set(versions)) == 4
    assert size_and_version(folder) == versions[-1]
    assert size_and_version(image) == (image.stat().st_size, changed + 10**9)
