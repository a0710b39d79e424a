"""The masked autoencoder: hide most tokens of a clip, encode the rest, paint the hidden ones back."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tubelet.masking import TokenMask, take
from tubelet.models.card import ModelCard
from tubelet.models.decoder import DecoderConfig, PixelDecoder
from tubelet.models.encoder import EncoderConfig, VideoEncoder
from tubelet.patches import Size3, patchify


class Reconstruction(NamedTuple):
    """What was painted beside what was there.

    Attributes:
        predicted: (B, M, P) predictions for the masked tokens.
        target: (B, M, P) what they should have been.
    """

    predicted: Tensor
    target: Tensor

    @property
    def loss(self) -> Tensor:
        """The mean squared error, a scalar."""
        return functional.mse_loss(self.predicted.float(), self.target)


@dataclass(frozen=True, kw_only=True)
class PixelTarget:
    """What the decoder learns to predict.

    Attributes:
        normalize: "channel" subtracts each token's mean and divides by its standard deviation, channel by
            channel (VideoMAE's code; unbiased variance, 1e-6 added to the deviation); None predicts pixels
            in [0, 1].
    """

    normalize: Literal["channel"] | None = "channel"

    def __call__(self, patches: Tensor) -> Tensor:
        """uint8 tokens (B, M, P) to float32 targets (B, M, P)."""
        pixels = patches.float() / 255
        if self.normalize is None:
            return pixels
        mean, std = patch_statistics(patches)
        by_channel = pixels.unflatten(-1, (-1, mean.shape[-1]))
        return ((by_channel - mean) / std).flatten(-2)

    def to_pixels(self, predicted: Tensor, patches: Tensor) -> Tensor:
        """Predictions (B, M, P) as pixels in [0, 1], with the true tokens' own mean and deviation.

        A normalised prediction says nothing of its token's brightness and contrast; those are taken from
        the true patches (uint8 (B, M, P)), as every published picture of these models does.
        """
        if self.normalize is None:
            return predicted
        mean, std = patch_statistics(patches)
        return (predicted.unflatten(-1, (-1, mean.shape[-1])) * std + mean).flatten(-2)


def patch_statistics(patches: Tensor, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each token and channel, for pixels in [0, 1]: two of (B, M, 1, C), float32."""
    pixels = (patches.float() / 255).unflatten(-1, (-1, channels))
    variance, mean = torch.var_mean(pixels, dim=-2, keepdim=True)
    return mean, variance.sqrt() + 1e-6


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """A masked autoencoder's architecture; the defaults are VideoMAE's ViT-B.

    Attributes:
        encoder: the encoder.
        decoder: the decoder.
        target: what the decoder predicts.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    target: PixelTarget = field(default_factory=PixelTarget)


class MaskedAutoencoder(nn.Module):
    """Encoder and decoder together (VideoMAE, arXiv 2203.12602)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.card = ModelCard()
        self.encoder = VideoEncoder(config.encoder)
        self.decoder = make_decoder(config.decoder, config.encoder)

    @property
    def grid(self) -> Size3:
        """The clip, in tokens."""
        return self.encoder.grid

    def forward(self, video: Tensor, mask: TokenMask) -> Reconstruction:
        """Paint the masked tokens of a clip: uint8 (B, T, C, H, W)."""
        patches = clip_patches(video, self.config.encoder)
        return reconstruct(
            self.encoder(patches, mask.visible), patches, mask, self.decoder, self.config.target
        )

    def encode(self, video: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Features of every token (B, N, D), or of the visible ones (B, V, D), of uint8 (B, T, C, H, W)."""
        return self.encoder(clip_patches(video, self.config.encoder), mask and mask.visible)


def make_decoder(decoder: DecoderConfig, encoder: EncoderConfig) -> PixelDecoder:
    """The decoder that fits an encoder."""
    return PixelDecoder(decoder, grid=encoder.grid, encoder_dim=encoder.dim, values=encoder.patch_values)


def reconstruct(
    encoded: Tensor, patches: Tensor, mask: TokenMask, decoder: PixelDecoder, target: PixelTarget
) -> Reconstruction:
    """Paint the masked tokens from the encoded visible ones."""
    return Reconstruction(decoder(encoded, mask), target(take(patches, mask.masked)))


def clip_patches(video: Tensor, config: EncoderConfig) -> Tensor:
    """Check a clip and cut it into tokens: uint8 (B, T, C, H, W) to uint8 (B, N, P).

    Raises:
        ValueError: the dtype or a size is not what the encoder takes.
    """
    size = config.image_size
    expected = (config.frames, len(config.mean), size, size)
    if video.dtype != torch.uint8 or video.ndim != 5 or tuple(video.shape[1:]) != expected:
        raise ValueError(
            f"expected uint8 video of shape (B, T, C, H, W) = (B, {', '.join(map(str, expected))}), "
            f"found {video.dtype} {tuple(video.shape)}"
        )
    return patchify(video, config.tubelet_size)
