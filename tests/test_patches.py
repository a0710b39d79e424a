"""Cutting into tokens and back, against loops that spell the order out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tubelet.patches import Size3, patchify, token_grid, unpatchify

SIZES = st.integers(1, 3)


def numbered(batch: int, frames: int, channels: int, height: int, width: int) -> torch.Tensor:
    count = batch * frames * channels * height * width
    return torch.arange(count).reshape(batch, frames, channels, height, width)


def test_tokens_are_in_raster_order_with_the_channel_fastest_inside():
    video = numbered(2, 4, 3, 6, 8)
    patches = patchify(video, Size3(2, 3, 2))
    assert patches.shape == (2, 16, 36)
    for b in range(2):
        token = 0
        for ti in range(2):
            for hi in range(2):
                for wi in range(4):
                    value = 0
                    for t in range(2):
                        for h in range(3):
                            for w in range(2):
                                for c in range(3):
                                    pixel = video[b, ti * 2 + t, c, hi * 3 + h, wi * 2 + w]
                                    assert patches[b, token, value] == pixel
                                    value += 1
                    token += 1


@given(SIZES, SIZES, SIZES, SIZES, SIZES, SIZES, SIZES, SIZES)
def test_unpatchify_undoes_patchify(b: int, c: int, gt: int, gh: int, gw: int, t: int, h: int, w: int):
    video = numbered(b, gt * t, c, gh * h, gw * w)
    size = Size3(t, h, w)
    assert torch.equal(unpatchify(patchify(video, size), Size3(gt, gh, gw), size), video)


def test_the_dtype_stays():
    for dtype in [torch.uint8, torch.float32, torch.bfloat16]:
        video = torch.zeros(1, 2, 3, 4, 4, dtype=dtype)
        patches = patchify(video, Size3(2, 2, 2))
        assert patches.dtype == dtype, dtype
        assert unpatchify(patches, Size3(1, 2, 2), Size3(2, 2, 2)).dtype == dtype, dtype


def test_a_grid_counts_tubelets():
    grid = token_grid(Size3(16, 224, 192), Size3(2, 16, 16))
    assert grid == (8, 14, 12)
    assert grid.volume == 8 * 14 * 12


def test_a_video_that_does_not_divide_is_refused():
    for video, message in [
        (Size3(15, 32, 32), "frames must be a multiple of 2, found 15"),
        (Size3(16, 33, 32), "height must be a multiple of 16, found 33"),
        (Size3(16, 32, 31), "width must be a multiple of 16, found 31"),
        (Size3(0, 32, 32), "frames must be a multiple of 2, found 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            token_grid(video, Size3(2, 16, 16))


def test_patchify_refuses_a_video_that_does_not_divide():
    with pytest.raises(ValueError, match="width must be a multiple of 4, found 6"):
        patchify(torch.zeros(1, 2, 3, 4, 6), Size3(2, 4, 4))
