"""The pixel decoder: reconstructs the masked tokens from the encoded visible ones."""

from dataclasses import InitVar, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tubelet.errors import require_at_least, require_between
from tubelet.masking import TokenMask, take
from tubelet.models.layers import NORM_EPS, Transformer, init_weights
from tubelet.models.positions import PositionKind, Positions
from tubelet.models.sizes import BY_SIZE, DECODER_SIZES, MAX_DEPTH, MAX_WIDTH, SizeName, fill_by_size
from tubelet.patches import Size3


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder's architecture; the defaults are VideoMAE's for ViT-B.

    Attributes:
        size: the decoder that is pre-trained with an encoder of this size (small to huge as in VideoMAE,
            giant as in VideoMAE V2): sets those of dim, depth, heads and mlp_dim that are not given; null is
            base. It does not follow the encoder's size and is not stored.
        dim: width of the tokens.
        depth: number of transformer blocks.
        heads: attention heads of a block.
        mlp_dim: hidden width of a block's MLP.
        positions: the positions, as in the encoder.
        position_grid: the grid that a fixed table is computed for, as in the encoder.
        class_token: `learned` is the decoder's own (MAE-ST's public code), `encoder` is the output of the
            encoder's class token (MAE-ST's released models); null: without a class token.
        embed_bias: whether the map from the encoder's width has a bias: MAE-ST's has.
        key_bias: whether keys have a bias: MAE-ST's do, VideoMAE's do not.
        layer_scale: first value of learned factors on the blocks' branches; null: without factors.
        norm_eps: epsilon of the blocks' LayerNorms.
        final_norm_eps: epsilon of the LayerNorm after the last block.
    """

    size: InitVar[SizeName | None] = None
    dim: int = BY_SIZE
    depth: int = BY_SIZE
    heads: int = BY_SIZE
    mlp_dim: int = BY_SIZE
    positions: PositionKind = "sinusoid"
    position_grid: tuple[int, int, int] | None = None
    class_token: Literal["learned", "encoder"] | None = None
    embed_bias: bool = False
    key_bias: bool = False
    layer_scale: float | None = None
    norm_eps: float = NORM_EPS
    final_norm_eps: float = NORM_EPS

    def __post_init__(self, size: SizeName | None) -> None:
        fill_by_size(self, DECODER_SIZES, size)
        require_between(1, MAX_WIDTH, dim=self.dim, heads=self.heads, mlp_dim=self.mlp_dim)
        require_between(0, MAX_DEPTH, depth=self.depth)
        require_at_least(1, position_grid=min(self.position_grid) if self.position_grid else None)
        require_at_least(0, norm_eps=self.norm_eps, final_norm_eps=self.final_norm_eps)


class PixelDecoder(nn.Module):
    """A transformer from encoded visible tokens to predictions of the masked ones.

    Args:
        config: the architecture.
        grid: the size of a clip in tokens.
        encoder_dim: the encoder's width.
        values: numbers predicted for one token.
        num_class_tokens: the encoder's class tokens, 0 or 1.

    Raises:
        ValueError: the config takes the encoder's class token, but there is no such token.
    """

    def __init__(
        self, config: DecoderConfig, *, grid: Size3, encoder_dim: int, values: int, num_class_tokens: int = 0
    ) -> None:
        super().__init__()
        if config.class_token == "encoder" and not num_class_tokens:
            raise ValueError("decoder.class_token is encoder, but the encoder has no class token")
        self.config, self.num_class_tokens = config, num_class_tokens
        self.embed = nn.Linear(encoder_dim, config.dim, bias=config.embed_bias)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        own_token = config.class_token == "learned"
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if own_token else None
        self.positions = Positions(
            config.positions,
            grid,
            config.dim,
            class_token=config.class_token is not None,
            native_grid=Size3(*config.position_grid) if config.position_grid else None,
        )
        self.transformer = Transformer(
            config.dim,
            config.depth,
            config.heads,
            config.mlp_dim,
            key_bias=config.key_bias,
            layer_scale=config.layer_scale,
            norm_eps=config.norm_eps,
        )
        self.norm = nn.LayerNorm(config.dim, eps=config.final_norm_eps)
        self.predict = nn.Linear(config.dim, values)
        init_weights(self.transformer)
        init_weights(self.predict)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def forward(self, encoded: Tensor, mask: TokenMask) -> Tensor:
        """Predict the masked tokens.

        Args:
            encoded: (B, num_class_tokens + V, D), the encoder's output for mask.visible.
            mask: the visible tokens, and the masked ones to predict.

        Returns:
            (B, M, values), in the order of mask.masked.
        """
        embedded, position = self.embed(encoded), self.positions()
        visible = embedded[:, self.num_class_tokens :] + take(position, mask.visible)
        masked = (self.mask_token + take(position, mask.masked)).to(visible.dtype)
        tokens = [visible, masked]
        if self.positions.class_position is not None:
            class_token = embedded[:, :1] if self.class_token is None else self.class_token
            class_token = class_token + self.positions.class_position
            tokens.insert(0, class_token.expand(len(visible), -1, -1).to(visible.dtype))
        decoded = self.transformer(torch.cat(tokens, dim=1))
        return self.predict(self.norm(decoded[:, decoded.shape[1] - masked.shape[1] :]))

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, first to last."""
        return list(self.transformer.blocks)

    def learned_tokens(self) -> set[str]:
        """Return the names of the learned tokens and positions."""
        tokens = {"mask_token"} if self.class_token is None else {"mask_token", "class_token"}
        return tokens | {f"positions.{name}" for name in self.positions.learned_tokens()}
