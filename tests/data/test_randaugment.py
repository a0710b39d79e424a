"""RandAugment, compared frame by frame with Pillow and numpy, and with the published probabilities."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from tests.data.binomial import within
from tubelet.data.randaugment import OPERATIONS, RandAugment, parse_policy, shear_x, translate_x
from tubelet.errors import UserError

FILL = (128, 128, 128)
Frame = Image.Image


def clip_of(height: int = 45, width: int = 60, frames: int = 6, seed: int = 0) -> torch.Tensor:
    """Smooth frames of all brightnesses, all different."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(frames, 3, 6, 8, generator=generator) * 300 - 20
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return smooth.clamp(0, 255).to(torch.uint8)


def by_frame(clip: torch.Tensor, change: Callable[[Frame], Frame]) -> np.ndarray:
    """Change each frame with Pillow: (T, C, H, W)."""
    frames = [change(Image.fromarray(frame.permute(1, 2, 0).numpy())) for frame in clip]
    return np.stack([np.asarray(frame) for frame in frames]).transpose(0, 3, 1, 2).astype(int)


def affine(*matrix: float) -> Callable[[Frame], Frame]:
    return lambda frame: frame.transform(
        frame.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=FILL
    )


def lookup(table: Callable[[int], int]) -> Callable[[Frame], Frame]:
    return lambda frame: frame.point([table(value) for value in range(256)] * 3)


def truth(name: str, m: float, sign: int) -> Callable[[Frame], Frame]:
    """The published operations with Pillow, and the published maps from strength to argument."""
    factor = 1 + sign * m / 10 * 0.9
    match name:
        case "auto_contrast":
            return ImageOps.autocontrast
        case "equalize":
            return ImageOps.equalize
        case "invert":
            return ImageOps.invert
        case "posterize":
            dropped = 8 - (4 - int(m / 10 * 4))  # bits
            return lookup(lambda value: value >> dropped << dropped)
        case "solarize":
            return lambda frame: ImageOps.solarize(frame, 256 - int(m / 10 * 256))
        case "solarize_add":
            return lookup(lambda value: min(255, value + int(m / 10 * 110)) if value < 128 else value)
        case "color":
            return lambda frame: ImageEnhance.Color(frame).enhance(factor)
        case "contrast":
            return lambda frame: ImageEnhance.Contrast(frame).enhance(factor)
        case "brightness":
            return lambda frame: ImageEnhance.Brightness(frame).enhance(factor)
        case "sharpness":
            return lambda frame: ImageEnhance.Sharpness(frame).enhance(factor)
        case "rotate":
            return lambda frame: frame.rotate(sign * m / 10 * 30, Image.Resampling.BICUBIC, fillcolor=FILL)
        case "shear_x":
            return affine(1, sign * m / 10 * 0.3, 0, 0, 1, 0)
        case "shear_y":
            return affine(1, 0, 0, sign * m / 10 * 0.3, 1, 0)
        case "translate_x":
            return lambda frame: affine(1, 0, sign * m / 10 * 0.45 * frame.width, 0, 1, 0)(frame)
        case "translate_y":
            return lambda frame: affine(1, 0, 0, 0, 1, sign * m / 10 * 0.45 * frame.height)(frame)
    raise AssertionError(name)


EXACT = {"auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add"}
EXACT |= {"color", "contrast", "brightness", "sharpness"}
WARPS = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}


def test_there_are_the_fifteen_operations_that_grow():
    assert set(OPERATIONS) == EXACT | WARPS
    assert len(OPERATIONS) == 15


STRENGTHS = [(m, sign) for m in (0.3, 5.0, 7.4, 10.0) for sign in (1, -1)]


def test_operations_on_colors_are_pillows():
    clip = clip_of()
    for name in sorted(EXACT):
        for m, sign in STRENGTHS:
            out = OPERATIONS[name](clip, m, sign, FILL)
            assert out.dtype == torch.uint8
            assert np.array_equal(out.numpy(), by_frame(clip, truth(name, m, sign))), (name, m, sign)


def test_warps_are_pillows_up_to_rounding_and_kernel():
    clip = clip_of()
    for name in sorted(WARPS):
        for m, sign in STRENGTHS:
            out = OPERATIONS[name](clip, m, sign, FILL)
            error = np.abs(out.numpy().astype(int) - by_frame(clip, truth(name, m, sign)))
            assert out.dtype == torch.uint8
            # Rounding down instead of to the nearest makes half a level.
            assert error.mean() < 0.8, (name, m, sign)
            # A pixel just at the frame's edge may be in or out.
            assert (error > 5).mean() < 0.002, (name, m, sign)


def test_operations_of_zero_strength_change_nothing():
    clip = clip_of()
    for name in (EXACT | WARPS) - {"auto_contrast", "equalize", "invert", "posterize"}:
        assert (OPERATIONS[name](clip, 0.0, 1, FILL).int() - clip.int()).abs().max() <= 0, name


def test_full_strength_posterizes_to_black_and_solarizes_to_the_negative():
    clip = clip_of()
    assert OPERATIONS["posterize"](clip, 10.0, 1, FILL).max() == 0
    assert torch.equal(OPERATIONS["solarize"](clip, 10.0, 1, FILL), 255 - clip)


def test_a_translation_by_whole_pixels_moves_them_and_fills_the_rest():
    clip = clip_of(height=40, width=80)
    out = translate_x(clip, 10 / 4.5, 1, (9, 8, 7))  # 0.045 * 10 / 4.5 = a tenth: 8 pixels to the left
    assert torch.equal(out[..., :-8], clip[..., 8:])
    assert all((out[:, channel, :, -8:] == value).all() for channel, value in enumerate((9, 8, 7)))


def test_a_shear_shifts_each_row_by_its_y_coordinate():
    clip = torch.zeros(2, 3, 40, 120, dtype=torch.uint8)
    clip[..., 60:] = 200
    out = shear_x(clip, 10.0, -1, (0, 0, 0))  # row y moves right by 0.3 * (y + 1/2)
    edges = (out[0, 0] > 100).int().argmax(1)
    expected = 60 + 0.3 * (torch.arange(40) + 0.5)
    assert (edges - expected).abs().max() <= 0.5 + 1e-3


def test_rotation_is_counterclockwise():
    """A dot right of the center rises when it is rotated counterclockwise."""
    clip = torch.zeros(1, 3, 61, 61, dtype=torch.uint8)
    clip[..., 29:32, 49:52] = 255
    out = OPERATIONS["rotate"](clip, 10.0, 1, (0, 0, 0))[0, 0].float()
    position = torch.arange(61).float()
    y, x = (out.sum(1) * position).sum() / out.sum(), (out.sum(0) * position).sum() / out.sum()
    assert (float(y), float(x)) == pytest.approx((30 - 20 * 0.5, 30 + 20 * 0.75**0.5), abs=0.2)


# ------------------------------------------------------------------------------------------- the policy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("rand-m7-n4-mstd0.5-inc1", (7, 4, 0.5)),
        ("rand-m7-mstd0.5-inc1", (7, 2, 0.5)),
        ("rand-m9-mstd0.5-inc1", (9, 2, 0.5)),
        ("rand-inc1-n1-m10", (10, 1, 0.0)),
    ],
)
def test_the_published_notation_is_read(text: str, policy: tuple[int, int, float]):
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write one like rand-"),
        ("augmix-m3", "write one like rand-"),
        ("rand-n2-inc1", "write one like rand-"),
        ("rand-m7-m8-inc1", "write one like rand-"),
        ("rand-m7-x2-inc1", "write one like rand-"),
        ("rand-m7.5-inc1", "write one like rand-"),
        ("rand-m7-n4-mstd0.5", "must end in -inc1"),
        ("rand-m7-inc0", "must end in -inc1"),
        ("rand-m11-inc1", r"\bm must"),
        ("rand-m7-n0-inc1", r"\bn must"),
    ],
)
def test_other_texts_are_refused(text: str, message: str):
    with pytest.raises(UserError, match=rf"^policy '{text}'.*{message}"):
        RandAugment(policy=text)


def test_a_fill_that_is_not_a_color_is_refused():
    with pytest.raises(UserError, match=r"^fill .*256"):
        RandAugment(fill=(0, 0, 256))


# -------------------------------------------------------------------------------------- what is drawn


def test_operations_signs_and_strengths_have_the_published_distribution():
    rng = np.random.default_rng(0)
    trials = 4000
    draws = [RandAugment(policy="rand-m7-n4-mstd0.5-inc1").draw(rng) for _ in range(trials)]
    sizes = Counter(len(drawn) for drawn in draws)
    for size, probability in enumerate(
        (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
    ):  # 4 choose size, at one half
        assert within(sizes[size], trials, probability)
    every = [one for drawn in draws for one in drawn]
    for name in OPERATIONS:
        assert within(sum(one[0] == name for one in every), len(every), 1 / 15)
    assert within(sum(one[2] == 1 for one in every), len(every), 1 / 2)
    strengths = np.array([one[1] for one in every])
    assert strengths.mean() == pytest.approx(7, abs=5 * 0.5 / len(every) ** 0.5)
    assert strengths.std() == pytest.approx(0.5, rel=0.05)
    assert within(int((strengths > 7.5).sum()), len(every), 0.1587)  # above one standard deviation
    twice = sum(len({one[0] for one in drawn}) < len(drawn) for drawn in draws)
    assert twice > 0  # with replacement


def test_a_strength_never_leaves_its_range():
    rng = np.random.default_rng(0)
    for m in (0, 10):
        policy = RandAugment(policy=f"rand-m{m}-n2-mstd0.5-inc1")
        strengths = np.array([one[1] for _ in range(500) for one in policy.draw(rng)])
        assert strengths.min() >= 0
        assert strengths.max() <= 10
        assert within(int((strengths == m).sum()), len(strengths), 0.5)


def test_without_a_standard_deviation_every_strength_is_the_magnitude():
    rng = np.random.default_rng(0)
    policy = RandAugment(policy="rand-m6-inc1")
    assert {one[1] for _ in range(100) for one in policy.draw(rng)} == {6.0}


def test_all_frames_are_changed_in_the_same_way_however_many_there_are():
    still = clip_of(frames=1)
    for seed in range(30):
        out = RandAugment()(still.expand(7, -1, -1, -1), np.random.default_rng(seed))
        single = RandAugment()(still, np.random.default_rng(seed))
        assert out.shape == (7, 3, 45, 60)
        assert out.dtype == torch.uint8
        assert all(torch.equal(frame, single[0]) for frame in out)


def test_the_operations_follow_one_another():
    clip = clip_of()
    for seed in range(60):
        drawn = RandAugment().draw(np.random.default_rng(seed))
        if len(drawn) < 2 or any(name in WARPS or name == "auto_contrast" for name, _, _ in drawn):
            continue
        expected = clip
        for name, m, sign in drawn:
            changed = by_frame(expected, truth(name, m, sign))
            expected = torch.from_numpy(changed.astype(np.uint8))
        assert torch.equal(RandAugment()(clip, np.random.default_rng(seed)), expected)


def test_a_change_follows_from_the_generator_and_leaves_the_given_clip_unchanged():
    clip = clip_of()
    before = clip.clone()
    outs = [RandAugment()(clip, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert torch.equal(clip, before)
