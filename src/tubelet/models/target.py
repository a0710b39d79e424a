"""The target of a reconstruction: what a decoder predicts of a masked token's pixels."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tubelet.models.encoder import EncoderConfig, VideoEncoder


@dataclass(frozen=True, kw_only=True)
class PixelTarget:
    """The target of a reconstruction; the default is VideoMAE's.

    Attributes:
        normalize: subtract each token's mean and divide by its deviation (unbiased variance): `channel` for
            each channel, with 1e-6 added to the deviation (VideoMAE's and MAR's code); `patch` over all
            channels, with 1e-6 added to the variance (MAE-ST's code); null predicts the pixels.
        pixels: pixel values before that: `zero_one` is in [0, 1] (VideoMAE, MAR), `normalized` is with the
            encoder's pixel mean and deviation (MAE-ST).
        frames: number of predicted frames of a clip (MAE-ST's `pred_t_dim`); null is all of them.
        spacing: which frames those are: `linspace` from the first to the last frame of the clip, rounded down
            (MAE-ST's public code), or `stride`, the first of each group of equal size (MAE-ST's released
            models).
    """

    normalize: Literal["channel", "patch"] | None = "channel"
    pixels: Literal["zero_one", "normalized"] = "zero_one"
    frames: int | None = None
    spacing: Literal["linspace", "stride"] = "linspace"

    def frames_of_token(self, encoder: EncoderConfig) -> int:
        """Return the number of predicted frames of a token.

        Raises:
            ValueError: `frames` does not spread evenly over the tokens' times.
        """
        if self.frames is None:
            return encoder.tubelet
        if not 1 <= self.frames <= encoder.frames or self.frames % encoder.grid.t:
            raise ValueError(
                f"target.frames must be a multiple of the clip's {encoder.grid.t} token times and at most "
                f"its {encoder.frames} frames, found {self.frames}"
            )
        return self.frames // encoder.grid.t

    def values(self, encoder: EncoderConfig) -> int:
        """Return how many numbers are predicted for a token."""
        return self.frames_of_token(encoder) * encoder.patch_size**2 * len(encoder.mean)

    def __call__(self, patches: Tensor, index: Tensor, encoder: VideoEncoder) -> Tensor:
        """Return the targets of tokens.

        Args:
            patches: uint8 (B, M, P), the tokens' pixels.
            index: int64 (B, M), the tokens' indices in the clip.
            encoder: gives pixel statistics and grid.

        Returns:
            float32 (B, M, values), ordered (frame, row, column, channel).
        """
        pixels = self._pixels(patches, index, encoder)
        mean, deviation = self._statistics(pixels)
        return ((pixels - mean) / deviation).flatten(2)

    def to_pixels(self, predicted: Tensor, patches: Tensor, index: Tensor, encoder: VideoEncoder) -> Tensor:
        """Return predictions (B, M, values) as pixels in [0, 1]: (B, M, P), all frames of the tokens.

        A normalized prediction has no brightness and contrast; they are taken from the true patches, as in
        all published reconstructions of these models. A frame that is not predicted repeats the last
        predicted one before it.
        """
        config = encoder.config
        mean, deviation = self._statistics(self._pixels(patches, index, encoder))
        pixels = predicted.unflatten(-1, (-1, len(config.mean))) * deviation + mean
        if self.pixels == "normalized":
            pixels = pixels * pixels.new_tensor(config.std) + pixels.new_tensor(config.mean)
        if self.frames is None:
            return pixels.flatten(2)
        frame = torch.arange(config.tubelet, device=index.device)
        chosen = self._chosen(index, config)  # (B, M, u)
        source = ((chosen[:, :, None] <= frame[:, None]).sum(-1) - 1).clamp(min=0)  # (B, M, t)
        return _take_frames(pixels.unflatten(2, (chosen.shape[-1], -1)), source).flatten(2)

    def _pixels(self, patches: Tensor, index: Tensor, encoder: VideoEncoder) -> Tensor:
        """Return the pixels to predict before each token is normalized: float32 (B, M, pixels, C)."""
        config = encoder.config
        pixels = encoder.embed.normalize(patches) if self.pixels == "normalized" else patches.float() / 255
        if self.frames is not None:
            by_frame = pixels.unflatten(-1, (config.tubelet, -1, len(config.mean)))
            pixels = _take_frames(by_frame, self._chosen(index, config)).flatten(2)
        return pixels.unflatten(-1, (-1, len(config.mean)))

    def _statistics(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to subtract and to divide by, each broadcast over (B, M, pixels, C)."""
        if self.normalize is None:
            return torch.zeros_like(pixels[:, :, :1]), torch.ones_like(pixels[:, :, :1])
        over = (-2,) if self.normalize == "channel" else (-2, -1)
        variance, mean = torch.var_mean(pixels, dim=over, keepdim=True)
        return mean, variance.sqrt() + 1e-6 if self.normalize == "channel" else (variance + 1e-6).sqrt()

    def _chosen(self, index: Tensor, config: EncoderConfig) -> Tensor:
        """Return which of each token's own frames are predicted: (B, M) tokens to (B, M, u)."""
        assert self.frames is not None
        frame = torch.arange(self.frames, device=index.device)
        if self.spacing == "stride":
            frame = frame * config.frames // self.frames
        else:
            frame = frame * (config.frames - 1) // max(1, self.frames - 1)
        own = frame.view(config.grid.t, -1) % config.tubelet
        return own[index // (config.grid.h * config.grid.w)]


def _take_frames(by_frame: Tensor, chosen: Tensor) -> Tensor:
    """Gather frames: (B, M, frames, pixels, ...) by (B, M, u) to (B, M, u, pixels, ...)."""
    extra = by_frame.ndim - chosen.ndim
    return by_frame.gather(2, chosen[(..., *[None] * extra)].expand(*chosen.shape, *by_frame.shape[3:]))
