"""The published models as slow plain functions of the files' own tensors.

They share nothing with Tubelet except PyTorch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from tests.checkpoints.layouts import sinusoid

Weights = Mapping[str, Tensor]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAE_ST = (0.45,) * 3, (0.225,) * 3


def normalized(video: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (B, T, C, H, W) to what the public code feeds, (B, C, T, H, W)."""
    shape = (1, 3, 1, 1, 1)
    return (video.transpose(1, 2) / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def embedded(clip: Tensor, w: Weights, name: str) -> Tensor:
    """Tokens (B, N, D) of (B, C, T, H, W)."""
    kernel = w[f"{name}.weight"]
    return functional.conv3d(clip, kernel, w[f"{name}.bias"], stride=kernel.shape[2:]).flatten(2).mT


def attention(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    """Attention with any of the spellings."""
    if f"{name}.qkv.weight" in w:
        bias = w.get(f"{name}.qkv.bias")
        if bias is None:
            query, value = w[f"{name}.q_bias"], w[f"{name}.v_bias"]
            bias = torch.cat([query, torch.zeros_like(query), value])
        parts = (x @ w[f"{name}.qkv.weight"].T + bias).chunk(3, -1)
    else:
        parts = tuple(linear(x, w, f"{name}.{part}") for part in "qkv")
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    return linear((weights @ value).transpose(1, 2).flatten(2), w, f"{name}.proj")


def blocks(x: Tensor, w: Weights, prefix: str, depth: int, heads: int) -> Tensor:
    for i in range(depth):
        block = f"{prefix}.{i}"
        attended = attention(norm(x, w, f"{block}.norm1"), w, f"{block}.attn", heads)
        x = x + w.get(f"{block}.gamma_1", torch.ones(())) * attended
        hidden = functional.gelu(linear(norm(x, w, f"{block}.norm2"), w, f"{block}.mlp.fc1"))
        x = x + w.get(f"{block}.gamma_2", torch.ones(())) * linear(hidden, w, f"{block}.mlp.fc2")
    return x


def videomae_tokens(video: Tensor, w: Weights, depth: int, heads: int, prefix: str = "") -> Tensor:
    """Embedded, with positions; then all blocks."""
    x = embedded(normalized(video, *IMAGENET), w, f"{prefix}patch_embed.proj")
    return blocks(x + sinusoid(*x.shape[1:]), w, f"{prefix}blocks", depth, heads)


def mae_st_positions(w: Weights, name: str) -> tuple[Tensor | None, Tensor]:
    """The class token's position, if there is one, and the table."""
    if f"{name}_spatial" in w:
        space, time = w[f"{name}_spatial"], w[f"{name}_temporal"]
        table = (time[:, :, None] + space[:, None]).flatten(1, 2)
        return w.get(f"{name}_class"), table
    table = w[name]
    return (table[:, :1], table[:, 1:]) if "cls_token" in w else (None, table)


def mae_st_tokens(video: Tensor, w: Weights, depth: int, heads: int, visible: Tensor | None = None) -> Tensor:
    """(B, 1 + V, D), the class token first if there is one; `visible` (V,) is the same for all clips."""
    class_position, table = mae_st_positions(w, "pos_embed")
    x = embedded(normalized(video, *MAE_ST), w, "patch_embed.proj") + table
    x = x if visible is None else x[:, visible]
    if class_position is not None:
        x = torch.cat([(w["cls_token"] + class_position).expand(len(x), -1, -1), x], dim=1)
    return blocks(x, w, "blocks", depth, heads)


def mae_st_predicted(encoded: Tensor, w: Weights, visible: Tensor, depth: int, heads: int) -> Tensor:
    """Predictions for all tokens (B, N, values) by the public code's decoder."""
    class_position, table = mae_st_positions(w, "decoder_pos_embed")
    x = linear(encoded[:, encoded.shape[1] - len(visible) :], w, "decoder_embed")
    grid = w["mask_token"].repeat(len(x), table.shape[1], 1)
    grid[:, visible] = x
    grid = grid + table
    if class_position is not None:
        grid = torch.cat([(w["decoder_cls_token"] + class_position).expand(len(x), -1, -1), grid], dim=1)
    grid = norm(blocks(grid, w, "decoder_blocks", depth, heads), w, "decoder_norm")
    return linear(grid, w, "decoder_pred")[:, grid.shape[1] - table.shape[1] :]
