"""Heads: from tokens to class scores."""

import math
from typing import Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.conftest import count, randomize
from tubelet.models.heads import BridgingHead, BridgingHeadConfig, LinearHead, LinearHeadConfig, make_head

BRIDGING = BridgingHeadConfig(dim=16, depth=2, heads=2, mlp_dim=32)


def test_the_linear_head_normalizes_the_mean():
    head = LinearHead(LinearHeadConfig(), dim=8, classes=5)
    randomize(head)
    assert isinstance(head.classify, nn.Linear)
    x = torch.randn(3, 7, 8)
    mean = x.mean(1)
    centered = mean - mean.mean(-1, keepdim=True)
    normal = centered / (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    expected = F.linear(normal * head.norm.weight + head.norm.bias, head.classify.weight, head.classify.bias)
    torch.testing.assert_close(head(x), expected)


def test_the_bridging_head_takes_the_mean_before_its_norm():
    head = BridgingHead(BRIDGING, dim=8, classes=5)
    randomize(head)
    x = torch.randn(3, 7, 8)
    tokens = F.linear(x, head.embed.weight)
    for block in head.transformer.blocks:
        tokens = block(tokens)
    expected = head.classify(head.norm(tokens.mean(1)))
    torch.testing.assert_close(head(x), expected)
    assert not torch.allclose(head(x), head.classify(head.norm(tokens).mean(1)), atol=1e-3)


def test_the_bridging_head_has_key_biases_and_no_projection_bias():
    head = BridgingHead(BRIDGING, dim=8, classes=5)
    names = {name for name, _ in head.named_parameters()}
    assert "transformer.blocks.0.attention.qkv.bias" in names
    assert "embed.bias" not in names


@pytest.mark.parametrize("config", [LinearHeadConfig(), BRIDGING], ids=["linear", "bridging"])
def test_scores_do_not_depend_on_the_order_of_tokens(config: LinearHeadConfig | BridgingHeadConfig):
    head = make_head(config, dim=8, classes=5)
    randomize(head)
    x = torch.randn(2, 9, 8)
    torch.testing.assert_close(head(x[:, torch.randperm(9)]), head(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [LinearHeadConfig(dropout=0.5), BridgingHeadConfig(dropout=0.5)])
def test_dropout_is_on_only_in_training(config: LinearHeadConfig | BridgingHeadConfig):
    head = make_head(config, dim=8, classes=5)
    randomize(head)
    x = torch.randn(1, 4, 8)
    assert torch.equal(head.eval()(x), head(x))
    assert not torch.equal(head.train()(x), head(x))


def test_the_linear_head_starts_small():
    head = LinearHead(LinearHeadConfig(init_scale=0.001), dim=512, classes=400)
    assert isinstance(head.classify, nn.Linear)
    assert head.classify.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert not head.classify.bias.any()


def test_the_bridging_head_starts_xavier_uniform():
    weight = BridgingHead(BridgingHeadConfig(), dim=8, classes=174).classify.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (512 + 174)), rel=0.05)


@pytest.mark.parametrize(("classes", "parameters"), [(174, 6_395_566), (400, 6_511_504)])
def test_the_bridging_head_has_the_published_number_of_parameters(classes: int, parameters: int):
    with torch.device("meta"):
        head = make_head(BridgingHeadConfig(), dim=768, classes=classes)
    # The published head also counts a mask token of width 512 that it never uses, but not the projection.
    assert count(head) == parameters - 512 + 768 * 512


def test_the_kind_chooses_the_head():
    made: list[nn.Module] = [make_head(config, dim=8, classes=2) for config in (LinearHeadConfig(), BRIDGING)]
    assert [type(head) for head in made] == [LinearHead, BridgingHead]


def test_the_linear_head_may_take_only_the_first_token():
    head = LinearHead(LinearHeadConfig(pool="first"), dim=8, classes=5)
    randomize(head)
    x = torch.randn(3, 7, 8)
    expected = F.linear(
        F.layer_norm(x[:, 0], (8,), head.norm.weight, head.norm.bias, 1e-6), *head.classify.parameters()
    )
    torch.testing.assert_close(head(x), expected)
    changed = torch.cat([x[:, :1], torch.randn(3, 4, 8)], dim=1)
    assert torch.equal(head(changed), head(x))


def test_the_epsilon_of_the_linear_heads_norm_is_a_setting():
    head = LinearHead(LinearHeadConfig(norm_eps=0.5), dim=8, classes=5)
    randomize(head)
    mean = torch.randn(3, 8)
    centered = mean - mean.mean(-1, keepdim=True)
    normal = centered / (centered.square().mean(-1, keepdim=True) + 0.5).sqrt()
    expected = head.classify(normal * head.norm.weight + head.norm.bias)
    torch.testing.assert_close(head(mean[:, None]), expected)


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_without_classes_the_linear_head_gives_normalized_features(pool: Literal["mean", "first"]):
    head = LinearHead(LinearHeadConfig(pool=pool), dim=8, classes=0)
    randomize(head)
    x = torch.randn(3, 7, 8)
    pooled = x.mean(1) if pool == "mean" else x[:, 0]
    torch.testing.assert_close(head(x), F.layer_norm(pooled, (8,), head.norm.weight, head.norm.bias, 1e-6))
    assert {name for name, _ in head.named_parameters()} == {"norm.weight", "norm.bias"}
