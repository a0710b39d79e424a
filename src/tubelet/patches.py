"""Clips as tokens: cutting a clip into tubelets and assembling it again.

A token is one tubelet: `tubelet` frames of `patch_size` x `patch_size` pixels. Tokens are in raster order
(time slowest, then row, then column); the values in a token are ordered (frame, row, column, channel), which
is the order of VideoMAE's and MAE-ST's prediction targets.
"""

from typing import NamedTuple

from torch import Tensor

MAX_TOKENS = 1 << 17
"""Of a clip; a fixed position table of that size has 400 MB at 768 features."""


class Size3(NamedTuple):
    """A size in (time, height, width): of a grid in tokens, or of a tubelet in frames and pixels."""

    t: int
    h: int
    w: int

    @property
    def volume(self) -> int:
        """The product of the three."""
        return self.t * self.h * self.w


def token_grid(video: Size3, tubelet: Size3) -> Size3:
    """Return the number of tubelets along each axis of a video of (frames, height, width).

    Raises:
        ValueError: a side of the video is not a multiple of the tubelet's, or there are too many tokens.
    """
    for name, side, part in zip(("frames", "height", "width"), video, tubelet, strict=True):
        if side < part or side % part:
            raise ValueError(f"{name} must be a multiple of {part}, found {side}")
    grid = Size3(*(side // part for side, part in zip(video, tubelet, strict=True)))
    require_tokens(grid, "frames and image_size")
    return grid


def require_tokens(grid: Size3, settings: str) -> None:
    """Raise a ValueError that names the settings if a grid has more tokens than any model can attend to."""
    if grid.volume > MAX_TOKENS:
        raise ValueError(
            f"{settings} must make at most {MAX_TOKENS:,} tokens, found {grid.t:,} x {grid.h:,} x {grid.w:,}"
        )


def patchify(video: Tensor, tubelet: Size3) -> Tensor:
    """Cut a video into tokens.

    Args:
        video: (B, T, C, H, W), any dtype.
        tubelet: the size of one token in frames and pixels.

    Returns:
        (B, N, t*h*w*C) of the same dtype.
    """
    batch, frames, channels, height, width = video.shape
    grid = token_grid(Size3(frames, height, width), tubelet)
    t, h, w = tubelet
    cut = video.reshape(batch, grid.t, t, channels, grid.h, h, grid.w, w)
    return cut.permute(0, 1, 4, 6, 2, 5, 7, 3).reshape(batch, grid.volume, t * h * w * channels)


def unpatchify(patches: Tensor, grid: Size3, tubelet: Size3) -> Tensor:
    """Assemble a video from its tokens, the inverse of `patchify`.

    Args:
        patches: (B, N, t*h*w*C) with N = grid.volume, in raster order.
        grid: the video's size in tokens.
        tubelet: the size of one token in frames and pixels.

    Returns:
        (B, T, C, H, W) of the same dtype.
    """
    t, h, w = tubelet
    cut = patches.reshape(patches.shape[0], *grid, t, h, w, -1)
    return cut.permute(0, 1, 4, 7, 2, 5, 3, 6).reshape(
        patches.shape[0], grid.t * t, -1, grid.h * h, grid.w * w
    )
