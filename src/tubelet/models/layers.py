"""The transformer that every model here is built from: pre-norm blocks with fused attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

NORM_EPS = 1e-6  # of every LayerNorm in VideoMAE, MAE-ST and MAR


class DropPath(nn.Module):
    """Skip the residual branch of whole samples while training (stochastic depth, arXiv 1603.09382).

    Args:
        rate: the probability of skipping, in [0, 1); branches that stay are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape (B, ...); each sample is kept or dropped whole."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep
        return x * (kept / keep).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with queries, keys and values from one matrix product.

    Args:
        dim: the width D, a multiple of `heads`.
        heads: the number of heads.
        key_bias: whether keys have a bias. VideoMAE's have none; softmax would cancel it.
    """

    def __init__(self, dim: int, heads: int, *, key_bias: bool) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads, found dim={dim} and heads={heads}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=key_bias)
        if not key_bias:
            self.query_bias = nn.Parameter(torch.zeros(dim))
            self.value_bias = nn.Parameter(torch.zeros(dim))
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        batch, tokens, dim = x.shape
        bias: Tensor | None = self.qkv.bias
        if bias is None:
            bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        qkv = functional.linear(x, self.qkv.weight, bias)
        query, key, value = qkv.view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = _attend(query, key, value)
        return self.project(mixed.transpose(1, 2).reshape(batch, tokens, dim))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention, each (B, heads, N, D / heads)."""
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value)
    with torch.autocast("cpu", enabled=False):  # its fused attention is far slower in bf16 than in fp32
        return functional.scaled_dot_product_attention(query.float(), key.float(), value.float())


class Mlp(nn.Sequential):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with layer scale both branches have learned factors."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_dim: int,
        *,
        key_bias: bool = False,
        layer_scale: float | None = None,
        norm_eps: float = NORM_EPS,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attention = Attention(dim, heads, key_bias=key_bias)
        self.scale1 = _layer_scale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, mlp_dim)
        self.scale2 = _layer_scale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        attended = self.attention(self.norm1(x))
        x = x + self.drop_path(attended if self.scale1 is None else attended * self.scale1)
        computed = self.mlp(self.norm2(x))
        return x + self.drop_path(computed if self.scale2 is None else computed * self.scale2)


def _layer_scale(dim: int, start: float | None) -> nn.Parameter | None:
    """A factor for each feature (arXiv 2103.17239)."""
    return None if start is None else nn.Parameter(torch.full((dim,), start))


class Transformer(nn.Module):
    """A stack of blocks. The drop-path rate grows linearly from 0 to `drop_path` with depth.

    Args:
        dim: width of the tokens.
        depth: number of blocks.
        heads: attention heads of a block.
        mlp_dim: hidden width of a block's MLP.
        key_bias: whether keys have a bias.
        layer_scale: first value of the branches' learned factors; None has none.
        norm_eps: epsilon of the LayerNorms.
        drop_path: the last block's rate.
    """

    recompute = False
    """Whether training keeps only the blocks' inputs and computes the rest again in the backward pass."""

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        *,
        key_bias: bool = False,
        layer_scale: float | None = None,
        norm_eps: float = NORM_EPS,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(
                dim,
                heads,
                mlp_dim,
                key_bias=key_bias,
                layer_scale=layer_scale,
                norm_eps=norm_eps,
                drop_path=rate,
            )
            for rate in rates
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        for block in self.blocks:
            if self.recompute and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


def checkpoint_activations(model: nn.Module) -> None:
    """Trade a third more computing for most of a training step's memory, in all transformers of a model."""
    for module in model.modules():
        if isinstance(module, Transformer):
            module.recompute = True


def init_weights(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases in every linear layer below `module` (VideoMAE's start)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
