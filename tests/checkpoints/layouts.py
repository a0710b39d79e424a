"""Checkpoints of every layout: the names and shapes of the public code bases, written by hand.

Nothing here is made from Tubelet's own tables, which these lists test.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a model; the defaults are small, with odd widths."""

    dim: int = 24
    depth: int = 2
    mlp: int = 40
    patch: int = 4
    tubelet: int = 2
    times: int = 2  # the grid of tokens: 4 frames of 12 x 12 pixels
    side: int = 3
    decoder_dim: int = 64
    decoder_depth: int = 1
    decoder_mlp: int = 72
    predicted: int = 2  # frames of a token
    bridge_dim: int = 128
    bridge_depth: int = 1
    bridge_mlp: int = 48
    classes: int = 5

    @property
    def tokens(self) -> int:
        return self.times * self.side**2

    @property
    def values(self) -> int:
        return self.predicted * self.patch**2 * 3


TINY = Sizes()
HINTS: dict[str, Any] = {
    "heads": 3,
    "image_size": 12,
    "frames": 4,
}  # what the shapes of a tiny file do not say

BASE = Sizes(
    dim=768, depth=12, mlp=3072, patch=16, times=8, side=14, decoder_dim=384, decoder_depth=4,
    decoder_mlp=1536, bridge_dim=512, bridge_depth=2, bridge_mlp=2048, classes=400,
)  # fmt: skip


def random_weights(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random numbers, small enough to compute with."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def meta_weights(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors that take no memory."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def count(shapes: Shapes) -> int:
    """All numbers in a file."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def sinusoid(tokens: int, dim: int) -> Tensor:
    """The fixed table, by the definition."""
    rows = [[n / 10000 ** (2 * (j // 2) / dim) for j in range(dim)] for n in range(tokens)]
    table = torch.tensor(rows, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = table[:, 0::2].sin(), table[:, 1::2].cos()
    return table.float()[None]


def affine(name: str, out: int, into: int | None = None) -> Shapes:
    """A linear layer's weight and bias, or a LayerNorm's."""
    return {f"{name}.weight": (out,) if into is None else (out, into), f"{name}.bias": (out,)}


def convolution(name: str, s: Sizes) -> Shapes:
    return {f"{name}.weight": (s.dim, 3, s.tubelet, s.patch, s.patch), f"{name}.bias": (s.dim,)}


def videomae_blocks(prefix: str, dim: int, depth: int, mlp: int, *, scaled: bool = False) -> Shapes:
    """Queries, keys and values in one matrix; separate biases of queries and values, none of keys."""
    shapes: Shapes = {}
    for i in range(depth):
        block = f"{prefix}.{i}"
        if scaled:
            shapes |= {f"{block}.gamma_1": (dim,), f"{block}.gamma_2": (dim,)}
        shapes |= affine(f"{block}.norm1", dim) | affine(f"{block}.norm2", dim)
        shapes |= {f"{block}.attn.q_bias": (dim,), f"{block}.attn.v_bias": (dim,)}
        shapes |= {f"{block}.attn.qkv.weight": (3 * dim, dim)} | affine(f"{block}.attn.proj", dim, dim)
        shapes |= affine(f"{block}.mlp.fc1", mlp, dim) | affine(f"{block}.mlp.fc2", dim, mlp)
    return shapes


def videomae_autoencoder(s: Sizes, *, encoder: str = "encoder", scaled: bool = False) -> Shapes:
    """VideoMAE's pre-training; MAR calls the encoder `backbone`."""
    return {
        "mask_token": (1, 1, s.decoder_dim),
        **convolution(f"{encoder}.patch_embed.proj", s),
        **videomae_blocks(f"{encoder}.blocks", s.dim, s.depth, s.mlp, scaled=scaled),
        **affine(f"{encoder}.norm", s.dim),
        "encoder_to_decoder.weight": (s.decoder_dim, s.dim),
        **videomae_blocks("decoder.blocks", s.decoder_dim, s.decoder_depth, s.decoder_mlp, scaled=scaled),
        **affine("decoder.norm", s.decoder_dim),
        **affine("decoder.head", s.values, s.decoder_dim),
    }


def videomae_classifier(s: Sizes, *, norm: str = "fc_norm", scaled: bool = False) -> Shapes:
    """Without classes only an encoder, as VideoMAE V2 publishes it."""
    return {
        **convolution("patch_embed.proj", s),
        **videomae_blocks("blocks", s.dim, s.depth, s.mlp, scaled=scaled),
        **affine(norm, s.dim),
        **(affine("head", s.classes, s.dim) if s.classes else {}),
    }


def mae_st_blocks(prefix: str, dim: int, depth: int, mlp: int, *, fused: bool) -> Shapes:
    """Queries, keys and values in three layers or fused in one; all have biases."""
    shapes: Shapes = {}
    for i in range(depth):
        block = f"{prefix}.{i}"
        shapes |= affine(f"{block}.norm1", dim)
        if fused:
            shapes |= affine(f"{block}.attn.qkv", 3 * dim, dim)
        else:
            for part in "qkv":
                shapes |= affine(f"{block}.attn.{part}", dim, dim)
        shapes |= affine(f"{block}.attn.proj", dim, dim) | affine(f"{block}.norm2", dim)
        shapes |= affine(f"{block}.mlp.fc1", mlp, dim) | affine(f"{block}.mlp.fc2", dim, mlp)
    return shapes


def mae_st_positions(name: str, s: Sizes, dim: int, *, joint: bool, token: bool) -> Shapes:
    if joint:
        return {name: (1, s.tokens + token, dim)}
    shapes: Shapes = {f"{name}_spatial": (1, s.side**2, dim), f"{name}_temporal": (1, s.times, dim)}
    return shapes | ({f"{name}_class": (1, 1, dim)} if token else {})


def mae_st_encoder(s: Sizes, *, joint: bool = False, token: bool = True, fused: bool = False) -> Shapes:
    return {
        **({"cls_token": (1, 1, s.dim)} if token else {}),
        **mae_st_positions("pos_embed", s, s.dim, joint=joint, token=token),
        **convolution("patch_embed.proj", s),
        **mae_st_blocks("blocks", s.dim, s.depth, s.mlp, fused=fused),
        **affine("norm", s.dim),
    }


def mae_st_autoencoder(s: Sizes, *, joint: bool = False, token: bool = True, fused: bool = False) -> Shapes:
    """The public code's pre-training."""
    dim = s.decoder_dim
    return {
        **mae_st_encoder(s, joint=joint, token=token, fused=fused),
        **({"decoder_cls_token": (1, 1, dim)} if token else {}),
        **affine("decoder_embed", dim, s.dim),
        "mask_token": (1, 1, dim),
        **mae_st_positions("decoder_pos_embed", s, dim, joint=joint, token=token),
        **mae_st_blocks("decoder_blocks", dim, s.decoder_depth, s.decoder_mlp, fused=fused),
        **affine("decoder_norm", dim),
        **affine("decoder_pred", s.values, dim),
    }


def mae_st_released(s: Sizes, *, fused: bool = False, fused_decoder: bool = False) -> Shapes:
    """The released files, which PySlowFast wrote."""
    dim, decoder = s.decoder_dim, "pred_head.transforms.0"
    return {
        **mae_st_encoder(s, fused=fused),
        **affine("decoder_embed", dim, s.dim),
        "mask_token": (1, 1, dim),
        "decoder_pos_embed": (1, s.tokens + 1, dim),
        **mae_st_blocks(decoder, dim, s.decoder_depth, s.decoder_mlp, fused=fused_decoder),
        **affine(f"{decoder}.{s.decoder_depth}", dim),
        **affine("pred_head.projections.0", s.values, dim),
    }


def mae_st_classifier(s: Sizes, *, head: str = "head", fused: bool = False) -> Shapes:
    """PySlowFast calls the last layer `head.projection`."""
    return mae_st_encoder(s, fused=fused) | (affine(head, s.classes, s.dim) if s.classes else {})


def mmaction2(s: Sizes, *, positions: bool = True) -> Shapes:
    shapes: Shapes = {"backbone.pos_embed": (1, s.tokens, s.dim)} if positions else {}
    shapes |= convolution("backbone.patch_embed.projection", s)
    for name, shape in videomae_blocks("backbone.blocks", s.dim, s.depth, s.mlp).items():
        name = name.replace("mlp.fc1", "mlp.layers.0.0").replace("mlp.fc2", "mlp.layers.1")
        shapes[name] = shape
    return shapes | affine("backbone.fc_norm", s.dim) | affine("cls_head.fc_cls", s.classes, s.dim)


def mar(s: Sizes) -> Shapes:
    shapes: Shapes = {
        "mean": (1, 3, 1, 1, 1),
        "std": (1, 3, 1, 1, 1),
        "pos_embed": (1, s.tokens, s.decoder_dim),
        **videomae_autoencoder(s, encoder="backbone"),
        "encoder_to_cls_decoder.weight": (s.bridge_dim, s.dim),
        "cls_head.mask_token": (1, 1, s.bridge_dim),
    }
    for i in range(s.bridge_depth):
        block, dim = f"cls_head.blocks.{i}", s.bridge_dim
        shapes |= affine(f"{block}.norm", dim) | affine(f"{block}.norm_ffn", dim)
        shapes |= affine(f"{block}.attn.to_qkv", 3 * dim, dim) | affine(f"{block}.attn.proj", dim, dim)
        shapes |= affine(f"{block}.ffn.net.0", s.bridge_mlp, dim)
        shapes |= affine(f"{block}.ffn.net.3", dim, s.bridge_mlp)
    return shapes | affine("cls_head.norm", s.bridge_dim) | affine("cls_head.head", s.classes, s.bridge_dim)


def with_constants(weights: dict[str, Tensor], s: Sizes) -> dict[str, Tensor]:
    """Add what MAR's and mmaction2's code computes and their files contain nevertheless."""
    if "backbone.pos_embed" in weights:
        return weights | {"backbone.pos_embed": sinusoid(s.tokens, s.dim)}
    if "cls_head.mask_token" in weights:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        shape = (1, 3, 1, 1, 1)
        table = sinusoid(s.tokens, s.decoder_dim)
        return weights | {"mean": mean.view(shape), "std": std.view(shape), "pos_embed": table}
    return weights


def huggingface_blocks(prefix: str, dim: int, depth: int, mlp: int, biases: Iterable[str]) -> Shapes:
    shapes: Shapes = {}
    for i in range(depth):
        block = f"{prefix}.{i}"
        inner = f"{block}.attention.attention"
        shapes |= {f"{inner}.{part}.weight": (dim, dim) for part in ("query", "key", "value")}
        shapes |= {f"{inner}.{bias}": (dim,) for bias in biases}
        shapes |= affine(f"{block}.attention.output.dense", dim, dim)
        shapes |= affine(f"{block}.intermediate.dense", mlp, dim) | affine(f"{block}.output.dense", dim, mlp)
        shapes |= affine(f"{block}.layernorm_before", dim) | affine(f"{block}.layernorm_after", dim)
    return shapes


HUB_BIASES = ("q_bias", "v_bias")
MODULE_BIASES = ("query.bias", "value.bias")


def huggingface_autoencoder(s: Sizes, biases: Iterable[str] = HUB_BIASES) -> Shapes:
    return {
        **convolution("videomae.embeddings.patch_embeddings.projection", s),
        **huggingface_blocks("videomae.encoder.layer", s.dim, s.depth, s.mlp, biases),
        **affine("videomae.layernorm", s.dim),
        "encoder_to_decoder.weight": (s.decoder_dim, s.dim),
        "mask_token": (1, 1, s.decoder_dim),
        **huggingface_blocks("decoder.decoder_layers", s.decoder_dim, s.decoder_depth, s.decoder_mlp, biases),
        **affine("decoder.norm", s.decoder_dim),
        **affine("decoder.head", s.values, s.decoder_dim),
    }


def huggingface_classifier(s: Sizes, biases: Iterable[str] = HUB_BIASES, norm: str = "fc_norm") -> Shapes:
    return {
        **convolution("videomae.embeddings.patch_embeddings.projection", s),
        **huggingface_blocks("videomae.encoder.layer", s.dim, s.depth, s.mlp, biases),
        **affine(norm, s.dim),
        **affine("classifier", s.classes, s.dim),
    }


def huggingface_config(s: Sizes, heads: int = 3, decoder_heads: int = 1) -> dict[str, object]:
    """`config.json` of a folder."""
    return {
        "model_type": "videomae",
        "image_size": s.side * s.patch,
        "patch_size": s.patch,
        "num_frames": s.times * s.tubelet,
        "tubelet_size": s.tubelet,
        "hidden_size": s.dim,
        "num_hidden_layers": s.depth,
        "num_attention_heads": heads,
        "intermediate_size": s.mlp,
        "layer_norm_eps": 1e-12,
        "decoder_hidden_size": s.decoder_dim,
        "decoder_num_hidden_layers": s.decoder_depth,
        "decoder_num_attention_heads": decoder_heads,
        "decoder_intermediate_size": s.decoder_mlp,
    }
