"""The video encoder: a plain vision transformer over the tubelets it is shown."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tubelet.masking import take
from tubelet.models.layers import NORM_EPS, Transformer, init_weights
from tubelet.models.positions import Positions, position_table
from tubelet.patches import Size3, token_grid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """An encoder's architecture; the defaults are VideoMAE's ViT-B.

    Attributes:
        frames: frames of a clip.
        image_size: side of the square frames, in pixels.
        tubelet: frames of a token.
        patch_size: side of a token, in pixels.
        dim: width of the tokens.
        depth: number of transformer blocks.
        heads: attention heads of a block.
        mlp_dim: hidden width of a block's MLP.
        positions: the position table: `sinusoid` over the flat token index (VideoMAE, MAR), or
            `sinusoid_3d` over time, row and column apart.
        final_norm: a LayerNorm after the last block. Pre-trained encoders and MAR's have it; classifiers
            that normalise the mean of the tokens instead do not.
        mean: pixel mean of each channel, for pixels in [0, 1].
        std: pixel standard deviation of each channel, for pixels in [0, 1].
    """

    frames: int = 16
    image_size: int = 224
    tubelet: int = 2
    patch_size: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 3072
    positions: Positions = "sinusoid"
    final_norm: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def tubelet_size(self) -> Size3:
        """One token, in frames and pixels."""
        return Size3(self.tubelet, self.patch_size, self.patch_size)

    @property
    def grid(self) -> Size3:
        """The clip, in tokens."""
        return token_grid(Size3(self.frames, self.image_size, self.image_size), self.tubelet_size)

    @property
    def patch_values(self) -> int:
        """Numbers in one token's pixels."""
        return self.tubelet_size.volume * len(self.mean)


class PatchEmbedding(nn.Module):
    """Pixels to tokens: normalise by the model's own pixel statistics, then one linear map."""

    scale: Tensor
    shift: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        mean, std = (torch.tensor(x, dtype=torch.float64, device="cpu") for x in (config.mean, config.std))
        repeats = config.tubelet_size.volume
        self.register_buffer("scale", (1 / (255 * std)).float().repeat(repeats), persistent=False)
        self.register_buffer("shift", (-mean / std).float().repeat(repeats), persistent=False)
        self.project = nn.Linear(config.patch_values, config.dim)

    def forward(self, patches: Tensor) -> Tensor:
        """uint8 (B, N, P) to (B, N, D)."""
        return self.project(torch.addcmul(self.shift, patches.float(), self.scale))


class VideoEncoder(nn.Module):
    """Tokens of pixels to tokens of features.

    Args:
        config: the architecture.
        drop_path: the last block's drop-path rate while training.
    """

    position: Tensor

    def __init__(self, config: EncoderConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.grid = config.grid
        self.embed = PatchEmbedding(config)
        table = position_table(config.positions, self.grid, config.dim)
        self.register_buffer("position", table, persistent=False)
        self.transformer = Transformer(
            config.dim, config.depth, config.heads, config.mlp_dim, drop_path=drop_path
        )
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS) if config.final_norm else nn.Identity()
        init_weights(self.transformer)

    def forward(self, patches: Tensor, visible: Tensor | None = None) -> Tensor:
        """Encode all tokens, or the visible ones alone: the others are dropped before any work is done.

        Args:
            patches: uint8 (B, N, P), the whole clip in raster order.
            visible: int64 (B, V), the tokens to see; all of them when None.

        Returns:
            (B, V or N, D).
        """
        position = self.position
        if visible is not None:
            patches, position = take(patches, visible), take(position, visible)
        return self.norm(self.transformer(self.embed(patches) + position))
