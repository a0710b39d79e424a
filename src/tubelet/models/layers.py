"""The transformer in all models: pre-norm blocks with fused attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

NORM_EPS = 1e-6
"""The epsilon of every LayerNorm in VideoMAE, MAE-ST and MAR."""


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): skips the residual branch of whole samples in training.

    Args:
        rate: the probability of skipping, in [0, 1); the other branches are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop or keep each sample of (B, ...) as a whole."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep
        return x * (kept / keep).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with queries, keys and values from one matrix product.

    Args:
        dim: width D of the tokens, a multiple of `heads`.
        heads: number of attention heads.
        key_bias: whether keys have a bias. VideoMAE's do not; softmax would cancel it.
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
        """Map (B, N, D) to (B, N, D)."""
        batch, tokens, dim = x.shape
        bias: Tensor | None = self.qkv.bias
        if bias is None:
            bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        qkv = functional.linear(x, self.qkv.weight, bias)
        query, key, value = qkv.view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = _attend(query, key, value)
        return self.project(mixed.transpose(1, 2).reshape(batch, tokens, dim))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax attention; all tensors are (B, heads, N, D / heads)."""
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value)
    with torch.autocast("cpu", enabled=False):  # on CPUs, fused attention is far slower in bf16 than in fp32
        return functional.scaled_dot_product_attention(query.float(), key.float(), value.float())


class Mlp(nn.Sequential):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), each branch with an optional layer scale."""

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
        """Map (B, N, D) to (B, N, D)."""
        attended = self.attention(self.norm1(x))
        x = x + self.drop_path(attended if self.scale1 is None else attended * self.scale1)
        hidden = self.mlp(self.norm2(x))
        return x + self.drop_path(hidden if self.scale2 is None else hidden * self.scale2)


def _layer_scale(dim: int, start: float | None) -> nn.Parameter | None:
    """Return a learned factor for each feature (arXiv 2103.17239)."""
    return None if start is None else nn.Parameter(torch.full((dim,), start))


class Transformer(nn.Module):
    """A stack of blocks. The drop-path rate grows linearly from 0 to `drop_path` with depth.

    Args:
        dim: width of the tokens.
        depth: number of blocks.
        heads: attention heads of a block.
        mlp_dim: hidden width of a block's MLP.
        key_bias: whether keys have a bias.
        layer_scale: first value of the branches' learned factors; None: without factors.
        norm_eps: epsilon of the LayerNorms.
        drop_path: drop-path rate of the last block.
    """

    recompute = False
    """Whether training keeps only the blocks' inputs and recomputes the rest in the backward pass."""

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
        """Map (B, N, D) to (B, N, D)."""
        for block in self.blocks:
            if self.recompute and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x

    def block_of(self, name: str) -> int:
        """Return the index of the block that a parameter is in, such as 3 for `blocks.3.norm1.weight`."""
        return int(name.removeprefix("blocks.").partition(".")[0])


def checkpoint_activations(model: nn.Module) -> None:
    """Recompute activations in training, in all transformers of a model: more computing, far less memory."""
    for module in model.modules():
        if isinstance(module, Transformer):
            module.recompute = True


def init_weights(module: nn.Module) -> None:
    """Set Xavier-uniform weights and zero biases in every linear layer of a module, as VideoMAE does."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
