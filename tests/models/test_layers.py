"""Attention, drop path, blocks and positions, against explicit arithmetic and published numbers."""

import math

import pytest
import torch
from torch import nn

from tubelet.models.layers import Attention, Block, DropPath, Mlp, Transformer, init_weights


def randomize(module: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)


@pytest.mark.parametrize("key_bias", [False, True])
def test_attention_is_softmax_attention(key_bias: bool):
    attention = Attention(12, 3, key_bias=key_bias)
    randomize(attention)
    x = torch.randn(2, 5, 12)
    bias: torch.Tensor = attention.qkv.bias
    if not key_bias:
        bias = torch.cat([attention.query_bias, torch.zeros(12), attention.value_bias])
    query, key, value = (x @ attention.qkv.weight.T + bias).chunk(3, dim=-1)
    mixed = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(4)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        mixed.append(weights @ value[..., part])
    expected = torch.cat(mixed, -1) @ attention.project.weight.T + attention.project.bias
    torch.testing.assert_close(attention(x), expected, rtol=1e-5, atol=1e-5)


def test_without_key_bias_queries_and_values_alone_have_one():
    names = {name for name, _ in Attention(8, 2, key_bias=False).named_parameters()}
    assert names == {"qkv.weight", "query_bias", "value_bias", "project.weight", "project.bias"}


def test_with_key_bias_there_is_one_for_all_three():
    attention = Attention(8, 2, key_bias=True)
    assert {name for name, _ in attention.named_parameters()} == {
        "qkv.weight", "qkv.bias", "project.weight", "project.bias",
    }  # fmt: skip
    assert attention.qkv.bias.shape == (24,)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim must be a multiple of heads, found dim=10 and heads=3"):
        Attention(10, 3, key_bias=False)


def test_the_mlp_has_an_exact_gelu():
    mlp = Mlp(4, 8)
    randomize(mlp)
    x = torch.randn(3, 4)
    first, _, last = mlp
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    hidden = x @ first.weight.T + first.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(mlp(x), hidden @ last.weight.T + last.bias)


def test_a_block_normalises_before_each_branch():
    block = Block(8, 2, 16)
    randomize(block)
    x = torch.randn(2, 3, 8)

    def norm(x: torch.Tensor, layer: nn.LayerNorm) -> torch.Tensor:
        centered = x - x.mean(-1, keepdim=True)
        return centered / (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias

    expected = x + block.attention(norm(x, block.norm1))
    expected = expected + block.mlp(norm(expected, block.norm2))
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_drop_path_keeps_or_drops_whole_samples_and_their_mean():
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    out = layer(torch.ones(8000, 2, 3))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (out == out[:, :1, :1]).all()
    assert out.mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("rate", "training"), [(0.9, False), (0.0, True)])
def test_drop_path_is_off_in_testing_and_at_rate_zero(rate: float, training: bool):
    x = torch.randn(50, 3)
    assert torch.equal(DropPath(rate).train(training)(x), x)


def test_drop_path_keeps_the_dtype():
    assert DropPath(0.5).train()(torch.ones(4, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_drop_path_grows_linearly_with_depth():
    blocks = Transformer(4, 5, 1, 8, drop_path=0.2).blocks
    rates = [block.drop_path.rate for block in blocks if isinstance(block, Block)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_the_first_weights_are_xavier_uniform_and_biases_zero():
    torch.manual_seed(0)
    layer = nn.Linear(300, 200)
    init_weights(nn.Sequential(layer))
    bound = math.sqrt(6 / 500)
    assert 0.98 * bound < layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not layer.bias.any()


def test_attention_under_bf16_autocast_stays_close() -> None:
    torch.manual_seed(0)
    attention = Attention(32, 4, key_bias=False)
    x = torch.randn(2, 9, 32)
    expected = attention(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(x)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=2e-2, rtol=2e-2)
