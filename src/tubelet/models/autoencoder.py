"""The masked autoencoder: mask most tokens, encode the visible ones, reconstruct the masked ones."""

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
    """Predictions of the masked tokens and their targets.

    Attributes:
        predicted: (B, M, P), in the order of mask.masked.
        target: (B, M, P) float32.
        scored: (B, M) bool, whether a token counts in the loss; None is all.
    """

    predicted: Tensor
    target: Tensor
    scored: Tensor | None = None

    def __repr__(self) -> str:
        rows, num_masked, values = self.predicted.shape
        return f"Reconstruction({rows} x {num_masked} masked tokens of {values} values)"

    @property
    def loss(self) -> Tensor:
        """The mean squared error over the tokens that count, a float32 scalar."""
        if self.scored is None:
            return functional.mse_loss(self.predicted.float(), self.target)
        errors = (self.predicted.float() - self.target).square().mean(-1)
        return (errors * self.scored).sum() / self.scored.sum()


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """A masked autoencoder's architecture; the defaults are VideoMAE's ViT-B.

    Attributes:
        encoder: the encoder's architecture.
        decoder: the decoder's architecture.
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
        """The size of a clip in tokens."""
        return self.encoder.grid

    def forward(self, video: Tensor, mask: TokenMask) -> Reconstruction:
        """Reconstruct the masked tokens of clips, uint8 (B, T, C, H, W).

        Raises:
            ValueError: the clip or the mask is not what the model takes, or no token is masked.
        """
        if not mask.masked.shape[1]:
            raise UserError(
                "expected a mask with at least one token masked, found none: there is nothing to reconstruct"
            )
        patches = clip_patches(video, self.config.encoder, mask)
        encoded = self.encoder(patches, mask.visible)
        return reconstruct(self.encoder, self.decoder, self.config.target, encoded, patches, mask)

    def encode(self, video: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Return features of all tokens (B, N, D), or of the visible ones (B, V, D); none of the class token.

        Args:
            video: uint8 (B, T, C, H, W).
            mask: the visible tokens; None is all.
        """
        return encode_clip(self.encoder, video, mask)

    @property
    def blocks(self) -> list[nn.Module]:
        """All transformer blocks, the units of sharding and compilation."""
        return self.encoder.blocks + self.decoder.blocks

    def learned_tokens(self) -> set[str]:
        """Return the names of the learned tokens and positions."""
        return {f"encoder.{name}" for name in self.encoder.learned_tokens()} | {
            f"decoder.{name}" for name in self.decoder.learned_tokens()
        }


def encode_clip(encoder: VideoEncoder, video: Tensor, mask: TokenMask | None) -> Tensor:
    """Return the features of clips' tokens, without the class token's."""
    patches = clip_patches(video, encoder.config, mask)
    return encoder(patches, mask and mask.visible)[:, encoder.config.num_class_tokens :]


def make_decoder(decoder: DecoderConfig, encoder: EncoderConfig, target: PixelTarget) -> PixelDecoder:
    """Return the decoder that fits an encoder and a target."""
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
    """Reconstruct the masked tokens from the encoded visible ones.

    Args:
        encoder: gives the target its pixel statistics and grid.
        decoder: predicts the masked tokens.
        target: what it should predict.
        encoded: (B, num_class_tokens + V, D), the encoder's output.
        patches: uint8 (B, N, P), all tokens of the clips.
        mask: the visible and the masked tokens.
    """
    expected = target(take(patches, mask.masked), mask.masked, encoder)
    return Reconstruction(decoder(encoded, mask), expected, mask.scored)


def clip_patches(video: Tensor, config: EncoderConfig, mask: TokenMask | None = None) -> Tensor:
    """Check clips and their mask and cut the clips into tokens: uint8 (B, T, C, H, W) to uint8 (B, N, P).

    Raises:
        ValueError: a dtype, a size or an index is not what the encoder takes. Values of indices are only
            checked on the CPU, as on a GPU the check would be a synchronization.
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
            raise UserError("expected a mask with at least one token visible, found none")
    return patchify(video, config.tubelet_size)


def _check_index(name: str, index: Tensor, *, batch: int, tokens: int) -> None:
    if index.dtype != torch.int64 or index.ndim != 2 or len(index) != batch:
        raise UserError(
            f"expected {name} to be int64 of shape ({batch}, K), one row for each clip, found {index.dtype} "
            f"{tuple(index.shape)}"
        )
    if index.device.type != "cpu" or torch.compiler.is_compiling() or not index.numel():
        return
    least, most = index.aminmax()
    if least < 0 or most >= tokens:
        raise UserError(
            f"expected token indices of 0 to {tokens - 1} in {name}, found {int(least)} to {int(most)}"
        )
