"""Classification heads: from encoded tokens to class scores."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tubelet.errors import UserError, require_above, require_at_least, require_below_1, require_between
from tubelet.masking import TokenMask, take
from tubelet.models.layers import NORM_EPS, Mlp, Transformer, init_weights
from tubelet.models.positions import Positions
from tubelet.models.sizes import MAX_DEPTH, MAX_WIDTH
from tubelet.patches import Size3
from tubelet.settings import BY_KIND


@dataclass(frozen=True, kw_only=True)
class LinearHeadConfig:
    """Mean of the tokens and one linear layer: VideoMAE's and MAE-ST's fine-tuned classifiers.

    Attributes:
        pool: `mean` of all tokens, or only the `first` token, as in Hugging Face's port with
            `use_mean_pooling: false`.
        normalize: the head's own LayerNorm normalizes the `pooled` vector (VideoMAE, MAE-ST), or the last one
            of the encoder normalizes the `tokens` before the mean (MAR's linear baseline).
        norm_eps: epsilon of the head's own LayerNorm.
        keep_norm: whether the LayerNorm starts from the last LayerNorm of init, that of a pre-trained encoder
            (MAE-ST) or of a linear head, or from ones and zeros (VideoMAE).
        dropout: dropout before the last layer, in [0, 1).
        init_scale: factor on the initial weights of the last layer.
    """

    kind: Literal["linear"] = "linear"
    pool: Literal["mean", "first"] = "mean"
    normalize: Literal["pooled", "tokens"] = "pooled"
    norm_eps: float = NORM_EPS
    keep_norm: bool = False
    dropout: float = 0.0
    init_scale: float = 0.001

    def __post_init__(self) -> None:
        require_at_least(0, norm_eps=self.norm_eps)
        require_above(0, init_scale=self.init_scale)
        require_below_1(dropout=self.dropout)
        if self.keep_norm and self.normalize == "tokens":
            raise UserError("keep_norm is for the head's own LayerNorm: with normalize=tokens it has none")

    @property
    def takes_normalized_tokens(self) -> bool:
        """Whether the encoder of this head ends in a LayerNorm."""
        return self.normalize == "tokens"


@dataclass(frozen=True, kw_only=True)
class BridgingHeadConfig:
    """Narrower transformer blocks before the mean: MAR's bridging classifier (arXiv 2207.11660, III-C).

    Attributes:
        dim: width of the tokens in these blocks.
        depth: number of blocks.
        heads: attention heads of a block.
        mlp_dim: hidden width of a block's MLP.
        dropout: dropout before the last layer, in [0, 1).
        positions: whether to add fixed positions to the tokens (an ablation of MAR).
        mask_tokens: whether to add a learned token for each masked one (an ablation of MAR).
    """

    kind: Literal["bridging"] = "bridging"
    dim: int = 512
    depth: int = 2
    heads: int = 4
    mlp_dim: int = 2048
    dropout: float = 0.0
    positions: bool = False
    mask_tokens: bool = False

    def __post_init__(self) -> None:
        require_between(1, MAX_WIDTH, dim=self.dim, heads=self.heads, mlp_dim=self.mlp_dim)
        require_between(0, MAX_DEPTH, depth=self.depth)
        require_below_1(dropout=self.dropout)

    @property
    def takes_normalized_tokens(self) -> bool:
        """Whether the encoder of this head ends in a LayerNorm."""
        return True


@dataclass(frozen=True, kw_only=True)
class MlpHeadConfig:
    """Two linear layers: of each token, GELU, the mean, and of the mean (MAR, arXiv 2207.11660, table VI).

    Attributes:
        dim: width of the hidden tokens.
        dropout: dropout before the last layer, in [0, 1).
    """

    kind: Literal["mlp"] = "mlp"
    dim: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_between(1, MAX_WIDTH, dim=self.dim)
        require_below_1(dropout=self.dropout)

    @property
    def takes_normalized_tokens(self) -> bool:
        """Whether the encoder of this head ends in a LayerNorm."""
        return True


@dataclass(frozen=True, kw_only=True)
class AttentiveHeadConfig:
    """A learned query attends to the tokens: the attentive probe of V-JEPA (arXiv 2404.08471, section 4).

    Attributes:
        heads: attention heads; they divide the encoder's width.
        mlp_ratio: hidden width of the block's MLP, relative to the encoder's width.
        dropout: dropout before the last layer, in [0, 1).
    """

    kind: Literal["attentive"] = "attentive"
    heads: int = 16
    mlp_ratio: float = 4.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_between(1, MAX_WIDTH, heads=self.heads)
        require_above(0, mlp_ratio=self.mlp_ratio)
        require_below_1(dropout=self.dropout)

    @property
    def takes_normalized_tokens(self) -> bool:
        """Whether the encoder of this head ends in a LayerNorm."""
        return True


AnyHeadConfig = Annotated[
    LinearHeadConfig | BridgingHeadConfig | MlpHeadConfig | AttentiveHeadConfig, BY_KIND
]


class Head(nn.Module):
    """The interface of every head: (B, N, D) to (B, K), for any number of tokens N.

    The last layer is called `classify`.
    """

    def forward(self, encoded: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Return logits (B, K).

        Args:
            encoded: (B, N, D), the tokens.
            mask: which of the clip's tokens they are; None is all of them.
        """
        raise NotImplementedError

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, first to last."""
        return []

    def learned_tokens(self) -> set[str]:
        """Return the names of the learned tokens."""
        return set()


class LinearHead(Head):
    """A linear classifier with its own LayerNorm."""

    def __init__(self, config: LinearHeadConfig, *, dim: int, classes: int) -> None:
        super().__init__()
        self.pool = config.pool
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = _linear(config, dim, classes)

    def forward(self, encoded: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Return logits (B, K), or features (B, D) if there are no classes."""
        return self.classify(self.dropout(self.norm(_pooled(encoded, self.pool))))


class PlainLinearHead(Head):
    """A linear classifier of normalized tokens."""

    def __init__(self, config: LinearHeadConfig, *, dim: int, classes: int) -> None:
        super().__init__()
        self.pool = config.pool
        self.dropout = nn.Dropout(config.dropout)
        self.classify = _linear(config, dim, classes)

    def forward(self, encoded: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Return logits (B, K), or features (B, D) if there are no classes."""
        return self.classify(self.dropout(_pooled(encoded, self.pool)))


def _linear(config: LinearHeadConfig, dim: int, classes: int) -> nn.Linear | nn.Identity:
    """Return the last layer of a linear head, which is empty without classes."""
    if not classes:
        return nn.Identity()
    classify = nn.Linear(dim, classes)
    nn.init.trunc_normal_(classify.weight, std=0.02 * config.init_scale)
    nn.init.zeros_(classify.bias)
    return classify


def _pooled(encoded: Tensor, pool: Literal["mean", "first"]) -> Tensor:
    return encoded.mean(1) if pool == "mean" else encoded[:, 0]


class BridgingHead(Head):
    """MAR's bridging classifier."""

    def __init__(self, config: BridgingHeadConfig, *, dim: int, classes: int, grid: Size3) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, config.dim, bias=False)
        self.positions = Positions("sinusoid", grid, config.dim) if config.positions else None
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.mask_tokens else None
        self.transformer = Transformer(config.dim, config.depth, config.heads, config.mlp_dim, key_bias=True)
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(config.dim, classes)
        init_weights(self.transformer)
        init_weights(self.classify)

    def forward(self, encoded: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Return logits (B, K)."""
        tokens = self.embed(encoded)
        if self.mask_token is not None and mask is not None:
            masked = self.mask_token.to(tokens.dtype).expand(*mask.masked.shape, -1)
            tokens = torch.cat([tokens, masked], dim=1)
        if self.positions is not None:
            tokens = tokens + self._positions(mask)
        pooled = self.transformer(tokens).mean(1)
        return self.classify(self.dropout(self.norm(pooled)))

    def _positions(self, mask: TokenMask | None) -> Tensor:
        """Return the positions of the visible tokens and, if they are added, of the masked ones."""
        assert self.positions is not None
        position: Tensor = self.positions()
        if mask is None:
            return position
        order = mask.visible if self.mask_token is None else torch.cat([mask.visible, mask.masked], dim=1)
        return take(position, order)

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, first to last."""
        return list(self.transformer.blocks)

    def learned_tokens(self) -> set[str]:
        """Return the names of the learned tokens."""
        return set() if self.mask_token is None else {"mask_token"}


class MlpHead(Head):
    """A classifier of two layers."""

    def __init__(self, config: MlpHeadConfig, *, dim: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(config.dim, classes)
        init_weights(self)

    def forward(self, encoded: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Return logits (B, K)."""
        return self.classify(self.dropout(functional.gelu(self.embed(encoded)).mean(1)))


class AttentiveHead(Head):
    """A classifier of what one learned query finds in the tokens."""

    def __init__(self, config: AttentiveHeadConfig, *, dim: int, classes: int) -> None:
        super().__init__()
        if dim % config.heads:
            raise ValueError(
                f"dim must be a multiple of head.heads, found dim={dim} and heads={config.heads}"
            )
        self.heads = config.heads
        self.query = nn.Parameter(torch.empty(1, 1, dim))
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.project = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, round(config.mlp_ratio * dim))
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(dim, classes)
        init_weights(self)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, encoded: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Return logits (B, K)."""
        key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.key_value(self.norm1(encoded)).chunk(2, dim=2)
        )
        query = self.query.to(key.dtype).expand(len(encoded), -1, -1)
        mixed = functional.scaled_dot_product_attention(
            query.unflatten(2, (self.heads, -1)).transpose(1, 2), key, value
        )
        found = query + self.project(mixed.transpose(1, 2).flatten(2))
        found = found + self.mlp(self.norm2(found))
        return self.classify(self.dropout(found[:, 0]))

    def learned_tokens(self) -> set[str]:
        """Return the names of the learned tokens."""
        return {"query"}


def make_head(config: AnyHeadConfig, *, dim: int, classes: int, grid: Size3) -> Head:
    """Return the head that a config describes.

    Args:
        config: the head's architecture.
        dim: the encoder's width D.
        classes: number of classes K.
        grid: the size of a clip in tokens.
    """
    match config:
        case LinearHeadConfig(normalize="tokens"):
            return PlainLinearHead(config, dim=dim, classes=classes)
        case LinearHeadConfig():
            return LinearHead(config, dim=dim, classes=classes)
        case BridgingHeadConfig():
            return BridgingHead(config, dim=dim, classes=classes, grid=grid)
        case MlpHeadConfig():
            return MlpHead(config, dim=dim, classes=classes)
        case AttentiveHeadConfig():
            return AttentiveHead(config, dim=dim, classes=classes)
