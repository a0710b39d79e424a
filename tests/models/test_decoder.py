"""The decoder: what it reconstructs, and where."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.models.conftest import MAE_ST, MAE_ST_RELEASED, TINY_DECODER, count, randomize
from tubelet.masking import RandomMasking, TokenMask
from tubelet.models.decoder import DecoderConfig, PixelDecoder
from tubelet.models.positions import resize_table, sinusoid_table
from tubelet.patches import Size3

GRID = Size3(2, 4, 4)


@pytest.fixture
def decoder() -> PixelDecoder:
    decoder = PixelDecoder(TINY_DECODER, grid=Size3(2, 4, 4), encoder_dim=24, values=6).eval()
    randomize(decoder)
    return decoder


@pytest.fixture
def mask() -> TokenMask:
    return RandomMasking(ratio=0.75).sample(GRID, 2, torch.Generator().manual_seed(0))


def test_predictions_are_those_of_the_whole_grid_in_raster_order(decoder: PixelDecoder, mask: TokenMask):
    encoded = torch.randn(2, mask.visible.shape[1], 24)
    for row in range(2):
        grid = decoder.mask_token.expand(1, 32, -1).clone()
        grid[0, mask.visible[row]] = decoder.embed(encoded[row])
        reconstructed = decoder.transformer(grid + decoder.positions())
        expected = decoder.predict(decoder.norm(reconstructed))[0, mask.masked[row]]
        torch.testing.assert_close(decoder(encoded, mask)[row], expected, rtol=1e-4, atol=1e-5)


def test_permuting_the_visible_tokens_changes_nothing(decoder: PixelDecoder, mask: TokenMask):
    encoded = torch.randn(2, mask.visible.shape[1], 24)
    order = torch.randperm(mask.visible.shape[1])
    permuted = TokenMask(mask.visible[:, order], mask.masked)
    torch.testing.assert_close(
        decoder(encoded[:, order], permuted), decoder(encoded, mask), rtol=1e-4, atol=1e-5
    )


def test_predictions_follow_the_order_of_the_masked_tokens(decoder: PixelDecoder, mask: TokenMask):
    encoded = torch.randn(2, mask.visible.shape[1], 24)
    permuted = TokenMask(mask.visible, mask.masked.flip(1))
    torch.testing.assert_close(
        decoder(encoded, permuted), decoder(encoded, mask).flip(1), rtol=1e-4, atol=1e-5
    )


def test_the_mask_token_starts_within_two_hundredths():
    token = PixelDecoder(DecoderConfig(dim=384), grid=Size3(1, 2, 2), encoder_dim=8, values=6).mask_token
    assert token.shape == (1, 1, 384)
    assert 0.015 < token.abs().max() <= 0.02


def test_the_embedding_has_no_bias(decoder: PixelDecoder):
    assert decoder.embed.bias is None


@pytest.mark.parametrize(
    ("dim", "heads", "parameters"), [(192, 3, 2_075_520), (384, 6, 7_688_448)], ids=["small", "base"]
)
def test_decoders_have_the_published_number_of_parameters(dim: int, heads: int, parameters: int):
    with torch.device("meta"):
        decoder = PixelDecoder(
            DecoderConfig(dim=dim, heads=heads, mlp_dim=4 * dim),
            grid=Size3(8, 14, 14),
            encoder_dim=2 * dim,
            values=1536,
        )
    assert count(decoder) == parameters + 2 * dim * dim + dim  # with the embedding and the mask token


# ----------------------------------------------------------------------------------------- class token


def make(config: DecoderConfig, num_class_tokens: int = 0) -> PixelDecoder:
    decoder = PixelDecoder(
        config, grid=GRID, encoder_dim=24, values=6, num_class_tokens=num_class_tokens
    ).eval()
    randomize(decoder)
    return decoder


def reconstructed_in_raster_order(
    decoder: PixelDecoder, encoded: Tensor, mask: TokenMask, summary: Tensor | None
) -> Tensor:
    """As MAE-ST does it: the whole grid, the class token before it, positions added, then the masked rows.

    Args:
        summary: (B, 1, D) the class token before its position is added; None has none.
    """
    reconstructed = []
    for row in range(len(encoded)):
        grid = decoder.mask_token[0].expand(32, -1).clone()
        grid[mask.visible[row]] = decoder.embed(encoded[row])
        tokens = grid + decoder.positions()[0]
        if summary is not None:
            tokens = torch.cat([summary[row] + decoder.get_parameter("positions.class_position")[0], tokens])
        out = decoder.predict(decoder.norm(decoder.transformer(tokens[None])))[0]
        reconstructed.append(out[-32:][mask.masked[row]])
    return torch.stack(reconstructed)


@pytest.mark.parametrize("positions", ["joint", "separable"])
def test_a_learned_class_token_is_the_decoders_own(positions, mask: TokenMask):
    decoder = make(replace(MAE_ST.decoder, positions=positions), num_class_tokens=1)
    encoded = torch.randn(2, 1 + mask.visible.shape[1], 24)
    summary = decoder.get_parameter("class_token").expand(2, -1, -1)
    expected = reconstructed_in_raster_order(decoder, encoded[:, 1:], mask, summary)
    torch.testing.assert_close(decoder(encoded, mask), expected, rtol=1e-4, atol=1e-4)
    changed = torch.cat([torch.randn(2, 1, 24), encoded[:, 1:]], dim=1)
    assert torch.equal(decoder(changed, mask), decoder(encoded, mask))


def test_a_learned_class_token_needs_none_in_the_encoder(mask: TokenMask):
    decoder = make(MAE_ST.decoder)
    encoded = torch.randn(2, mask.visible.shape[1], 24)
    summary = decoder.get_parameter("class_token").expand(2, -1, -1)
    expected = reconstructed_in_raster_order(decoder, encoded, mask, summary)
    torch.testing.assert_close(decoder(encoded, mask), expected, rtol=1e-4, atol=1e-4)


def test_the_encoders_class_token_is_passed_on(mask: TokenMask):
    decoder = make(MAE_ST_RELEASED.decoder, num_class_tokens=1)
    assert "class_token" not in dict(decoder.named_parameters())
    encoded = torch.randn(2, 1 + mask.visible.shape[1], 24)
    expected = reconstructed_in_raster_order(decoder, encoded[:, 1:], mask, decoder.embed(encoded[:, :1]))
    torch.testing.assert_close(decoder(encoded, mask), expected, rtol=1e-4, atol=1e-4)
    changed = torch.cat([torch.randn(2, 1, 24), encoded[:, 1:]], dim=1)
    assert not torch.allclose(decoder(changed, mask), decoder(encoded, mask), atol=1e-3)


def test_without_a_class_token_that_of_the_encoder_is_left_out(mask: TokenMask):
    decoder = make(TINY_DECODER, num_class_tokens=1)
    encoded = torch.randn(2, 1 + mask.visible.shape[1], 24)
    expected = reconstructed_in_raster_order(decoder, encoded[:, 1:], mask, None)
    torch.testing.assert_close(decoder(encoded, mask), expected, rtol=1e-4, atol=1e-4)


def test_a_class_token_that_the_encoder_does_not_have_is_refused():
    with pytest.raises(
        ValueError, match=r"decoder\.class_token is encoder, but the encoder has no class token"
    ):
        PixelDecoder(MAE_ST_RELEASED.decoder, grid=GRID, encoder_dim=24, values=6)


def test_tokens_that_are_both_seen_and_reconstructed_enter_twice():
    """As in VideoMAE V2: what the encoder made of the token, and a mask token in the same position."""
    decoder = make(TINY_DECODER)
    mask = TokenMask(torch.tensor([[0, 3]]), torch.tensor([[1, 3, 8]]))
    encoded = torch.randn(1, 2, 24)
    position = decoder.positions()[0]
    tokens = torch.cat(
        [
            decoder.embed(encoded[0]) + position[[0, 3]],
            decoder.mask_token[0] + position[[1, 3, 8]],
        ]
    )
    expected = decoder.predict(decoder.norm(decoder.transformer(tokens[None])))[:, 2:]
    torch.testing.assert_close(decoder(encoded, mask), expected)


def test_a_decoder_may_have_nothing_to_reconstruct(decoder: PixelDecoder):
    everything = TokenMask(torch.arange(32)[None], torch.empty(1, 0, dtype=torch.int64))
    assert decoder(torch.randn(1, 32, 24), everything).shape == (1, 0, 6)


def test_the_settings_reach_the_decoders_parts():
    decoder = make(
        replace(
            TINY_DECODER, embed_bias=True, key_bias=True, layer_scale=0.1, norm_eps=0.25, final_norm_eps=0.5
        )
    )
    assert decoder.embed.bias is not None
    assert decoder.norm.eps == 0.5
    assert {x.eps for x in decoder.transformer.modules() if isinstance(x, nn.LayerNorm)} == {0.25}
    names = {name for name, _ in decoder.named_parameters()}
    assert {"transformer.blocks.0.attention.qkv.bias", "transformer.blocks.0.scale1"} <= names


def test_positions_made_for_another_grid_are_resized():
    decoder = make(replace(TINY_DECODER, position_grid=(4, 2, 4)))
    assert torch.equal(decoder.positions(), resize_table(sinusoid_table(32, 16), Size3(4, 2, 4), GRID))
