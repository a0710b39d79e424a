"""Heads: from tokens to class scores."""

import math
from typing import Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.conftest import count, randomize
from tubelet.errors import UserError
from tubelet.masking import TokenMask
from tubelet.models.heads import (
    AttentiveHeadConfig,
    BridgingHead,
    BridgingHeadConfig,
    LinearHead,
    LinearHeadConfig,
    MlpHeadConfig,
    make_head,
)
from tubelet.models.positions import sinusoid_table
from tubelet.patches import Size3

GRID = Size3(1, 3, 3)
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
    head = BridgingHead(BRIDGING, dim=8, classes=5, grid=GRID)
    randomize(head)
    x = torch.randn(3, 7, 8)
    tokens = F.linear(x, head.embed.weight)
    for block in head.transformer.blocks:
        tokens = block(tokens)
    expected = head.classify(head.norm(tokens.mean(1)))
    torch.testing.assert_close(head(x), expected)
    assert not torch.allclose(head(x), head.classify(head.norm(tokens).mean(1)), atol=1e-3)


def test_the_bridging_head_has_key_biases_and_no_projection_bias():
    head = BridgingHead(BRIDGING, dim=8, classes=5, grid=GRID)
    names = {name for name, _ in head.named_parameters()}
    assert "transformer.blocks.0.attention.qkv.bias" in names
    assert "embed.bias" not in names


@pytest.mark.parametrize("config", [LinearHeadConfig(), BRIDGING], ids=["linear", "bridging"])
def test_scores_do_not_depend_on_the_order_of_tokens(config: LinearHeadConfig | BridgingHeadConfig):
    head = make_head(config, dim=8, classes=5, grid=GRID)
    randomize(head)
    x = torch.randn(2, 9, 8)
    torch.testing.assert_close(head(x[:, torch.randperm(9)]), head(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [LinearHeadConfig(dropout=0.5), BridgingHeadConfig(dropout=0.5)])
def test_dropout_is_on_only_in_training(config: LinearHeadConfig | BridgingHeadConfig):
    head = make_head(config, dim=8, classes=5, grid=GRID)
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
    weight = BridgingHead(BridgingHeadConfig(), dim=8, classes=174, grid=GRID).classify.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (512 + 174)), rel=0.05)


@pytest.mark.parametrize(("classes", "parameters"), [(174, 6_395_566), (400, 6_511_504)])
def test_the_bridging_head_has_the_published_number_of_parameters(classes: int, parameters: int):
    with torch.device("meta"):
        head = make_head(BridgingHeadConfig(), dim=768, classes=classes, grid=GRID)
    # The published head also counts a mask token of width 512 that it never uses, but not the projection.
    assert count(head) == parameters - 512 + 768 * 512


def test_the_kind_chooses_the_head():
    made: list[nn.Module] = [
        make_head(config, dim=8, classes=2, grid=GRID) for config in (LinearHeadConfig(), BRIDGING)
    ]
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


def test_the_linear_head_may_take_the_mean_of_normalized_tokens():
    head = make_head(LinearHeadConfig(normalize="tokens"), dim=8, classes=5, grid=GRID)
    randomize(head)
    assert isinstance(head.classify, nn.Linear)
    x = torch.randn(3, 7, 8)
    expected = F.linear(x.mean(1), head.classify.weight, head.classify.bias)
    torch.testing.assert_close(head(x), expected)
    with pytest.raises(UserError, match="keep_norm"):
        LinearHeadConfig(normalize="tokens", keep_norm=True)


def test_the_mlp_head_takes_the_mean_of_hidden_tokens():
    head = make_head(MlpHeadConfig(dim=6), dim=8, classes=5, grid=GRID)
    randomize(head)
    weights = dict(head.named_parameters())
    x = torch.randn(3, 7, 8)
    hidden = F.gelu(F.linear(x, weights["embed.weight"], weights["embed.bias"])).mean(1)
    torch.testing.assert_close(
        head(x), F.linear(hidden, weights["classify.weight"], weights["classify.bias"])
    )


def test_the_attentive_head_is_attention_of_one_query_by_hand():
    head = make_head(AttentiveHeadConfig(heads=2, mlp_ratio=2), dim=8, classes=5, grid=GRID)
    randomize(head)
    w = dict(head.named_parameters())
    x = torch.randn(3, 7, 8)
    tokens = F.layer_norm(x, (8,), w["norm1.weight"], w["norm1.bias"], 1e-6)
    key, value = F.linear(tokens, w["key_value.weight"], w["key_value.bias"]).split(8, dim=-1)
    mixed = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = (key[..., part] @ w["query"][0, 0, part]) / 2
        mixed.append((scores.softmax(1)[..., None] * value[..., part]).sum(1))
    found = w["query"][:, 0] + F.linear(torch.cat(mixed, 1), w["project.weight"], w["project.bias"])
    hidden = F.layer_norm(found, (8,), w["norm2.weight"], w["norm2.bias"], 1e-6)
    hidden = F.gelu(F.linear(hidden, w["mlp.0.weight"], w["mlp.0.bias"]))
    found = found + F.linear(hidden, w["mlp.2.weight"], w["mlp.2.bias"])
    torch.testing.assert_close(head(x), F.linear(found, w["classify.weight"], w["classify.bias"]))
    assert head.learned_tokens() == {"query"}


def test_the_bridging_head_may_take_positions_and_mask_tokens():
    x = torch.randn(2, 4, 8)
    mask = TokenMask(
        torch.tensor([[0, 2, 3, 8], [1, 4, 5, 6]]), torch.tensor([[1, 4, 5, 6, 7], [0, 2, 3, 7, 8]])
    )
    table = sinusoid_table(9, 16)[0]
    for positions, mask_tokens in ((True, False), (False, True), (True, True)):
        config = BridgingHeadConfig(
            dim=16, depth=1, heads=2, mlp_dim=32, positions=positions, mask_tokens=mask_tokens
        )
        head = BridgingHead(config, dim=8, classes=5, grid=GRID)
        randomize(head)
        for row in range(2):
            tokens = {}  # by index in the clip
            for at, token in enumerate(mask.visible[row].tolist()):
                tokens[token] = head.embed(x[row, at])
            if mask_tokens:
                assert head.mask_token is not None
                tokens |= dict.fromkeys(mask.masked[row].tolist(), head.mask_token[0, 0])
            rows = torch.stack([v + table[i] if positions else v for i, v in sorted(tokens.items())])
            expected = head.classify(head.norm(head.transformer(rows[None]).mean(1)))
            torch.testing.assert_close(head(x, mask)[row : row + 1], expected)
        assert head.learned_tokens() == ({"mask_token"} if mask_tokens else set())


def test_every_head_starts_from_tokens_of_any_number_and_learns_with_all_its_parameters():
    for config in (
        MlpHeadConfig(), AttentiveHeadConfig(heads=2), LinearHeadConfig(normalize="tokens"),
        BridgingHeadConfig(dim=16, heads=2, positions=True, mask_tokens=True),
    ):  # fmt: skip
        head = make_head(config, dim=8, classes=5, grid=GRID)
        assert head(torch.randn(2, 9, 8)).shape == (2, 5)
        mask = TokenMask(torch.arange(4).expand(2, -1), torch.arange(4, 9).expand(2, -1))
        head(torch.randn(2, 4, 8), mask).square().sum().backward()
        assert all(parameter.grad is not None for parameter in head.parameters())
