"""Classification heads: from encoded tokens to class scores."""

from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor, nn

from tubelet.errors import require_above, require_at_least, require_below_1, require_between
from tubelet.models.layers import NORM_EPS, Transformer, init_weights
from tubelet.models.sizes import MOST_DEEP, MOST_WIDE
from tubelet.settings import BY_KIND


@dataclass(frozen=True, kw_only=True)
class LinearHeadConfig:
    """Mean of the tokens, LayerNorm, one linear layer: VideoMAE's and MAE-ST's fine-tuned classifiers.

    Attributes:
        pool: `mean` of all tokens, or only the `first` token, as in Hugging Face's port with
            `use_mean_pooling: false`.
        norm_eps: epsilon of the LayerNorm.
        keep_norm: whether the LayerNorm starts from the pre-trained encoder's last LayerNorm (MAE-ST) or from
            ones and zeros (VideoMAE).
        dropout: dropout before the last layer, in [0, 1).
        init_scale: factor on the initial weights of the last layer.
    """

    kind: Literal["linear"] = "linear"
    pool: Literal["mean", "first"] = "mean"
    norm_eps: float = NORM_EPS
    keep_norm: bool = False
    dropout: float = 0.0
    init_scale: float = 0.001

    def __post_init__(self) -> None:
        require_at_least(0, norm_eps=self.norm_eps)
        require_above(0, init_scale=self.init_scale)
        require_below_1(dropout=self.dropout)


@dataclass(frozen=True, kw_only=True)
class BridgingHeadConfig:
    """Narrower transformer blocks before the mean: MAR's bridging classifier (arXiv 2207.11660, III-C).

    Attributes:
        dim: width of the tokens in these blocks.
        depth: number of blocks.
        heads: attention heads of a block.
        mlp_dim: hidden width of a block's MLP.
        dropout: dropout before the last layer, in [0, 1).
    """

    kind: Literal["bridging"] = "bridging"
    dim: int = 512
    depth: int = 2
    heads: int = 4
    mlp_dim: int = 2048
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_between(1, MOST_WIDE, dim=self.dim, heads=self.heads, mlp_dim=self.mlp_dim)
        require_between(0, MOST_DEEP, depth=self.depth)
        require_below_1(dropout=self.dropout)


AnyHeadConfig = Annotated[LinearHeadConfig | BridgingHeadConfig, BY_KIND]


class LinearHead(nn.Module):
    """A linear classifier: (B, N, D) to (B, K), for any number of tokens N."""

    def __init__(self, config: LinearHeadConfig, *, dim: int, classes: int) -> None:
        super().__init__()
        self.pool = config.pool
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(dim, classes) if classes else nn.Identity()
        if isinstance(self.classify, nn.Linear):
            nn.init.trunc_normal_(self.classify.weight, std=0.02 * config.init_scale)
            nn.init.zeros_(self.classify.bias)

    def forward(self, encoded: Tensor) -> Tensor:
        """Return logits (B, K), or features (B, D) if there are no classes."""
        pooled = encoded.mean(1) if self.pool == "mean" else encoded[:, 0]
        return self.classify(self.dropout(self.norm(pooled)))

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks: an empty list."""
        return []


class BridgingHead(nn.Module):
    """MAR's bridging classifier: (B, N, D) to (B, K), for any number of tokens N, without positions."""

    def __init__(self, config: BridgingHeadConfig, *, dim: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, config.dim, bias=False)
        self.transformer = Transformer(config.dim, config.depth, config.heads, config.mlp_dim, key_bias=True)
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(config.dim, classes)
        init_weights(self.transformer)
        init_weights(self.classify)

    def forward(self, encoded: Tensor) -> Tensor:
        """Return logits (B, K)."""
        pooled = self.transformer(self.embed(encoded)).mean(1)
        return self.classify(self.dropout(self.norm(pooled)))

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, first to last."""
        return list(self.transformer.blocks)


def make_head(config: AnyHeadConfig, *, dim: int, classes: int) -> LinearHead | BridgingHead:
    """Return the head that a config describes."""
    if isinstance(config, BridgingHeadConfig):
        return BridgingHead(config, dim=dim, classes=classes)
    return LinearHead(config, dim=dim, classes=classes)
