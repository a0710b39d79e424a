"""Random erasing: how often, where, how large and with what noise."""

import numpy as np
import pytest
import torch

from tubelet.data.augment import RandomErasing
from tubelet.errors import UserError

SIZE = 64
Box = tuple[int, int, int, int]


def erased(clip: torch.Tensor, out: torch.Tensor) -> Box:
    """The box (top, left, height, width) that holds all changes."""
    rows = (out != clip).any(0).any(0).any(1).nonzero()
    columns = (out != clip).any(0).any(0).any(0).nonzero()
    top, left = int(rows.min()), int(columns.min())
    return top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1


def flat(frames: int = 3, level: int = 255) -> torch.Tensor:
    return torch.full((frames, 3, SIZE, SIZE), level, dtype=torch.uint8)


def boxes(count: int, erasing: RandomErasing) -> np.ndarray:
    rng = np.random.default_rng(0)
    clip = flat(frames=6)  # with 18 values a position, hardly any line of a box stays fully white
    return np.array([erased(clip, erasing(clip, rng)) for _ in range(count)])


def test_clips_are_erased_with_the_given_probability():
    rng = np.random.default_rng(0)
    clip = flat(frames=1)
    count = sum(not torch.equal(RandomErasing()(clip, rng), clip) for _ in range(2000))
    assert abs(count - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5


@pytest.mark.slow
def test_boxes_have_the_published_areas_and_aspects():
    top, left, height, width = boxes(1000, RandomErasing(probability=1)).T
    area = height * width / SIZE**2
    aspect = np.log(height / width)
    assert 0.017 < area.min() < 0.03
    assert 0.3 < area.max() < 0.34
    assert abs(area.mean() - (0.02 + 1 / 3) / 2) < 0.02
    # The longest boxes do not fit the frame and are drawn again, in both directions.
    assert np.log(1 / 0.3) - 0.15 < aspect.max() < np.log(1 / 0.3) + 0.15
    assert abs(aspect.mean()) < 0.1
    assert abs(np.quantile(aspect, 0.75) - np.log(1 / 0.3) / 2) < 0.15
    assert (top + height).max() == SIZE
    assert (left + width).max() == SIZE
    assert top.min() == left.min() == 0


@pytest.mark.slow
def test_boxes_are_anywhere_they_fit():
    top, left, height, width = boxes(1000, RandomErasing(probability=1)).T
    for start, side in ((top, height), (left, width)):
        assert abs((start / (SIZE - side)).mean() - 0.5) < 5 * (1 / 12) ** 0.5 / 1000**0.5


def test_the_box_is_the_same_in_all_frames_but_the_noise_is_not():
    clip = flat()
    out = RandomErasing(probability=1)(clip, np.random.default_rng(0))
    top, left, height, width = erased(clip, out)
    inside = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    inside[top : top + height, left : left + width] = True
    assert (out == clip)[..., ~inside].all()
    assert (out != clip)[..., inside].float().mean(-1).min() > 0.9  # every frame and channel
    assert not torch.equal(out[0], out[1])
    assert not torch.equal(out[:, 0], out[:, 1])


def test_the_noise_is_standard_normal_once_normalized():
    erasing = RandomErasing(probability=1, area=(0.9, 0.9), aspect=(1, 1))
    rng = np.random.default_rng(0)
    clip = flat(frames=40)
    out = erasing(clip, rng)
    top, left, height, width = erased(clip, out)
    pixels = out[..., top : top + height, left : left + width].double().numpy() / 255
    mean, std = (np.array(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    noise = (pixels - mean) / std
    exact = np.random.default_rng(1).standard_normal((100_000, 3))
    bounded = np.clip(exact, (0 - mean[:, 0, 0]) / std[:, 0, 0], (1 - mean[:, 0, 0]) / std[:, 0, 0])
    for channel in range(3):
        ours, theirs = noise[:, channel].ravel(), bounded[:, channel]
        assert ours.mean() == pytest.approx(theirs.mean(), abs=0.02)
        assert ours.std() == pytest.approx(theirs.std(), abs=0.02)
        fractions = np.linspace(0.05, 0.95, 19)
        assert np.abs(np.quantile(ours, fractions) - np.quantile(theirs, fractions)).max() < 0.04


def test_the_noise_has_the_given_statistics():
    gray = RandomErasing(probability=1, area=(0.9, 0.9), aspect=(1, 1), mean=(0.5,) * 3, std=(0.01,) * 3)
    out = gray(flat(), np.random.default_rng(0))
    changed = out[out != 255].float() / 255
    assert changed.mean().item() == pytest.approx(0.5, abs=0.001)
    assert changed.std().item() == pytest.approx(0.01, abs=0.001)


def test_a_box_that_never_fits_erases_nothing():
    clip = torch.zeros(2, 3, 8, 400, dtype=torch.uint8)
    tall = RandomErasing(probability=1, area=(0.3, 0.3), aspect=(3, 3))
    assert torch.equal(tall(clip, np.random.default_rng(0)), clip)


def test_erasing_follows_from_the_generator_and_leaves_the_given_clip_unchanged():
    clip = flat()
    outs = [RandomErasing(probability=1)(clip, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert outs[0].dtype == torch.uint8
    assert torch.equal(clip, flat())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": 1.5}, r"^probability .*1\.5"),
        ({"area": (0.5, 0.2)}, "^area "),
        ({"area": (0.0, 1.2)}, "^area "),
        ({"aspect": (0.0, 1.0)}, "aspect "),
        ({"aspect": (1.0, float("inf"))}, "aspect "),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str):
    with pytest.raises(UserError, match=message):
        RandomErasing(**settings)  # type: ignore[arg-type]
