"""The masked autoencoder: its target, its loss and its gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.models.conftest import TINY, TINY_DECODER, count, without_gradient
from tubelet.masking import AnyMasking, RandomMasking, RunningCellMasking, TokenMask, TubeMasking
from tubelet.models.autoencoder import (
    AutoencoderConfig,
    MaskedAutoencoder,
    PixelTarget,
    Reconstruction,
    clip_patches,
)
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.patches import patchify


@pytest.fixture
def mask() -> TokenMask:
    return RandomMasking(ratio=0.75).sample(TINY.grid, 2, torch.Generator().manual_seed(0))


def test_the_target_is_normalised_by_token_and_channel(video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    target = PixelTarget()(patches)
    assert target.dtype == torch.float32
    for token in range(patches.shape[1]):
        pixels = patches[1, token].numpy().reshape(32, 3).astype(np.float64) / 255
        expected = (pixels - pixels.mean(0)) / (pixels.std(0, ddof=1) + 1e-6)
        np.testing.assert_allclose(target[1, token].numpy().reshape(32, 3), expected, rtol=1e-4, atol=1e-4)


def test_the_target_of_a_flat_token_is_zero():
    assert not PixelTarget()(torch.full((1, 2, 96), 200, dtype=torch.uint8)).abs().gt(1e-1).any()


def test_without_normalising_the_target_is_the_pixels(video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    target = PixelTarget(normalize=None)
    torch.testing.assert_close(target(patches) * 255, patches.float())
    assert torch.equal(target.to_pixels(target(patches), patches), target(patches))


def test_to_pixels_undoes_the_target(video: Tensor):
    patches = patchify(video, TINY.tubelet_size)
    target = PixelTarget()
    torch.testing.assert_close(target.to_pixels(target(patches), patches), patches / 255, rtol=0, atol=1e-5)


def test_the_loss_is_the_mean_squared_error_in_float32():
    predicted, target = torch.randn(2, 3, 4, dtype=torch.bfloat16), torch.randn(2, 3, 4)
    loss = Reconstruction(predicted, target).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(float(((predicted.float() - target) ** 2).mean()), rel=1e-6)


def test_the_target_is_that_of_the_masked_tokens(
    autoencoder: MaskedAutoencoder, video: Tensor, mask: TokenMask
):
    out = autoencoder(video, mask)
    everything = PixelTarget()(patchify(video, TINY.tubelet_size))
    for row in range(2):
        assert torch.equal(out.target[row], everything[row, mask.masked[row]])
    assert out.predicted.shape == out.target.shape == (2, 24, 96)
    assert not out.target.requires_grad


def test_predictions_do_not_know_the_masked_pixels(
    autoencoder: MaskedAutoencoder, video: Tensor, mask: TokenMask
):
    other = torch.randint_like(video, 256)
    patches, others = (patchify(v, TINY.tubelet_size) for v in (video, other))
    rows = torch.arange(2)[:, None]
    patches[rows, mask.masked] = others[rows, mask.masked]
    encoded = autoencoder.encoder(patches, mask.visible)
    assert torch.equal(autoencoder.decoder(encoded, mask), autoencoder(video, mask).predicted)


@pytest.mark.parametrize(
    "masking", [TubeMasking(ratio=0.75), RandomMasking(ratio=0.9), RunningCellMasking(ratio=0.5)]
)
def test_every_parameter_gets_a_gradient(autoencoder: MaskedAutoencoder, video: Tensor, masking: AnyMasking):
    autoencoder(video, masking.sample(autoencoder.grid, 2)).loss.backward()
    assert without_gradient(autoencoder) == []


def test_encode_gives_all_features_or_those_of_the_visible_tokens(
    autoencoder: MaskedAutoencoder, video: Tensor, mask: TokenMask
):
    patches = patchify(video, TINY.tubelet_size)
    assert autoencoder.encode(video).shape == (2, 32, 24)
    assert torch.equal(autoencoder.encode(video), autoencoder.encoder(patches))
    assert torch.equal(autoencoder.encode(video, mask), autoencoder.encoder(patches, mask.visible))


@pytest.mark.parametrize(
    "video",
    [
        torch.zeros(2, 4, 3, 16, 16),
        torch.zeros(4, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(2, 3, 4, 16, 16, dtype=torch.uint8),
        torch.zeros(2, 4, 3, 16, 20, dtype=torch.uint8),
        torch.zeros(2, 8, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(2, 4, 1, 16, 16, dtype=torch.uint8),
    ],
    ids=["float", "no batch", "channels first", "width", "frames", "gray"],
)
def test_a_clip_of_another_kind_is_refused(video: Tensor):
    with pytest.raises(ValueError, match=r"expected uint8 video of shape .* \(B, 4, 3, 16, 16\), found"):
        clip_patches(video, TINY)


@pytest.mark.parametrize(
    ("dim", "heads", "parameters"), [(384, 6, 24_029_376), (768, 12, 94_210_944)], ids=["small", "base"]
)
def test_models_have_the_published_number_of_parameters(dim: int, heads: int, parameters: int):
    config = AutoencoderConfig(
        encoder=EncoderConfig(dim=dim, heads=heads, mlp_dim=4 * dim),
        decoder=DecoderConfig(dim=dim // 2, heads=heads // 2, mlp_dim=2 * dim),
    )
    with torch.device("meta"):
        model = MaskedAutoencoder(config)
    assert count(model) == parameters
    assert len(model.state_dict()) == 218


def test_the_default_is_the_base_model():
    config = AutoencoderConfig()
    assert (config.encoder.dim, config.encoder.heads, config.encoder.mlp_dim) == (768, 12, 3072)
    assert (config.decoder.dim, config.decoder.heads, config.decoder.mlp_dim) == (384, 6, 1536)
    assert config.encoder.grid == (8, 14, 14)
    assert config.encoder.patch_values == 1536


def test_the_forward_pass_compiles_without_graph_breaks(video: Tensor, mask: TokenMask):
    model = MaskedAutoencoder(AutoencoderConfig(encoder=TINY, decoder=TINY_DECODER))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(video, mask).loss, model(video, mask).loss)
