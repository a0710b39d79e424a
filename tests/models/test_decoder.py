"""The decoder: what it paints, and where."""

import pytest
import torch

from tests.models.conftest import TINY_DECODER, count, randomize
from tubelet.masking import RandomMasking, TokenMask
from tubelet.models.decoder import DecoderConfig, PixelDecoder
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
        painted = decoder.transformer(grid + decoder.position)
        expected = decoder.predict(decoder.norm(painted))[0, mask.masked[row]]
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
