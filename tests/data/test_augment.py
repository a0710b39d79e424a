"""Crops, sizes and flips, compared with Pillow and with counts made by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tubelet.data.augment import (
    AnyCrop,
    Augment,
    MultiScaleCrop,
    RandomErasing,
    ResizedCrop,
    mirrored_classes,
)
from tubelet.data.randaugment import RandAugment
from tubelet.errors import UserError
from tubelet.video.crop import Box, crop_resize, spread_crops

CROPS: list[AnyCrop] = [MultiScaleCrop(), ResizedCrop(), ResizedCrop(scale=(0.08, 1.0), ratio=(0.3, 3.3))]


def clip_of(height: int, width: int, frames: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(frames, 3, height // 4 + 2, width // 4 + 2, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return smooth.to(torch.uint8)


def coordinates(height: int, width: int, frames: int = 2) -> torch.Tensor:
    """A clip whose pixels are their coordinates: (row, column, frame)."""
    frame_row_column = torch.stack(
        torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij"), 1
    )
    return frame_row_column[:, [1, 2, 0]].to(torch.uint8)


@pytest.mark.parametrize("crop", CROPS, ids=str)
@given(st.integers(4, 400), st.integers(4, 400), st.integers(8, 256), st.integers(0, 99))
def test_boxes_are_inside_the_frame(crop: AnyCrop, height: int, width: int, size: int, seed: int):
    box = crop.box(height, width, size, np.random.default_rng(seed))
    assert box.height >= 1
    assert box.width >= 1
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width


def multi_scale_boxes(height: int, width: int, size: int) -> set[Box]:
    rng = np.random.default_rng(0)
    return {MultiScaleCrop().box(height, width, size, rng) for _ in range(4000)}


def test_multi_scale_crops_have_ten_pairs_of_sides():
    sides = [256, 224, 192, 168]  # int(256 * s) for 1, .875, .75 and .66
    expected = {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1}
    assert len(expected) == 10
    assert {(box.height, box.width) for box in multi_scale_boxes(256, 340, 224)} == expected


def test_multi_scale_crops_have_thirteen_positions():
    quarters = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0)]
    quarters += [(1, 1), (3, 1), (1, 3), (3, 3)]
    down, right = (256 - 168) // 4, (340 - 192) // 4
    positions = {
        (box.top, box.left)
        for box in multi_scale_boxes(256, 340, 224)
        if (box.height, box.width) == (168, 192)
    }
    assert positions == {(y * down, x * right) for x, y in quarters}


@pytest.mark.parametrize(
    ("short", "sides"), [(259, {259, 224, 194, 170}), (260, {260, 227, 195, 171})], ids=["226", "227"]
)
def test_a_side_within_two_pixels_of_the_output_is_rounded_to_it(short: int, sides: set[int]):
    assert {box.height for box in multi_scale_boxes(short, 300, 224)} == sides


def test_resized_crops_keep_to_their_area_and_aspect():
    rng = np.random.default_rng(0)
    boxes = [ResizedCrop(scale=(0.5, 1.0), ratio=(0.75, 4 / 3)).box(240, 320, 224, rng) for _ in range(500)]
    areas = np.array([box.height * box.width / (240 * 320) for box in boxes])
    aspects = np.array([box.width / box.height for box in boxes])
    assert 0.49 < areas.min() < 0.55
    assert 0.9 < areas.max() <= 1
    assert 0.74 < aspects.min() < 0.8
    assert 1.2 < aspects.max() < 1.35


def test_a_frame_too_long_for_any_aspect_gets_the_central_crop():
    box = ResizedCrop(scale=(1.0, 1.0)).box(30, 300, 224, np.random.default_rng(0))
    assert box == Box(0, 130, 30, 40)


@pytest.mark.parametrize("size", [64, 112, 224])
@pytest.mark.parametrize(("height", "width"), [(120, 160), (160, 120), (300, 300)])
def test_resizing_agrees_with_pillow(height: int, width: int, size: int):
    clip = clip_of(height, width)
    box = Box(8, 4, height - 20, width - 10)
    ours = crop_resize(clip, box, (size, size))
    assert ours.shape == (3, 3, size, size)
    assert ours.dtype == torch.uint8
    for frame, out in zip(clip, ours, strict=True):
        image = Image.fromarray(frame.permute(1, 2, 0).numpy())
        part = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
        truth = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(out.permute(1, 2, 0).numpy() - truth).max() <= 2


def test_a_crop_of_the_right_size_is_only_cut():
    clip = coordinates(60, 80)
    out = crop_resize(clip, Box(7, 11, 32, 32), (32, 32))
    assert torch.equal(out, clip[..., 7:39, 11:43])
    assert out.is_contiguous()


@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_all_frames_get_the_same_crop(crop: AnyCrop):
    clip = clip_of(70, 90, frames=1).expand(5, -1, -1, -1)
    for seed in range(5):
        out = Augment(crop=crop, flip=0.5)(clip, 48, np.random.default_rng(seed))
        assert out.shape == (5, 3, 48, 48)
        assert all(torch.equal(frame, out[0]) for frame in out)


def test_augmentation_follows_from_the_generator():
    clip = clip_of(70, 90)
    first, again, other = (Augment(flip=0.5)(clip, 48, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_flip_mirrors_left_and_right():
    clip = clip_of(64, 64)
    plain, flipped = (Augment(flip=flip)(clip, 64, np.random.default_rng(0)) for flip in (0.0, 1.0))
    assert torch.equal(flipped, plain.flip(-1))
    assert not torch.equal(flipped, plain)


def test_flips_have_the_given_probability():
    clip = coordinates(32, 32, frames=1)
    rng = np.random.default_rng(0)
    flips = [
        bool(out[0, 1, 0, 0] > out[0, 1, 0, -1])
        for out in (Augment(flip=0.25)(clip, 16, rng) for _ in range(400))
    ]
    assert 60 < sum(flips) < 140


def test_landscape_crops_go_from_left_to_right():
    crops = spread_crops(coordinates(40, 100), 3)
    assert crops.shape == (3, 2, 3, 40, 40)
    assert [int(crop[0, 1, 0, 0]) for crop in crops] == [0, 30, 60]
    assert all(int(crop[0, 0, 0, 0]) == 0 for crop in crops)


def test_portrait_crops_go_from_top_to_bottom():
    crops = spread_crops(coordinates(100, 40), 3)
    assert [int(crop[0, 0, 0, 0]) for crop in crops] == [0, 30, 60]
    assert all(int(crop[0, 1, 0, 0]) == 0 for crop in crops)


def test_crops_of_a_square_are_the_whole():
    clip = coordinates(40, 40)
    assert all(torch.equal(crop, clip) for crop in spread_crops(clip, 3))


@pytest.mark.parametrize(("height", "width"), [(40, 100), (100, 40), (40, 41)])
def test_a_single_crop_is_central(height: int, width: int):
    crop = spread_crops(coordinates(height, width), 1)[0, 0]
    assert (int(crop[0, 0, 0]), int(crop[1, 0, 0])) == ((height - 40) // 2, (width - 40) // 2)


# ------------------------------------------------------------------------------------- fine-tuning

SIDES = ("moving left", "moving right", "turning left", "opening")
MIRRORED = mirrored_classes(SIDES)


def left_to_right() -> torch.Tensor:
    return coordinates(32, 32, frames=2)


def test_a_flip_swaps_the_labels_if_configured():
    augment = Augment(flip=1.0, flip_labels="swap")
    for classes, expected in (((0,), (1,)), ((1,), (0,)), ((3,), (3,)), ((3, 0), (3, 1)), ((0, 1), (1, 0))):
        clip, found = augment.labeled(left_to_right(), 32, np.random.default_rng(0), classes, MIRRORED)
        assert found == expected
        assert clip[0, 1, 0, 0] > clip[0, 1, 0, -1]


@pytest.mark.parametrize("classes", [(2,), (0, 2), (2, 3)])
def test_a_clip_of_a_class_without_counterpart_is_not_flipped(classes: tuple[int, ...]):
    augment = Augment(flip=1.0, flip_labels="swap")
    clip, found = augment.labeled(left_to_right(), 32, np.random.default_rng(0), classes, MIRRORED)
    assert found == classes
    assert clip[0, 1, 0, 0] < clip[0, 1, 0, -1]


def test_a_plain_flip_keeps_the_label():
    augment = Augment(flip=1.0)
    clip, found = augment.labeled(left_to_right(), 32, np.random.default_rng(0), (2,))
    assert found == (2,)
    assert clip[0, 1, 0, 0] > clip[0, 1, 0, -1]


def test_a_clip_without_label_is_flipped_and_has_none():
    augment = Augment(flip=1.0, flip_labels="swap")
    clip, found = augment.labeled(left_to_right(), 32, np.random.default_rng(0), (), MIRRORED)
    assert found == ()
    assert clip[0, 1, 0, 0] > clip[0, 1, 0, -1]


def test_labels_swap_exactly_as_often_as_clips_are_flipped():
    augment = Augment(flip=0.5, flip_labels="swap")
    rng = np.random.default_rng(0)
    swapped = 0
    for _ in range(400):
        clip, classes = augment.labeled(left_to_right(), 16, rng, (0,), MIRRORED)
        assert (classes == (1,)) == bool(clip[0, 1, 0, 0] > clip[0, 1, 0, -1])
        swapped += classes == (1,)
    assert abs(swapped - 200) < 5 * (400 * 0.25) ** 0.5


FULL = Augment(
    randaugment=RandAugment(),
    crop=ResizedCrop(scale=(0.08, 1.0)),
    flip=0.5,
    erasing=RandomErasing(probability=0.5),
)


def test_all_augmentations_give_clips_of_the_size_and_follow_from_the_generator():
    clip = clip_of(70, 90)
    outs = [FULL(clip, 48, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert outs[0].shape == (3, 3, 48, 48)
    assert outs[0].dtype == torch.uint8
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert torch.equal(clip, clip_of(70, 90))


@pytest.mark.parametrize("cropped", [False, True])
def test_augmentation_is_its_parts_in_order(cropped: bool):
    augment = replace(FULL, randaugment=RandAugment(cropped=cropped))
    assert augment.whole_frames is not cropped
    assert augment.randaugment is not None
    assert augment.erasing is not None
    clip = clip_of(70, 90)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        expected = clip if cropped else augment.randaugment(clip, rng)
        box, flip, _ = augment.draw_crop(70, 90, 48, rng)
        expected = crop_resize(expected, box, (48, 48))
        expected = expected.flip(-1) if flip else expected
        expected = augment.randaugment(expected, rng) if cropped else expected
        expected = augment.erasing(expected, rng)
        assert torch.equal(augment(clip, 48, np.random.default_rng(seed)), expected)


@pytest.mark.parametrize(
    "wrong",
    [{"scale": (1.0, 0.1)}, {"scale": (2.0, 3.0)}, {"scale": (0.0, 1.0)}, {"ratio": (0.0, 1.0)},
     {"ratio": (2.0, 1.0)}],
)  # fmt: skip
def test_scales_and_ratios_out_of_range_are_refused(wrong: dict[str, tuple[float, float]]):
    (name,) = wrong
    with pytest.raises(UserError, match=rf"^{name} .*found \(.*\)"):
        ResizedCrop(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, 1.5)])
def test_candidate_scales_out_of_range_are_refused(scales: tuple[float, ...]):
    with pytest.raises(UserError, match=r"^scales .*found \("):
        MultiScaleCrop(scales=scales)


@pytest.mark.parametrize("flip", [-0.1, 1.1])
def test_a_flip_probability_out_of_range_is_refused(flip: float):
    with pytest.raises(ValueError, match=rf"^flip .*found {flip}"):
        Augment(flip=flip)
