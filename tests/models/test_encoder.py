"""The encoder: its pixels, its positions, its class token and its masks."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.conftest import MAE_ST, TINY, count, randomize
from tubelet.masking import RandomMasking
from tubelet.models.encoder import EncoderConfig, PatchEmbedding, VideoEncoder
from tubelet.models.positions import PositionKind, resize_table, sinusoid_table
from tubelet.patches import Size3, patchify


@pytest.fixture
def encoder() -> VideoEncoder:
    encoder = VideoEncoder(TINY).eval()
    randomize(encoder)
    return encoder


def test_the_embedding_is_a_convolution_of_the_normalized_clip(video: Tensor):
    embedding = PatchEmbedding(TINY)
    randomize(embedding)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    clip = ((video / 255 - mean) / std).transpose(1, 2)
    weight = embedding.project.weight.reshape(24, 2, 4, 4, 3).permute(0, 4, 1, 2, 3)
    expected = F.conv3d(clip, weight, embedding.project.bias, stride=(2, 4, 4)).flatten(2).transpose(1, 2)
    ours = embedding(patchify(video, TINY.tubelet_size))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_pixel_statistics_are_the_configured_ones(video: Tensor):
    config = EncoderConfig(
        frames=4, image_size=16, patch_size=4, dim=96, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)
    )
    embedding = PatchEmbedding(config)
    with torch.no_grad():
        embedding.project.weight.copy_(torch.eye(96))
        embedding.project.bias.zero_()
    pixel = embedding(patchify(video, config.tubelet_size))[0, 0, :3]
    expected = (video[0, 0, :, 0, 0] / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(pixel, expected)


def test_all_tokens_visible_is_the_same_as_no_mask(encoder: VideoEncoder, video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    everything = torch.arange(32).expand(2, -1)
    torch.testing.assert_close(encoder(patches, everything), encoder(patches))


def draw_encoder(data: st.DataObject) -> VideoEncoder:
    """An encoder of any architecture on a small grid."""
    kinds: list[PositionKind] = ["sinusoid", "sinusoid_3d", "joint", "separable"]
    kind = data.draw(st.sampled_from(kinds), "positions")
    config = EncoderConfig(
        frames=data.draw(st.sampled_from([2, 4, 6]), "frames"),
        image_size=data.draw(st.sampled_from([4, 8, 12]), "image_size"),
        patch_size=4,
        dim=16,
        depth=1,
        heads=2,
        mlp_dim=16,
        positions=kind,
        class_token=kind in ("joint", "separable") and data.draw(st.booleans(), "class_token"),
        key_bias=data.draw(st.booleans(), "key_bias"),
        layer_scale=data.draw(st.sampled_from([None, 0.5]), "layer_scale"),
        final_norm=data.draw(st.booleans(), "final_norm"),
    )
    encoder = VideoEncoder(config).eval()
    randomize(encoder)
    return encoder


@pytest.mark.slow
@settings(max_examples=20)
@given(st.data(), st.integers(1, 3))
def test_for_every_architecture_all_tokens_visible_is_the_same_as_no_mask(data: st.DataObject, batch: int):
    encoder = draw_encoder(data)
    tokens = encoder.grid.volume
    patches = torch.randint(0, 256, (batch, tokens, 96), dtype=torch.uint8)
    everything = torch.arange(tokens).expand(batch, -1)
    features = encoder(patches)
    assert features.shape == (batch, encoder.config.num_class_tokens + tokens, 16)
    torch.testing.assert_close(encoder(patches, everything), features, rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(st.data())
def test_for_every_architecture_the_order_of_visible_tokens_is_that_of_the_features(data: st.DataObject):
    encoder = draw_encoder(data)
    tokens, num_class_tokens = encoder.grid.volume, encoder.config.num_class_tokens
    patches = torch.randint(0, 256, (1, tokens, 96), dtype=torch.uint8)
    visible = data.draw(st.permutations(range(tokens)), "visible")[
        : data.draw(st.integers(1, tokens), "count")
    ]
    found = encoder(patches, torch.tensor([visible]))
    ordered = encoder(patches, torch.tensor([sorted(visible)]))
    order = [sorted(visible).index(token) for token in visible]
    torch.testing.assert_close(
        found[:, num_class_tokens:], ordered[:, num_class_tokens:][:, order], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        found[:, :num_class_tokens], ordered[:, :num_class_tokens], rtol=1e-4, atol=1e-5
    )


def test_permuting_the_visible_tokens_permutes_the_features(encoder: VideoEncoder, video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    visible = RandomMasking(ratio=0.5).sample(TINY.grid, 2).visible
    order = torch.randperm(visible.shape[1])
    torch.testing.assert_close(
        encoder(patches, visible[:, order]), encoder(patches, visible)[:, order], rtol=1e-4, atol=1e-5
    )


def test_masked_pixels_do_not_matter(encoder: VideoEncoder, video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    mask = RandomMasking(ratio=0.5).sample(TINY.grid, 2)
    reconstructed = patches.scatter(1, mask.masked.unsqueeze(-1).expand(-1, -1, patches.shape[-1]), 0)
    assert torch.equal(encoder(reconstructed, mask.visible), encoder(patches, mask.visible))
    assert not torch.equal(encoder(reconstructed), encoder(patches))


def test_the_position_of_a_token_matters(encoder: VideoEncoder):
    patches = torch.zeros(1, 32, 96, dtype=torch.uint8)
    features = encoder(patches)
    assert (features[0, 1:] - features[0, :1]).abs().amax(1).min() > 1e-3


def test_every_row_has_its_own_mask(encoder: VideoEncoder, video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    visible = torch.tensor([[0, 5, 9], [3, 4, 31]])
    together = encoder(patches, visible)
    for row in range(2):
        single = encoder(patches[row : row + 1], visible[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], single)


def test_the_final_norm_is_a_setting(encoder: VideoEncoder, video: Tensor):
    config = EncoderConfig(**{**vars(TINY), "final_norm": False})
    bare = VideoEncoder(config).eval()
    bare.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.startswith("norm.")})
    patches = patchify(video, TINY.tubelet_size)
    torch.testing.assert_close(encoder.norm(bare(patches)), encoder(patches))


def test_tables_and_statistics_are_not_saved(encoder: VideoEncoder):
    assert {name.split(".")[0] for name in encoder.state_dict()} == {"embed", "transformer", "norm"}
    assert {name for name in encoder.state_dict() if name.startswith("embed")} == {
        "embed.project.weight", "embed.project.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dim", "heads", "parameters"), [(384, 6, 21_879_936), (768, 12, 86_227_200)], ids=["small", "base"]
)
def test_encoders_have_the_published_number_of_parameters(dim: int, heads: int, parameters: int):
    with torch.device("meta"):
        encoder = VideoEncoder(EncoderConfig(dim=dim, heads=heads, mlp_dim=4 * dim))
    assert count(encoder) == parameters


def test_a_clip_that_does_not_divide_into_tokens_is_refused():
    with pytest.raises(ValueError, match="height must be a multiple of 16, found 100"):
        VideoEncoder(EncoderConfig(image_size=100))


# ----------------------------------------------------------------------------------------- class token


@pytest.fixture
def mae_st() -> VideoEncoder:
    encoder = VideoEncoder(MAE_ST.encoder).eval()
    randomize(encoder)
    return encoder


def parameter(module: nn.Module, name: str) -> Tensor:
    return module.get_parameter(name)


def test_the_class_token_comes_before_the_others(mae_st: VideoEncoder, video: Tensor):
    """Token by token, as MAE-ST describes it: embed, put the class token first, add positions, compute."""
    visible = torch.tensor([[0, 5, 9, 30], [3, 4, 17, 31]])
    patches = patchify(video, TINY.tubelet_size)
    time, space = parameter(mae_st, "positions.time")[0], parameter(mae_st, "positions.space")[0]
    rows = []
    for row in range(2):
        tokens = [
            parameter(mae_st, "class_token")[0, 0] + parameter(mae_st, "positions.class_position")[0, 0]
        ]
        for token in visible[row].tolist():
            pixels = (patches[row, token].reshape(32, 3) / 255 - 0.45) / 0.225
            embedded = F.linear(pixels.flatten(), mae_st.embed.project.weight, mae_st.embed.project.bias)
            tokens.append(embedded + space[token % 16] + time[token // 16])
        x = torch.stack(tokens)[None]
        for block in mae_st.transformer.blocks:
            x = block(x)
        rows.append(mae_st.norm(x)[0])
    found = mae_st(patches, visible)
    assert found.shape == (2, 5, 24)
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-4, atol=1e-4)
    assert mae_st(patches).shape == (2, 33, 24)


def test_the_class_token_has_no_pixels_but_sees_the_others(mae_st: VideoEncoder, video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    assert not torch.allclose(mae_st(patches)[0, 0], mae_st(patches)[1, 0], atol=1e-3)
    single = mae_st(patches, torch.empty(2, 0, dtype=torch.int64))
    assert single.shape == (2, 1, 24)
    assert torch.equal(single[0], single[1])


def test_the_class_token_starts_at_random():
    torch.manual_seed(0)
    encoder = VideoEncoder(replace(MAE_ST.encoder, dim=768, depth=0, heads=12))
    assert parameter(encoder, "class_token").std().item() == pytest.approx(0.02, rel=0.15)


def test_a_class_token_needs_learned_positions():
    with pytest.raises(ValueError, match="a class token needs positions joint or separable, found sinusoid"):
        VideoEncoder(replace(TINY, class_token=True))


def test_learned_positions_and_the_class_token_are_saved(mae_st: VideoEncoder):
    others = {name for name in mae_st.state_dict() if not name.startswith(("embed", "transformer", "norm"))}
    assert others == {"class_token", "positions.time", "positions.space", "positions.class_position"}


@pytest.mark.parametrize(
    ("dim", "depth", "heads", "parameters"),
    [(768, 12, 12, 86_394_624), (1024, 24, 16, 304_096_256), (1280, 32, 16, 631_911_680)],
    ids=["base", "large", "huge"],
)
def test_encoders_of_mae_st_have_the_published_number_of_parameters(
    dim: int, depth: int, heads: int, parameters: int
):
    config = EncoderConfig(
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_dim=4 * dim,
        positions="separable",
        class_token=True,
        key_bias=True,
    )
    with torch.device("meta"):
        assert count(VideoEncoder(config)) == parameters


# ---------------------------------------------------------------------------------- positions and norms


def test_positions_made_for_another_grid_are_resized(encoder: VideoEncoder, video: Tensor):
    other = VideoEncoder(replace(TINY, position_grid=(4, 2, 4))).eval()
    other.load_state_dict(encoder.state_dict())
    patches = patchify(video, TINY.tubelet_size)
    table = resize_table(sinusoid_table(32, 24), Size3(4, 2, 4), TINY.grid)
    expected = other.norm(other.transformer(other.embed(patches) + table))
    torch.testing.assert_close(other(patches), expected)
    assert not torch.allclose(other(patches), encoder(patches), atol=1e-2)


def test_positions_made_for_the_same_grid_are_the_same(encoder: VideoEncoder, video: Tensor):
    other = VideoEncoder(replace(TINY, position_grid=(2, 4, 4))).eval()
    other.load_state_dict(encoder.state_dict())
    patches = patchify(video, TINY.tubelet_size)
    assert torch.equal(other(patches), encoder(patches))


def test_separable_positions_separate_time_and_position():
    encoder = VideoEncoder(replace(TINY, positions="separable", depth=0, final_norm=False))
    randomize(encoder)
    features = encoder(torch.zeros(1, 32, 96, dtype=torch.uint8))[0].reshape(2, 16, 24)
    for first, second in product(range(0, 16, 5), repeat=2):
        torch.testing.assert_close(
            features[1, first] - features[0, first], features[1, second] - features[0, second]
        )
    assert (features[0] - features[1]).abs().max() > 1e-2


def test_the_epsilon_of_all_norms_is_a_setting():
    encoder = VideoEncoder(replace(TINY, norm_eps=0.25))
    assert {layer.eps for layer in encoder.modules() if isinstance(layer, nn.LayerNorm)} == {0.25}
    default = VideoEncoder(TINY)
    assert {layer.eps for layer in default.modules() if isinstance(layer, nn.LayerNorm)} == {1e-6}


def test_blocks_have_the_encoders_settings():
    names = {
        name for name, _ in VideoEncoder(replace(TINY, key_bias=True, layer_scale=0.1)).named_parameters()
    }
    assert {"transformer.blocks.1.attention.qkv.bias", "transformer.blocks.1.scale2"} <= names
    plain = {name for name, _ in VideoEncoder(TINY).named_parameters()}
    assert "transformer.blocks.1.attention.query_bias" in plain
    assert not {"transformer.blocks.1.attention.qkv.bias", "transformer.blocks.1.scale2"} & plain
