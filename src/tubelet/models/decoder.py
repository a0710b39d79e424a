"""The pixel decoder: paints the masked tokens from what the encoder made of the visible ones."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tubelet.masking import TokenMask, take
from tubelet.models.layers import NORM_EPS, Transformer, init_weights
from tubelet.models.positions import Positions, position_table
from tubelet.patches import Size3


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder's architecture; the defaults are VideoMAE's for ViT-B.

    Attributes:
        dim: width of the tokens.
        depth: number of transformer blocks.
        heads: attention heads of a block.
        mlp_dim: hidden width of a block's MLP.
        positions: the position table, as in the encoder.
    """

    dim: int = 384
    depth: int = 4
    heads: int = 6
    mlp_dim: int = 1536
    positions: Positions = "sinusoid"


class PixelDecoder(nn.Module):
    """Encoded visible tokens to predictions for the masked ones.

    Args:
        config: the architecture.
        grid: the clip, in tokens.
        encoder_dim: the encoder's width.
        values: numbers predicted for one token.
    """

    position: Tensor

    def __init__(self, config: DecoderConfig, *, grid: Size3, encoder_dim: int, values: int) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(encoder_dim, config.dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        table = position_table(config.positions, grid, config.dim)
        self.register_buffer("position", table, persistent=False)
        self.transformer = Transformer(config.dim, config.depth, config.heads, config.mlp_dim)
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.predict = nn.Linear(config.dim, values)
        init_weights(self.transformer)
        init_weights(self.predict)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def forward(self, encoded: Tensor, mask: TokenMask) -> Tensor:
        """Predict the masked tokens.

        Args:
            encoded: (B, V, D) the encoder's output for mask.visible.
            mask: which tokens those are, and which to predict.

        Returns:
            (B, M, values), in the order of mask.masked.
        """
        seen = self.embed(encoded) + take(self.position, mask.visible)
        blank = self.mask_token + take(self.position, mask.masked)
        painted = self.transformer(torch.cat([seen, blank.to(seen.dtype)], dim=1))
        return self.predict(self.norm(painted[:, seen.shape[1] :]))
