"""Folders of numbered images as videos."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import index_of, moving_frames, read_frames
from tubelet.video.crop import Box, Scaling
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
