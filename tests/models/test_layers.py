"""Attention, drop path, blocks and positions, against explicit arithmetic and published numbers."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.models.conftest import MAE_ST, TINY, TINY_DECODER
from tests.models.conftest import randomize as add_noise
from tubelet.masking import RandomMasking
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.layers import (
    Attention,
    Block,
    DropPath,
    Mlp,
    Transformer,
    checkpoint_activations,
    init_weights,
)


def randomize(module: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)


def norm(x: Tensor, layer: nn.LayerNorm, eps: float = 1e-6) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    return centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt() * layer.weight + layer.bias


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


def test_without_key_bias_only_queries_and_values_have_one():
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


def test_a_block_normalizes_before_each_branch():
    block = Block(8, 2, 16)
    randomize(block)
    x = torch.randn(2, 3, 8)

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


def test_a_bias_of_the_keys_changes_nothing():
    """Softmax cancels it: weights with one and weights without are the same model."""
    with_bias, without = Attention(12, 3, key_bias=True), Attention(12, 3, key_bias=False)
    randomize(with_bias)
    with torch.no_grad():
        without.qkv.weight.copy_(with_bias.qkv.weight)
        without.project.load_state_dict(with_bias.project.state_dict())
        query, _, value = with_bias.qkv.bias.chunk(3)
        without.query_bias.copy_(query)
        without.value_bias.copy_(value)
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(with_bias(x), without(x), rtol=1e-4, atol=1e-5)


def test_layer_scale_multiplies_each_branch():
    block = Block(8, 2, 16, layer_scale=0.1)
    randomize(block)
    assert block.scale1 is not None
    assert block.scale2 is not None
    x = torch.randn(2, 3, 8)
    expected = x + block.attention(norm(x, block.norm1)) * block.scale1
    expected = expected + block.mlp(norm(expected, block.norm2)) * block.scale2
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)
    plain = Block(8, 2, 16)
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if not k.startswith("scale")})
    assert not torch.allclose(block(x), plain(x), atol=1e-2)


def test_layer_scale_starts_at_its_first_value():
    scales = {
        name: p.tolist()
        for name, p in Transformer(4, 2, 1, 8, layer_scale=0.25).named_parameters()
        if "scale" in name
    }
    assert scales == {f"blocks.{block}.scale{branch}": [0.25] * 4 for block in (0, 1) for branch in (1, 2)}
    assert not [name for name, _ in Transformer(4, 2, 1, 8).named_parameters() if "scale" in name]


def test_the_epsilon_of_the_norms_is_a_setting():
    transformer = Transformer(8, 1, 2, 16, norm_eps=0.5)
    randomize(transformer)
    block = transformer.blocks[0]
    assert isinstance(block, Block)
    x = torch.randn(2, 3, 8)
    expected = x + block.attention(norm(x, block.norm1, 0.5))
    expected = expected + block.mlp(norm(expected, block.norm2, 0.5))
    torch.testing.assert_close(transformer(x), expected, rtol=1e-5, atol=1e-5)


def test_every_block_of_a_transformer_has_the_settings():
    transformer = Transformer(8, 3, 2, 16, key_bias=True, layer_scale=0.1, norm_eps=0.5)
    for block in transformer.blocks:
        assert isinstance(block, Block)
        assert block.attention.qkv.bias is not None
        assert block.scale1 is not None
        assert block.norm1.eps == block.norm2.eps == 0.5


def calls_of_blocks(model: nn.Module) -> list[Block]:
    """Appended to whenever a block computes."""
    calls: list[Block] = []
    for block in model.modules():
        if isinstance(block, Block):
            block.register_forward_pre_hook(lambda block, _: calls.append(block))
    return calls


@pytest.mark.parametrize(
    "config", [AutoencoderConfig(encoder=TINY, decoder=TINY_DECODER), MAE_ST], ids=["videomae", "mae_st"]
)
def test_with_checkpoints_the_loss_and_the_gradients_are_the_same(config: AutoencoderConfig, video: Tensor):
    mask = RandomMasking(ratio=0.5).sample(config.encoder.grid, 2, torch.Generator().manual_seed(0))
    model = MaskedAutoencoder(config).train()
    add_noise(model)
    model(video, mask).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    loss = model(video, mask).loss
    model.zero_grad()

    checkpoint_activations(model)
    calls = calls_of_blocks(model)
    again = model(video, mask).loss
    assert len(calls) == 3
    again.backward()
    assert len(calls) == 6
    assert torch.equal(again, loss)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_with_checkpoints_drop_path_drops_the_same_again():
    transformer = Transformer(8, 4, 2, 16, drop_path=0.5).train()
    randomize(transformer)
    x, wanted = torch.randn(6, 3, 8), torch.randn(6, 3, 8)
    gradients = []
    for _ in range(2):
        transformer.zero_grad()
        torch.manual_seed(3)
        functional.mse_loss(transformer(x), wanted).backward()
        gradients.append(
            {name: p.grad.clone() for name, p in transformer.named_parameters() if p.grad is not None}
        )
        checkpoint_activations(transformer)
    assert transformer.recompute
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_in_testing_nothing_is_computed_twice():
    transformer = Transformer(8, 2, 2, 16).eval()
    checkpoint_activations(transformer)
    calls = calls_of_blocks(transformer)
    transformer(torch.randn(1, 3, 8, requires_grad=True)).sum().backward()
    assert len(calls) == 2


def test_only_the_chosen_model_recomputes():
    checkpoint_activations(Transformer(8, 1, 2, 16))
    assert not Transformer(8, 1, 2, 16).recompute
