"""Crops have the wanted frames and the pixels of an exact conversion and resize."""

from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from tests.videos import index_of, read_crops, read_frames, write_video
from tubelet.errors import UserError
from tubelet.video import pixels
from tubelet.video.crop import Box, Scaling, crop_resize
from tubelet.video.reader import Crop, VideoError, open_video

# Luma weights of red and blue.
BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def smooth_frames(count: int, height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """RGB frames (count, H, W, 3) of drifting color waves whose chroma is smooth enough to be subsampled."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    frames = []
    for k in range(count):
        luma = np.sin(x / 5 + k / 3) * np.cos(y / 4 - k / 4) * 45
        tint = [np.sin(x / 23 + y / 31 + c * 2 + k / 5) * 35 for c in range(3)]
        frames.append(np.stack([128 + luma + t for t in tint], -1) + rng.normal(0, 2, (height, width, 1)))
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def exact_rgb(frame: av.VideoFrame, weights: tuple[float, float], full: bool) -> Tensor:
    """A frame in float (C, H, W), by the definition of its matrix and range; chroma is bilinear."""
    deep = frame.format.name.endswith("10le")
    planes = [
        torch.from_numpy(
            np.frombuffer(memoryview(p), np.uint16 if deep else np.uint8)
            .reshape(p.height, -1)[:, : p.width]
            .astype(np.float64)
        )
        / (4 if deep else 1)
        for p in frame.planes
    ]
    y, u, v = (
        plane
        if plane.shape == planes[0].shape
        else torch.nn.functional.interpolate(plane[None, None], size=planes[0].shape, mode="bilinear")[0, 0]
        for plane in planes
    )
    y, u, v = (y / 255, (u - 128) / 255, (v - 128) / 255)
    if not full:
        y, u, v = (y * 255 - 16) / 219, u * 255 / 224, v * 255 / 224
    red, blue = weights
    r = y + 2 * (1 - red) * v
    b = y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return torch.stack([r, g, b]).mul(255).clamp(0, 255)


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def exact_crop(frame: Tensor, crop: Crop) -> Tensor:
    top, left, height, width = crop.box or Box(0, 0, *frame.shape[-2:])
    part = frame[:, top : top + height, left : left + width]
    part = functional.resize(part, list(crop.size), antialias=True)
    return part.flip(-1) if crop.flip else part


BOXES = {
    "whole": None,
    "even": Box(10, 20, 64, 80),
    "odd corner": Box(11, 21, 64, 80),
    "odd everything": Box(7, 13, 63, 77),
    "to the last pixel": Box(31, 47, 65, 81),
}


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(
        tmp_path_factory.mktemp("crops") / "waves.mp4",
        smooth_frames(30),
        options={"crf": "12", "bf": "3", "g": "12"},
    )


def test_a_crop_is_the_exact_conversion_cut_and_resized(waves: Path):
    frames = [exact_rgb(frame, BT601, full=False) for frame in decode(waves)]
    for name, box in BOXES.items():
        for size in ((48, 48), (64, 80), (160, 144), (33, 57)):
            crop = Crop([3, 17, 17, 8], box, size, flip=True)
            (clip,) = read_crops(waves, [crop])
            assert clip.dtype == torch.uint8
            assert clip.shape == (4, 3, *size)
            for position, number in enumerate(crop.frames):
                error = clip[position] - exact_crop(frames[number], crop)
                assert error.abs().mean() < 1.1, (name, size)  # a shift by one pixel would be 4
                assert abs(error.mean()) < 0.4, (name, size)
                assert error.abs().quantile(0.999) < 8, (name, size)


FORMATS: dict[str, tuple[str, str, dict[str, str], tuple[int, int]]] = {
    "8 bit 4:2:0": ("libx264", "yuv420p", {}, (96, 128)),
    "8 bit 4:2:2": ("libx264", "yuv422p", {}, (96, 128)),
    "8 bit 4:4:4": ("libx264", "yuv444p", {}, (96, 128)),
    "10 bit 4:2:0": ("libx264", "yuv420p10le", {}, (96, 128)),
    "10 bit HEVC": ("libx265", "yuv420p10le", {"x265-params": "log-level=none"}, (96, 128)),
    "odd sides": ("ffv1", "yuv420p", {}, (95, 127)),
    "odd sides 4:1:1": ("ffv1", "yuv411p", {}, (95, 127)),
    "full range": ("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "3"}, (96, 128)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_pixel_format_is_right(tmp_path: Path, name: str):
    codec, layout, options, (height, width) = FORMATS[name]
    options = {"crf": "12", **options} if codec.startswith("lib") else options
    path = write_video(
        tmp_path / "a.mkv", smooth_frames(4, height, width), codec=codec, pixels=layout, options=options
    )
    crop = Crop([2], Box(5, 9, 70, 90), (56, 64))
    (clip,) = read_crops(path, [crop])
    frame = decode(path)[2]
    expected = exact_crop(exact_rgb(frame, BT601, full=layout.startswith("yuvj")), crop)
    assert (clip[0] - expected).abs().mean() < 1.0
    assert abs((clip[0] - expected).mean()) < 0.35


@pytest.mark.parametrize("layout", ["bgr0", "gray"])
def test_formats_without_chroma_planes_are_right(tmp_path: Path, layout: str):
    written = smooth_frames(3)
    path = write_video(tmp_path / "a.mkv", written, codec="ffv1", pixels=layout)
    crop = Crop([1], Box(5, 9, 70, 90), (56, 64))
    (clip,) = read_crops(path, [crop])
    expected = exact_crop(torch.from_numpy(decode(path)[1].to_ndarray(format="rgb24")).permute(2, 0, 1), crop)
    assert (clip[0].float() - expected).abs().mean() < 1.0


DEEP = [
    "gray10le", "gray12le", "gray16le", "rgb48le", "gbrp10le", "gbrp16le", "yuv420p12le", "yuv422p10le",
    "yuv444p16le", "yuv420p10le",
]  # fmt: skip


@pytest.mark.parametrize("layout", DEEP)
def test_more_than_8_bits_are_scaled_to_8(tmp_path: Path, layout: str):
    ramp = np.linspace(4, 250, 128).astype(np.uint8)
    written = np.broadcast_to(ramp[None, None, :, None], (2, 96, 128, 3)).copy()
    path = write_video(tmp_path / "a.mkv", written, codec="ffv1", pixels=layout)
    (clip,) = read_crops(path, [Crop([1], Box(8, 0, 64, 128), (64, 128))])
    whole = read_frames(path, [1])
    for frames in (clip, whole):
        error = frames[0].permute(1, 2, 0).numpy().astype(int) - ramp[None, :, None]
        assert np.abs(error).max() <= 3
        assert abs(error.mean()) < 2  # whole frames are not accurately rounded


def tagged(path: Path, images: np.ndarray, **tags: Any) -> Path:
    """Write a video with tagged matrix and range, and frames converted by them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "yuv420p"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("tags", "height", "weights", "full"),
    [
        ({}, 96, BT601, False),
        ({}, 720, BT601, False),
        ({"colorspace": 1, "color_range": 1}, 96, BT709, False),
        ({"colorspace": 1, "color_range": 1}, 720, BT709, False),
        ({"colorspace": 1, "color_range": 2}, 96, BT709, True),
        ({"colorspace": 6, "color_range": 2}, 96, BT601, True),
        ({"colorspace": 5, "color_range": 1}, 720, BT601, False),
    ],
)
def test_matrix_and_range_are_those_of_the_tags_or_the_same_at_every_height(
    tmp_path: Path, tags: dict[str, int], height: int, weights: tuple[float, float], full: bool
):
    path = tagged(tmp_path / "a.mp4", smooth_frames(2, height, 128), **tags)
    frame = decode(path)[0]
    assert int(frame.colorspace) == tags.get("colorspace", 2)
    exact = exact_rgb(frame, weights, full)
    crop = Crop([0], Box(4, 8, 80, 96), (64, 64))
    (clip,) = read_crops(path, [crop])
    assert (clip[0] - exact_crop(exact, crop)).abs().mean() < 1.0
    assert (read_frames(path, [0])[0] - exact).abs().mean() < 2.5  # not accurately rounded


def test_a_part_cut_from_the_planes_is_the_part_of_the_converted_frame(
    waves: Path, monkeypatch: pytest.MonkeyPatch
):
    crops = [Crop([4, 9], box, (56, 56)) for box in BOXES.values()]
    fused = read_crops(waves, crops)
    monkeypatch.setattr(pixels, "_PLANAR", {"gbrp": (0, 0, 1)})  # convert everything first
    unfused = read_crops(waves, crops)
    for one, other in zip(fused, unfused, strict=True):
        assert (one.float() - other.float()).abs().mean() < 0.8


def test_a_box_of_the_wanted_size_is_cut_without_scaling(waves: Path):
    frames = [exact_rgb(frame, BT601, full=False) for frame in decode(waves)]
    (clip,) = read_crops(waves, [Crop([5], Box(8, 4, 40, 60), (40, 60))])
    assert (clip[0] - frames[5][:, 8:48, 4:64]).abs().mean() < 1.0


@pytest.mark.parametrize("scaling", ["antialias", "bilinear"])
def test_whole_frames_are_converted_before_they_are_scaled(tmp_path: Path, scaling: Scaling):
    path = turned(tmp_path / "a.mp4", 90, "across")
    crops = [
        Crop([5, 2, 5], box, size, flip=flip, scaling=scaling)
        for box, size in ((None, (40, 33)), (Box(3, 5, 48, 32), (24, 40)), (Box(0, 0, 20, 20), (20, 20)))
        for flip in (False, True)
    ]
    frames = read_frames(path, [5, 2, 5])
    for crop, clip in zip(crops, read_crops(path, crops), strict=True):
        box = crop.box or Box(0, 0, *frames.shape[-2:])
        expected = crop_resize(frames, box, crop.size, antialias=scaling == "antialias")
        assert torch.equal(clip, expected.flip(-1) if crop.flip else expected), crop


def test_the_frames_of_all_crops_are_decoded_once_and_each_crop_gets_its_own(waves: Path):
    crops = [Crop(range(k, k + 12, 3), Box(2 * k, 0, 64, 64), (32, 32), flip=k == 1) for k in range(4)]
    with open_video(waves) as video:
        assert (len(video.index), video.index.height, video.index.width) == (30, 96, 128)
        together = video.read_crops(crops)
    for crop, clip in zip(crops, together, strict=True):
        (single,) = read_crops(waves, [crop])
        assert torch.equal(single, clip)
        assert clip.is_contiguous()


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "libx264"), ("mp4", "mpeg4"), ("mp4", "libvpx-vp9"), ("mov", "mpeg4"), ("mov", "mpeg2video"),
     ("webm", "libvpx-vp9"), ("webm", "libvpx")],
)  # fmt: skip
def test_frames_and_size_are_known_before_crops_are_drawn(tmp_path: Path, suffix: str, codec: str):
    path = write_video(tmp_path / f"a.{suffix}", smooth_frames(12), codec=codec)
    with open_video(path) as video:
        index = video.index
        assert (len(index), index.height, index.width) == (12, 96, 128)
        video.read_crops([Crop([11, 0], None, (32, 32))])
        assert video.index is index


@pytest.mark.parametrize("numbers", [[], [30], [-1, 3]])
def test_frames_outside_the_video_are_refused(waves: Path, numbers: list[int]):
    with pytest.raises(VideoError, match=r"waves.mp4: .* of a video of 30 frames"):
        read_crops(waves, [Crop(numbers, None, (8, 8))])


def turned(path: Path, degrees: int, flip: str = "", frames: int = 12, **options: str) -> Path:
    """Write a file whose frames are shown turned counterclockwise and then mirrored."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10", "bf": "2", **options})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuv420p"
        stream.set_display_rotation(degrees, hflip=flip == "across", vflip=flip == "down")
        for image in smooth_frames(frames, 48, 80):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


FLIPS: dict[str, tuple[int, ...]] = {"": (), "across": (1,), "down": (0,)}  # which axes of (H, W)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", FLIPS)
def test_frames_are_turned_and_mirrored_as_the_file_specifies(tmp_path: Path, degrees: int, flip: str):
    path = turned(tmp_path / "a.mp4", degrees, flip)
    stored = [frame.to_ndarray(format="rgb24") for frame in decode(path)]
    expected = np.stack([np.flip(np.rot90(frame, degrees // 90), FLIPS[flip]) for frame in stored])
    with open_video(path) as video:
        np.testing.assert_array_equal(video.read([7, 2]).permute(0, 2, 3, 1).numpy(), expected[[7, 2]])
        assert (video.index.height, video.index.width) == expected.shape[1:3]
    index = index_of(path)
    assert (index.height, index.width) == expected.shape[1:3]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_the_size_is_that_of_the_shown_frames_before_any_is_read(tmp_path: Path, name: str):
    for degrees, size in ((0, (48, 80)), (90, (80, 48)), (180, (48, 80)), (270, (80, 48))):
        with open_video(turned(tmp_path / name, degrees)) as video:
            assert video.index.size == size, degrees
            (clip,) = video.read_crops([Crop([9, 2], None, size)])
            assert clip.shape == (2, 3, *size), degrees


def test_a_turned_video_of_open_groups_is_read_anywhere(tmp_path: Path):
    path = turned(
        tmp_path / "a.mp4", 90, frames=40, g="12", **{"x264-params": "open-gop=1:scenecut=0:b-adapt=0"}
    )
    truth = [np.rot90(frame.to_ndarray(format="rgb24")) for frame in decode(path)]
    for first in range(0, 40 - 8, 3):
        numbers = range(first, first + 8, 2)
        with open_video(path) as video:
            (clip,) = video.read_crops([Crop(numbers, None, (80, 48))])
        for frame, number in zip(clip, numbers, strict=True):
            error = frame.permute(1, 2, 0).numpy().astype(int) - truth[number]
            assert np.abs(error).mean() < 3  # another frame's is above 10


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", FLIPS)
def test_boxes_are_of_the_frame_as_shown(tmp_path: Path, degrees: int, flip: str):
    path = turned(tmp_path / "a.mp4", degrees, flip)
    shown = torch.rot90(exact_rgb(decode(path)[7], BT601, full=False), degrees // 90, (1, 2))
    shown = shown.flip([axis + 1 for axis in FLIPS[flip]])
    crop = Crop([7], Box(6, 3, 36, 41), (30, 26), flip=True)
    index = index_of(path)
    part, whole = read_crops(path, [crop, Crop([7], None, (index.height, index.width))])
    assert whole.shape[-2:] == shown.shape[-2:]
    assert (whole[0] - shown).abs().mean() < 1.0
    assert (part[0] - exact_crop(shown, crop)).abs().mean() < 1.0


def test_a_box_outside_the_frame_is_named_with_the_size_of_the_frame(waves: Path, tmp_path: Path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(2):
        Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(images / f"{number}.png")
    boxes = ((0, 0, 97, 10), (0, 0, 10, 129), (90, 0, 10, 10), (0, 120, 8, 9), (-1, 0, 8, 8), (0, -1, 8, 8),
             (0, 0, 0, 8), (0, 0, 8, -1), (2**40, 0, 8, 8))  # fmt: skip
    for path in (waves, images):
        for box in boxes:
            for scaling in get_args(Scaling):
                with pytest.raises(VideoError) as caught:
                    read_crops(path, [Crop([0], None, (8, 8)), Crop([0], Box(*box), (8, 8), scaling=scaling)])
                message = str(caught.value)
                assert message.startswith(f"{path}: "), box
                assert "128x96" in message, box
                assert str(box) in message, box
    for size in ((0, 8), (8, -1), (2**40, 8)):
        with pytest.raises(UserError, match="must be between 1"):
            Crop([0], None, size)
