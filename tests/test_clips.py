"""Which frames make a clip."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.clips import AnyClip, DenseClip, SegmentClip, Views

LENGTHS = [1, 2, 15, 16, 17, 40, 63, 64, 65, 300, 1000]
CLIPS: list[AnyClip] = [DenseClip(), DenseClip(stride=2), DenseClip(frames=8, stride=1), SegmentClip()]


def test_a_dense_clip_steps_by_the_stride_from_its_start():
    start, *rest = DenseClip(frames=16, stride=4).sample(300, np.random.default_rng(0))
    assert rest == list(range(start + 4, start + 61, 4))


def test_a_dense_clip_of_a_short_video_repeats_the_last_frame_reached():
    expected = [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 36, 36, 36, 36, 36, 36]
    assert DenseClip(frames=16, stride=4).sample(40, np.random.default_rng(0)) == expected


def test_dense_starts_cover_exactly_where_the_clip_fits():
    clip = DenseClip(frames=4, stride=3)
    rng = np.random.default_rng(0)
    starts = {clip.sample(20, rng)[0] for _ in range(300)}
    assert starts == set(range(20 - 4 * 3 + 1))


def test_a_video_as_long_as_the_span_has_one_dense_clip():
    clip = DenseClip(frames=16, stride=4)
    assert {tuple(clip.sample(64, np.random.default_rng(k))) for k in range(20)} == {tuple(range(0, 64, 4))}


def test_frames_ascend_inside_the_video():
    for length, clip in product(LENGTHS, CLIPS):
        rng = np.random.default_rng(0)
        chosen = [clip.sample(length, rng) for _ in range(20)]
        chosen += [clip.view(length, k, clips) for clips in (1, 2, 5) for k in range(clips)]
        for numbers in chosen:
            assert len(numbers) == clip.frames, (length, clip)
            assert all(type(number) is int for number in numbers), (length, clip)
            assert 0 <= numbers[0] <= numbers[-1] < length, (length, clip)
            assert numbers == sorted(numbers), (length, clip)


@given(st.integers(1, 2000), st.integers(1, 32), st.integers(0, 10_000))
def test_segments_take_one_frame_each(length: int, frames: int, seed: int):
    numbers = SegmentClip(frames=frames).sample(length, np.random.default_rng(seed))
    for k, number in enumerate(numbers):
        # The frame's span of time [number, number + 1) meets the segment's.
        assert number * frames < (k + 1) * length
        assert (number + 1) * frames > k * length


def test_segments_differ_when_there_are_frames_enough():
    numbers = SegmentClip(frames=16).sample(16 * 7, np.random.default_rng(0))
    assert [number // 7 for number in numbers] == list(range(16))


def test_a_single_segment_view_takes_the_middles():
    assert SegmentClip(frames=4).view(40, 0, 1) == [5, 15, 25, 35]


def test_two_segment_views_take_the_quarters():
    clip = SegmentClip(frames=4)
    assert clip.view(40, 0, 2) == [2, 12, 22, 32]
    assert clip.view(40, 1, 2) == [7, 17, 27, 37]


def test_dense_views_spread_from_the_first_frame_to_the_last_start_that_fits():
    clip = DenseClip(frames=16, stride=4)
    assert [clip.view(264, k, 5)[0] for k in range(5)] == [0, 50, 100, 150, 200]


def test_a_single_dense_view_is_in_the_middle():
    numbers = DenseClip(frames=16, stride=4).view(264, 0, 1)
    assert numbers == list(range(100, 164, 4))


def test_dense_views_of_a_short_video_are_all_alike():
    clip = DenseClip(frames=16, stride=4)
    assert len({tuple(clip.view(30, k, 5)) for k in range(5)}) == 1


def test_views_move_forward():
    for clip in CLIPS:
        starts = [clip.view(1000, k, 7)[0] for k in range(7)]
        assert all(a < b for a, b in pairwise(starts)), clip


def test_the_same_generator_gives_the_same_clip():
    for clip in CLIPS:
        assert clip.sample(500, np.random.default_rng(5)) == clip.sample(500, np.random.default_rng(5)), clip


def test_views_count_clips_times_crops():
    assert Views(clips=5, crops=3).count == 15


def test_no_views_are_refused():
    for clips, crops in [(0, 1), (1, 0), (-1, 3)]:
        with pytest.raises(ValueError, match="between 1 and"):
            Views(clips=clips, crops=crops)
