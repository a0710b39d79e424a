"""Models small enough for tests, and clips for them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.target import PixelTarget

TINY = EncoderConfig(frames=4, image_size=16, patch_size=4, dim=24, depth=2, heads=3, mlp_dim=48)
TINY_DECODER = DecoderConfig(dim=16, depth=1, heads=2, mlp_dim=32)

# As in MAE-ST's public code, and as its released models.
MAE_ST = AutoencoderConfig(
    encoder=replace(
        TINY, positions="separable", class_token=True, key_bias=True, mean=(0.45,) * 3, std=(0.225,) * 3
    ),
    decoder=replace(
        TINY_DECODER, positions="separable", class_token="learned", embed_bias=True, key_bias=True
    ),
    target=PixelTarget(normalize="patch", pixels="normalized", frames=2),
)
MAE_ST_RELEASED = replace(
    MAE_ST,
    decoder=replace(MAE_ST.decoder, positions="joint", class_token="encoder"),
    target=replace(MAE_ST.target, spacing="stride"),
)


def randomize(module: nn.Module) -> None:
    """Weights that make every part matter; fresh ones leave biases at zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def assert_same_gradients(found: nn.Module, expected: nn.Module) -> None:
    for (name, one), other in zip(expected.named_parameters(), found.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=1e-5)


def without_gradient(module: nn.Module) -> list[str]:
    """Parameters that a backward pass has not reached."""
    return [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.fixture
def video() -> Tensor:
    return torch.randint(
        0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.fixture
def autoencoder() -> MaskedAutoencoder:
    torch.manual_seed(0)
    model = MaskedAutoencoder(AutoencoderConfig(encoder=TINY, decoder=TINY_DECODER))
    randomize(model)
    return model
