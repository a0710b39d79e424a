"""Windows cover a video, and durations are read."""

import numpy as np
import pytest

from tubelet.errors import UserError
from tubelet.run.windows import seconds, windows


def test_windows_have_one_length_begin_after_each_hop_and_cover_the_video() -> None:
    for duration, length, hop in ((10.0, 2.0, 1.0), (10.3, 2.0, 1.0), (7.0, 2.0, 2.0), (4.004, 0.5, 0.3)):
        found = windows(duration, length, hop)
        starts, ends = (np.array(times) for times in zip(*found, strict=True))
        np.testing.assert_allclose(ends - starts, length)
        np.testing.assert_allclose(np.diff(starts)[:-1], hop)
        assert 0 < np.diff(starts)[-1] <= hop + 1e-9
        assert (starts[0], ends[-1]) == (0.0, pytest.approx(duration))
    assert [start for start, _ in windows(10.0, 2.0, 1.0)] == list(range(9))
    np.testing.assert_allclose(windows(0.5 + 3 * 0.1, 0.5, 0.1), [(k / 10, k / 10 + 0.5) for k in range(4)])


def test_a_short_video_is_one_window_and_windows_may_leave_gaps() -> None:
    assert windows(1.5, 2.0, 1.0) == [(0.0, 1.5)]
    assert windows(2.0, 2.0, 1.0) == [(0.0, 2.0)]
    assert windows(10.0, 1.0, 4.0) == [(0.0, 1.0), (4.0, 5.0), (8.0, 9.0), (9.0, 10.0)]
    with pytest.raises(UserError, match="hop"):
        windows(10.0, 1.0, 0.0)


def test_durations_are_seconds_above_0() -> None:
    assert [seconds(text, "--hop") for text in ("2s", "0.5", " 3 ", "1.5s")] == [2.0, 0.5, 3.0, 1.5]
    for wrong in ("", "s", "two", "0", "-1s", "nan", "inf", "1m"):
        with pytest.raises(UserError, match="--hop"):
            seconds(wrong, "--hop")
