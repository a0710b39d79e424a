"""The masked autoencoder: hide most tokens of a clip, encode the rest, paint the hidden ones back."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tubelet.errors import UserError
from tubelet.masking import TokenMask, take
from tubelet.models.card import ModelCard
from tubelet.models.decoder import DecoderConfig, PixelDecoder
from tubelet.models.encoder import EncoderConfig, VideoEncoder
from tubelet.models.target import PixelTarget
from tubelet.patches import Size3, patchify


class Reconstruction(NamedTuple):
    """What was painted beside what was there.

    Attributes:
        predicted: (B, M, P) predictions for the masked tokens.
        target: (B, M, P) what they should have been.
        scored: (B, M) bool, which of them count in the loss; None is all.
    """

    predicted: Tensor
    target: Tensor
    scored: Tensor | None = None

    @property
    def loss(self) -> Tensor:
        """The mean squared error over the tokens that count, a scalar."""
        if self.scored is None:
            return functional.mse_loss(self.predicted.float(), self.target)
        errors = (self.predicted.float() - self.target).square().mean(-1)
        return (errors * self.scored).sum() / self.scored.sum()


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
        self.decoder = make_decoder(config.decoder, config.encoder, config.target)

    @property
    def grid(self) -> Size3:
        """The clip, in tokens."""
        return self.encoder.grid

    def forward(self, video: Tensor, mask: TokenMask) -> Reconstruction:
        """Paint the masked tokens of a clip: uint8 (B, T, C, H, W).

        Raises:
            ValueError: the clip or the mask is not what the model takes, or the mask hides nothing.
        """
        if not mask.masked.shape[1]:
            raise UserError(
                "expected a mask that hides at least one token, found none: there is nothing to paint"
            )
        patches = clip_patches(video, self.config.encoder, mask)
        encoded = self.encoder(patches, mask.visible)
        return reconstruct(self.encoder, self.decoder, self.config.target, encoded, patches, mask)

    def encode(self, video: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Features of every token (B, N, D), or of the visible ones (B, V, D), of uint8 (B, T, C, H, W)."""
        return encode_clip(self.encoder, video, mask)


def encode_clip(encoder: VideoEncoder, video: Tensor, mask: TokenMask | None) -> Tensor:
    """The features of a clip's tokens, without the class token's."""
    patches = clip_patches(video, encoder.config, mask)
    return encoder(patches, mask and mask.visible)[:, encoder.config.num_class_tokens :]


def make_decoder(decoder: DecoderConfig, encoder: EncoderConfig, target: PixelTarget) -> PixelDecoder:
    """The decoder that fits an encoder and a target."""
    return PixelDecoder(
        decoder,
        grid=encoder.grid,
        encoder_dim=encoder.dim,
        values=target.values(encoder),
        num_class_tokens=encoder.num_class_tokens,
    )


def reconstruct(
    encoder: VideoEncoder,
    decoder: PixelDecoder,
    target: PixelTarget,
    encoded: Tensor,
    patches: Tensor,
    mask: TokenMask,
) -> Reconstruction:
    """Paint the masked tokens from the encoded visible ones."""
    wanted = target(take(patches, mask.masked), mask.masked, encoder)
    return Reconstruction(decoder(encoded, mask), wanted, mask.scored)


def clip_patches(video: Tensor, config: EncoderConfig, mask: TokenMask | None = None) -> Tensor:
    """Check a clip and its mask, and cut the clip into tokens: uint8 (B, T, C, H, W) to uint8 (B, N, P).

    Raises:
        ValueError: a dtype, a size or an index is not what the encoder takes. Indices are looked at on the
            CPU alone: a GPU would have to wait for it.
    """
    size = config.image_size
    expected = (config.frames, len(config.mean), size, size)
    if video.dtype != torch.uint8 or video.ndim != 5 or tuple(video.shape[1:]) != expected:
        raise ValueError(
            f"expected uint8 video of shape (B, T, C, H, W) = (B, {', '.join(map(str, expected))}), "
            f"found {video.dtype} {tuple(video.shape)}"
        )
    if mask is not None:
        for name, index in (("visible", mask.visible), ("masked", mask.masked)):
            _check_index(f"mask.{name}", index, batch=len(video), tokens=config.grid.volume)
        if not mask.visible.shape[1]:
            raise UserError("expected a mask that leaves at least one token visible, found none")
    return patchify(video, config.tubelet_size)


def _check_index(name: str, index: Tensor, *, batch: int, tokens: int) -> None:
    if index.dtype != torch.int64 or index.ndim != 2 or len(index) != batch:
        raise UserError(
            f"expected {name} to be int64 of shape ({batch}, K), one row a clip, found {index.dtype} "
            f"{tuple(index.shape)}"
        )
    if index.device.type != "cpu" or torch.compiler.is_compiling() or not index.numel():
        return
    least, most = index.aminmax()
    if least < 0 or most >= tokens:
        raise UserError(
            f"expected {name} to hold token numbers of 0 to {tokens - 1}, found {int(least)} to {int(most)}"
        )
