"""The published samplings: their own examples, and each one's code written again the long way."""

import math
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch

from tubelet.clips import (
    AnyClip,
    DenseClip,
    FixedDurationClip,
    HuggingFaceClip,
    MARSegmentClip,
    MMAction2Clip,
    MMAction2DenseClip,
    MMAction2UniformClip,
    MMAction2UniformFramesClip,
    VideoMAEClip,
    VideoMAESegmentClip,
)

LENGTHS = [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 40, 47, 60, 61, 62, 63, 64, 65, 66, 100, 250, 300, 1001]
PUBLISHED: list[AnyClip] = [
    DenseClip(pad="before_last"),
    VideoMAEClip(),
    VideoMAESegmentClip(),
    VideoMAESegmentClip(pad="front"),
    FixedDurationClip(),
    FixedDurationClip(middle="floor"),
    MARSegmentClip(),
    MMAction2Clip(),
    MMAction2DenseClip(),
    MMAction2UniformClip(),
    MMAction2UniformFramesClip(),
    HuggingFaceClip(),
]


class Fixed(np.random.Generator):
    """A generator whose every draw is known beforehand; it records what was asked of it."""

    def __init__(self, value: Any = 0) -> None:
        super().__init__(np.random.PCG64(0))
        self.value = value
        self.asked: list[tuple[Any, ...]] = []

    def integers(self, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(args)
        return self.value

    def uniform(self, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(args)
        return self.value

    def random(self, *args: Any, **kwargs: Any) -> Any:
        return self.value


# ------------------------------------------------------------------------------------------ all of them


def test_frames_are_inside_the_video():
    for length, clip in product(LENGTHS, PUBLISHED):
        rng = np.random.default_rng(length)
        chosen = [clip.sample(length, rng, fps) for fps in (None, 12.0, 29.97, 60.0) for _ in range(10)]
        chosen += [clip.view(length, k, clips, 25.0) for clips in (1, 2, 5, 7, 10) for k in range(clips)]
        for numbers in chosen:
            assert len(numbers) == 16, (length, clip)
            assert all(type(number) is int for number in numbers), (length, clip)
            assert 0 <= min(numbers) <= max(numbers) < length, (length, clip)
            if not clip.kind.startswith("mmaction2"):
                assert numbers == sorted(numbers), (length, clip)


def test_the_same_generator_gives_the_same_clip_and_another_one_another():
    for clip in PUBLISHED:
        first, again, other = (clip.sample(500, np.random.default_rng(seed)) for seed in (5, 5, 6))
        assert first == again, clip
        assert first != other, clip


def test_views_move_forward():
    for clip in PUBLISHED:
        if clip.kind == "mmaction2_uniform_frames":
            continue  # its test frames are random
        starts = [clip.view(1000, k, 7)[0] for k in range(7)]
        assert all(a < b for a, b in pairwise(starts)), clip


def test_clips_without_frames_are_refused():
    for kind in map(type, PUBLISHED):
        with pytest.raises(ValueError, match=r"frames must be between 1 and .*found 0"):
            kind(frames=0)


def test_a_target_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="target_fps must be above 0"):
        FixedDurationClip(target_fps=0)


# ------------------------------------------------------------------------------- VideoMAE, pre-training


def pretraining_by_hand(length: int, stride: int, start: int = 0) -> list[int]:
    """Step on while the next frame is still before the last one."""
    numbers, position = [], start
    for _ in range(16):
        numbers.append(position)
        if position + stride < length - 1:
            position += stride
    return numbers


def test_videomae_pretraining_does_not_reach_the_last_frame_of_a_short_video():
    for stride in [1, 2, 4]:
        clip = DenseClip(stride=stride, pad="before_last")
        for length in range(1, 16 * stride):
            assert clip.sample(length, np.random.default_rng(0)) == pretraining_by_hand(length, stride), (
                stride
            )


def test_videomae_pretraining_takes_any_start_that_fits_in_a_longer_one():
    for stride in [1, 2, 4]:
        clip = DenseClip(stride=stride, pad="before_last")
        for length in (16 * stride, 16 * stride + 1, 100):
            rng = np.random.default_rng(0)
            found = {tuple(clip.sample(length, rng)) for _ in range(2000)}
            starts = range(length - 16 * stride + 1)
            assert found == {tuple(pretraining_by_hand(length, stride, start)) for start in starts}, stride


def test_videomae_pretraining_at_stride_1_shows_the_frame_before_the_last_one_twice():
    assert DenseClip(stride=1, pad="before_last").sample(16, np.random.default_rng(0)) == [*range(15), 14]
    assert DenseClip(stride=1).sample(16, np.random.default_rng(0)) == list(range(16))


# --------------------------------------------------------------------------------- VideoMAE on Kinetics


def test_videomae_trains_on_the_published_frames():
    rng = Fixed(64)
    assert VideoMAEClip().sample(300, rng) == [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]
    assert rng.asked == [(64, 300)]  # the end: 64 to N - 1


def test_videomae_spreads_over_a_short_video_as_published():
    expected = [0, 4, 8, 13, 17, 22, 26, 31, 35, 39, *[39] * 6]
    assert VideoMAEClip().sample(40, np.random.default_rng(0)) == expected


def videomae_by_hand(length: int, end: int) -> list[int]:
    """Fractions instead of floating point."""
    if length > 64:
        return [min(math.floor(end - 64 + Fraction(64 * k, 15)), end - 1) for k in range(16)]
    count = length // 4
    spread = [math.floor(Fraction(length * k, max(count - 1, 1))) for k in range(count)]
    return [min(position, length - 1) for position in spread + [length] * (16 - count)]


def test_videomae_trains_as_its_formula_says():
    for length in LENGTHS:
        for end in {65, 64, 99, length - 1} & set(range(64, length)) or {length}:
            assert VideoMAEClip().sample(length, Fixed(end)) == videomae_by_hand(length, end), length


def test_videomae_validates_in_the_middle():
    for length in LENGTHS:
        end = (64 + length) // 2 if length > 64 else length
        assert VideoMAEClip().view(length, 0, 1) == videomae_by_hand(length, end)


def test_videomae_tests_five_clips_at_the_published_frames():
    for length, starts in [(300, [0, 56, 116, 176, 236]), (250, [0, 44, 92, 140, 188])]:
        found = [VideoMAEClip().view(length, k, 5) for k in range(5)]
        assert found == [list(range(start, start + 64, 4)) for start in starts], (length, starts)


def test_videomae_tests_cut_clips_out_of_every_fourth_frame():
    for clips, length in product([2, 5, 7], LENGTHS):
        kept = [number for number in range(length) if number % 4 == 0]
        while len(kept) < 16:
            kept.append(kept[-1])
        for k in range(clips):
            start = k * (len(kept) - 16) // (clips - 1)
            assert VideoMAEClip().view(length, k, clips) == [kept[start + i] for i in range(16)], (
                clips,
                length,
            )


# -------------------------------------------------------------------- VideoMAE on Something-Something v2


def test_videomae_segments_are_whole_frames_wide():
    for length in [16, 17, 31, 32, 47, 250]:
        width = length // 16
        rng = np.random.default_rng(0)
        found = np.array([VideoMAESegmentClip().sample(length, rng) for _ in range(300 * min(width, 4))])
        for k in range(16):
            assert set(found[:, k]) == set(range(k * width, (k + 1) * width)), length


def test_videomae_repeats_the_first_frame_of_a_video_with_fewer_than_segments():
    for length in [1, 2, 15]:
        rng = np.random.default_rng(0)
        assert VideoMAESegmentClip().sample(length, rng) == [0] * 16, length
        led = VideoMAESegmentClip(pad="front").sample(length, rng)
        assert led[: 16 - length] == [0] * (16 - length), length
        assert led[16 - length :] == list(range(length)), length


def test_videomae_tests_two_segment_clips_at_the_published_frames():
    first, second = (VideoMAESegmentClip().view(47, k, 2) for k in range(2))
    assert first[:5] == [0, 2, 5, 8, 11]
    assert first[-1] == 44
    assert second[:5] == [1, 4, 7, 10, 13]
    assert second[-1] == 45


def test_videomae_segment_clips_are_every_other_one_of_all_positions_in_order():
    for clips, length in product([2, 3], LENGTHS):
        positions = sorted(
            math.floor(Fraction(length * j, 16 * clips) + Fraction(length * x, 16))
            for j in range(clips)
            for x in range(16)
        )
        # Powers of two divide without error; with three clips a position at a frame may be rounded either
        # way.
        for k in range(clips):
            found = VideoMAESegmentClip().view(length, k, clips)
            assert np.abs(np.array(found) - positions[k::clips]).max() <= (clips == 3), (clips, length)


def test_videomae_v2_validates_at_the_segments_middles():
    assert VideoMAESegmentClip().view(47, 0, 1) == [2 * k + 1 for k in range(16)]
    assert VideoMAESegmentClip().view(100, 0, 1) == [6 * k + 3 for k in range(16)]


# ---------------------------------------------------------------------------- MAE-ST, MAR on Kinetics


def interval_by_hand(start: Fraction, length: int, fps: Fraction, frames: int = 16) -> list[int]:
    window = frames * 4 * fps / 30
    positions = [start + (window - 1) * k / (frames - 1) for k in range(frames)]
    return [math.floor(min(max(position, Fraction(0)), Fraction(length - 1))) for position in positions]


def test_intervals_are_the_published_frames_at_thirty_a_second():
    expected = [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]
    assert FixedDurationClip().sample(300, Fixed(0.0)) == expected
    assert FixedDurationClip().sample(300, Fixed(0.0), 30.0) == expected


def test_intervals_last_equally_long_at_every_rate():
    for fps in [12, 15, 24, 25, 30, 50, 60]:
        rng = Fixed(7.3)
        found = FixedDurationClip().sample(1000, rng, float(fps))
        window = 64 * fps / 30
        assert rng.asked == [(0, pytest.approx(1000 - window))], fps
        assert found == interval_by_hand(Fraction(73, 10), 1000, Fraction(fps)), fps


def test_a_short_video_repeats_its_last_frame_in_an_interval():
    for length in LENGTHS:
        rng = Fixed(0.0)
        assert FixedDurationClip().sample(length, rng) == interval_by_hand(
            Fraction(0), length, Fraction(30)
        ), length
        assert rng.asked == [(0, max(length - 64, 0))], length


def test_interval_views_start_whole_frames_apart():
    for clips, length in product([2, 5, 7, 10], LENGTHS):
        apart = max(length - 64, 0) // (clips - 1)
        for k in range(clips):
            found = FixedDurationClip().view(length, k, clips, 30.0)
            assert found == interval_by_hand(Fraction(k * apart), length, Fraction(30)), (clips, length)


def test_ten_and_seven_interval_views_of_a_kinetics_video():
    assert [FixedDurationClip().view(300, k, 10)[0] for k in range(10)] == [26 * k for k in range(10)]
    assert [FixedDurationClip().view(300, k, 7)[0] for k in range(7)] == [39 * k for k in range(7)]


def test_interval_views_of_another_rate_leave_its_own_slack():
    # 25 frames a second: a window of 53.33 frames, so 196.67 are left and three steps of 65 fit.
    assert [FixedDurationClip().view(250, k, 4, 25.0)[0] for k in range(4)] == [0, 65, 130, 195]


def test_a_single_interval_view_is_in_the_middle():
    for length in LENGTHS:
        middle = Fraction(max(length - 64, 0), 2)
        assert FixedDurationClip().view(length, 0, 1) == interval_by_hand(middle, length, Fraction(30))
        whole = Fraction(math.floor(middle))
        clip = FixedDurationClip(middle="floor")
        assert clip.view(length, 0, 1) == interval_by_hand(whole, length, Fraction(30))
    assert FixedDurationClip(middle="exact").view(301, 0, 1)[3] == 131  # 118.5 + 12.6
    assert FixedDurationClip(middle="floor").view(301, 0, 1)[3] == 130
    assert FixedDurationClip(middle="floor").view(250, 0, 1, 25.0)[0] == 98  # slack 196.67


def test_interval_starts_spread_evenly_over_the_slack():
    rng = np.random.default_rng(0)
    starts = np.array([FixedDurationClip().sample(164, rng, 30.0)[0] for _ in range(4000)])
    counts = np.bincount(starts // 10, minlength=10)
    assert counts.sum() == 4000
    assert counts[10:].sum() == 0
    assert np.abs(counts[:10] - 400).max() < 5 * (4000 * 0.1 * 0.9) ** 0.5


# ---------------------------------------------------------------------- MAR on Something-Something v2


def mar_by_hand(length: int, part: Fraction) -> list[int]:
    positions = [Fraction(length * k, 16) + part * Fraction(length, 16) for k in range(16)]
    return [round(min(position, Fraction(length - 1))) for position in positions]


def test_mar_segments_are_the_published_frames():
    clip = MARSegmentClip()
    assert clip.view(40, 0, 1) == [1, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 29, 31, 34, 36, 39]
    assert clip.view(40, 0, 2)[:6] == [0, 2, 5, 8, 10, 12]
    assert clip.view(40, 1, 2)[:5] == [2, 5, 8, 10, 12]
    assert clip.view(40, 1, 2)[-2:] == [38, 39]


def test_mar_views_go_from_the_segments_starts_to_their_ends():
    for length in LENGTHS:
        clip = MARSegmentClip()
        assert clip.view(length, 0, 1) == mar_by_hand(length, Fraction(1, 2)), length
        for k in range(3):
            assert clip.view(length, k, 3) == mar_by_hand(length, Fraction(k, 2)), length


def test_mar_draws_a_frame_in_each_segment():
    parts = np.random.default_rng(3).random(16)
    for length in LENGTHS:
        expected = [mar_by_hand(length, Fraction(float(part)))[k] for k, part in enumerate(parts)]
        assert MARSegmentClip().sample(length, Fixed(parts)) == expected


# -------------------------------------------------------------------------------------------- MMAction2


def test_mmaction2_starts_at_the_published_frames():
    assert [MMAction2Clip().view(300, k, 5)[0] for k in range(5)] == [0, 60, 120, 179, 239]


def test_mmaction2_continues_at_the_beginning():
    for clips, length in product([1, 2, 5], LENGTHS):
        slack = max(length - 61, 0)
        for k in range(clips):
            start = slack // 2 if clips == 1 else round(Fraction(k * slack, clips - 1))
            whole = list(range(length)) * 70
            assert MMAction2Clip().view(length, k, clips) == whole[start : start + 61 : 4], (clips, length)


def test_mmaction2_trains_where_frames_times_stride_fit():
    rng = np.random.default_rng(0)
    assert {MMAction2Clip().sample(70, rng)[0] for _ in range(300)} == set(range(7))
    assert {MMAction2Clip().sample(64, rng)[0] for _ in range(30)} == {0}


def test_published_floating_point_is_kept_where_it_decides():
    """Torch's linspace in single precision is what MAE-ST and MAR run."""
    for start in range(0, 400, 7):
        published = torch.linspace(start, start + 63, 16).clamp(0, 999).long().tolist()
        assert FixedDurationClip().sample(1000, Fixed(float(start))) == published


def test_mmaction2_dense_clips_start_where_its_range_fits():
    clip = MMAction2DenseClip()
    rng = np.random.default_rng(0)
    for length, last in [(1, 0), (40, 0), (64, 0), (65, 0), (66, 1), (80, 15)]:
        drawn = [clip.sample(length, rng) for _ in range(400)]
        assert {numbers[0] for numbers in drawn} == set(range(last + 1)), length  # never length - 64
        assert all(n == [(n[0] + 4 * k) % length for k in range(16)] for n in drawn), length


def test_mmaction2_dense_tests_ten_positions():
    for length, positions in product(LENGTHS, [1, 2, 10]):
        slack = max(length - 64, 0)
        for k in range(positions):
            start = k * slack // (positions - 1) if positions > 1 else 0
            expected = [(start + 4 * i) % length for i in range(16)]
            found = MMAction2DenseClip().view(length, k, positions)
            assert found == expected, (length, positions)
    assert [MMAction2DenseClip().view(300, k, 10)[0] for k in range(10)] == [
        0, 26, 52, 78, 104, 131, 157, 183, 209, 236,
    ]  # fmt: skip


def uniform_borders_by_hand(length: int) -> list[int]:
    return [round(Fraction((length - 1) * k, 16)) for k in range(17)]


def test_mmaction2_uniform_draws_a_frame_of_each_segment_with_its_borders():
    for length in [1, 2, 15, 16, 17, 40, 66]:
        borders = uniform_borders_by_hand(length)
        rng = np.random.default_rng(0)
        found = np.array([MMAction2UniformClip().sample(length, rng) for _ in range(200)])
        for k in range(16):
            assert set(found[:, k]) == set(range(borders[k], borders[k + 1] + 1)), (length, k)


def test_mmaction2_uniform_tests_between_the_borders():
    for length, clips in product(LENGTHS, [1, 2, 3]):
        borders = uniform_borders_by_hand(length)
        for k in range(clips):
            offset = math.floor(Fraction((length - 1) * (k + 1), 16 * (clips + 1)))
            found = MMAction2UniformClip().view(length, k, clips)
            assert found == [border + offset for border in borders[:16]], (length, clips)
    assert MMAction2UniformClip().view(33, 0, 1) == list(range(1, 33, 2))


def test_mmaction2_uniform_frames_take_one_frame_of_each_segment():
    clip = MMAction2UniformFramesClip()
    for length in [32, 33, 100, 300]:
        rng = np.random.default_rng(0)
        found = np.array([clip.sample(length, rng) for _ in range(400)])
        for k in range(16):
            first, end = length * k // 16, length * (k + 1) // 16
            assert set(found[:, k]) == set(range(first, end)), (length, k)


def test_mmaction2_uniform_frames_leave_out_frames_of_a_short_video():
    clip = MMAction2UniformFramesClip()
    rng = np.random.default_rng(0)
    for length in [16, 17, 24, 31]:
        drawn = [clip.sample(length, rng) for _ in range(300)]
        # A gap is at most one frame, before the first, between two, or after the last.
        assert all(b - a in (1, 2) for numbers in drawn for a, b in pairwise(numbers)), length
        assert all(numbers[0] <= 1 and numbers[-1] >= length - 2 for numbers in drawn), length
        assert (
            len({tuple(numbers) for numbers in drawn}) == min(math.comb(17, length - 16), 300) or length > 17
        )


def test_mmaction2_uniform_frames_repeat_a_video_with_fewer_frames():
    clip = MMAction2UniformFramesClip()
    rng = np.random.default_rng(0)
    drawn = [clip.sample(5, rng) for _ in range(100)]
    assert {tuple(numbers) for numbers in drawn} == {
        tuple((start + k) % 5 for k in range(16)) for start in range(5)
    }
    assert [clip.view(5, k, 2)[0] for k in range(2)] == [0, 2]
    assert [clip.view(2, k, 3)[0] for k in range(3)] == [0, 1, 0]


def test_mmaction2_uniform_frames_are_those_of_numpys_global_seed_in_tests():
    for length in [20, 100, 301]:
        np.random.seed(255)
        for k in range(3):
            if length < 32:
                left_out = np.random.choice(17, length - 16, replace=False)
                expected = [i + sum(int(gap) <= i for gap in left_out) for i in range(16)]
            else:
                starts = [length * i // 16 for i in range(17)]
                drawn = np.random.randint([b - a for a, b in pairwise(starts)])
                expected = [start + int(offset) for start, offset in zip(starts, drawn, strict=False)]
            assert MMAction2UniformFramesClip().view(length, k, 3) == expected, (length, k)
    assert MMAction2UniformFramesClip(seed=1).view(300, 0, 1) != MMAction2UniformFramesClip().view(300, 0, 1)


# ----------------------------------------------------------------------------------------- Hugging Face


@pytest.mark.slow
def test_hugging_face_takes_the_first_frame_of_each_segment():
    from transformers import VideoMAEVideoProcessor
    from transformers.video_utils import VideoMetadata

    processor = VideoMAEVideoProcessor()
    for length, frames in product([16, 17, 40, 100, 300], [8, 12, 16]):
        metadata = VideoMetadata(total_num_frames=length)
        theirs = processor.sample_frames(metadata, num_frames=frames)
        assert HuggingFaceClip(frames=frames).view(length, 0, 1) == theirs.tolist(), length
    assert HuggingFaceClip().view(5, 0, 1) == [5 * k // 16 for k in range(16)]
