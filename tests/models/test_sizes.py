"""Named sizes: the published numbers of parameters, and what is given beside a size."""

from dataclasses import replace

import pytest
import torch

from tests.models.conftest import count
from tubelet.errors import UserError
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.sizes import DECODER_SIZES, ENCODER_SIZES, SizeName
from tubelet.settings import parse, to_plain

# Of VideoMAE's released pre-trained models, and V2's for giant.
PARAMETERS: dict[SizeName, int] = {
    "small": 24_029_376,
    "base": 94_210_944,
    "large": 342_996_992,
    "huge": 692_487_296,
    "giant": 1_026_306_560,
}


@pytest.mark.slow
def test_pretrained_models_have_the_published_number_of_parameters():
    assert PARAMETERS.keys() == ENCODER_SIZES.keys() == DECODER_SIZES.keys()
    for size, parameters in PARAMETERS.items():
        config = AutoencoderConfig(encoder=EncoderConfig(size=size), decoder=DecoderConfig(size=size))
        with torch.device("meta"):
            assert count(MaskedAutoencoder(config)) == parameters, size


def test_without_a_size_it_is_base():
    assert EncoderConfig() == EncoderConfig(size="base")
    assert DecoderConfig() == DecoderConfig(size="base")


def test_what_is_given_beside_a_size_wins():
    config = EncoderConfig(size="large", depth=6, patch_size=8)
    assert (config.dim, config.depth, config.heads, config.patch_size) == (1024, 6, 16, 8)
    assert DecoderConfig(size="huge", depth=4) == DecoderConfig(dim=640, depth=4, heads=8, mlp_dim=2560)


@pytest.mark.parametrize("kind", [EncoderConfig, DecoderConfig])
def test_a_size_that_decides_nothing_is_refused(kind: type[EncoderConfig] | type[DecoderConfig]):
    plain = to_plain(kind())
    with pytest.raises(UserError, match="size=large"):
        parse(kind, plain | {"size": "large"}, "here")


def test_a_size_is_stored_as_its_numbers():
    config = EncoderConfig(size="giant")
    plain = to_plain(config)
    assert "size" not in plain
    assert (plain["dim"], plain["depth"], plain["patch_size"]) == (1408, 40, 14)
    assert parse(EncoderConfig, plain, "here") == config
    assert replace(config, depth=2).dim == 1408


def test_an_unknown_size_is_refused():
    with pytest.raises(UserError, match=r"size: .*'tiny'"):
        parse(EncoderConfig, {"size": "tiny"}, "here")
