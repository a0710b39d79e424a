"""The masked autoencoder: its loss, its gradients and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models.conftest import (
    MAE_ST,
    MAE_ST_RELEASED,
    TINY,
    TINY_DECODER,
    assert_same_gradients,
    count,
    randomize,
    without_gradient,
)
from tubelet.masking import (
    AnyMasking,
    BlockMasking,
    DualMasking,
    FrameMasking,
    RandomMasking,
    RunningCellMasking,
    TokenMask,
    TubeMasking,
)
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder, Reconstruction, clip_patches
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.layers import Block, checkpoint_activations
from tubelet.models.target import PixelTarget
from tubelet.patches import patchify

VIDEOMAE = AutoencoderConfig(encoder=TINY, decoder=TINY_DECODER)
CONFIGS = {
    "videomae": VIDEOMAE,
    "mae_st": MAE_ST,
    "mae_st_released": MAE_ST_RELEASED,
    "all_learned": replace(
        MAE_ST,
        encoder=replace(MAE_ST.encoder, positions="joint", layer_scale=0.1),
        decoder=replace(MAE_ST.decoder, class_token=None, positions="sinusoid_3d", layer_scale=0.1),
    ),
}
MASKINGS: list[AnyMasking] = [
    TubeMasking(ratio=0.75),
    RandomMasking(ratio=0.9),
    FrameMasking(ratio=0.5),
    BlockMasking(ratio=0.75),
    RunningCellMasking(ratio=0.5),
    RunningCellMasking(ratio=0.75, cell=(1, 4)),
    DualMasking(ratio=0.75),
]


def make(config: AutoencoderConfig) -> MaskedAutoencoder:
    torch.manual_seed(0)
    model = MaskedAutoencoder(config)
    randomize(model)
    return model


@pytest.fixture
def mask() -> TokenMask:
    return RandomMasking(ratio=0.75).sample(TINY.grid, 2, torch.Generator().manual_seed(0))


def test_the_loss_is_the_mean_squared_error_in_float32():
    predicted, target = torch.randn(2, 3, 4, dtype=torch.bfloat16), torch.randn(2, 3, 4)
    loss = Reconstruction(predicted, target).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(float(((predicted.float() - target) ** 2).mean()), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_tokens_that_are_not_scored_do_not_count_in_the_loss(rows: int, tokens: int, values: int, seed: int):
    generator = np.random.default_rng(seed)
    predicted, target = generator.normal(size=(2, rows, tokens, values))
    scored = generator.random((rows, tokens)) < 0.5
    scored[0, 0] = True
    errors = [
        np.mean((predicted[row, token] - target[row, token]) ** 2)
        for row in range(rows)
        for token in range(tokens)
        if scored[row, token]
    ]
    loss = Reconstruction(torch.tensor(predicted), torch.tensor(target), torch.tensor(scored)).loss
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-5)


def test_when_all_tokens_are_scored_the_loss_is_the_same():
    predicted, target = torch.randn(2, 3, 4, 5)
    everything = torch.ones(3, 4, dtype=torch.bool)
    torch.testing.assert_close(
        Reconstruction(predicted, target, everything).loss, Reconstruction(predicted, target).loss
    )


def test_with_a_dual_mask_the_seen_tokens_are_reconstructed_and_do_not_count(
    autoencoder: MaskedAutoencoder, video: Tensor
):
    mask = DualMasking(ratio=0.5).sample(TINY.grid, 2, torch.Generator().manual_seed(0))
    out = autoencoder(video, mask)
    assert out.predicted.shape == (2, 16, 96)
    errors = [
        ((out.predicted[row, k] - out.target[row, k]) ** 2).mean()
        for row in range(2)
        for k, token in enumerate(mask.masked[row].tolist())
        if token not in mask.visible[row].tolist()
    ]
    assert 0 < len(errors) < 32
    torch.testing.assert_close(out.loss, torch.stack(errors).mean())
    out.loss.backward()
    assert without_gradient(autoencoder) == []


def test_the_target_is_that_of_the_masked_tokens(
    autoencoder: MaskedAutoencoder, video: Tensor, mask: TokenMask
):
    out = autoencoder(video, mask)
    index = torch.arange(32).expand(2, -1)
    everything = PixelTarget()(patchify(video, TINY.tubelet_size), index, autoencoder.encoder)
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


@pytest.mark.parametrize("masking", MASKINGS)
def test_every_parameter_gets_a_gradient(autoencoder: MaskedAutoencoder, video: Tensor, masking: AnyMasking):
    mask = masking.sample(autoencoder.grid, 2, torch.Generator().manual_seed(0))
    autoencoder(video, mask).loss.backward()
    assert without_gradient(autoencoder) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_of_every_architecture_gets_a_gradient(name: str, video: Tensor, mask: TokenMask):
    model = make(CONFIGS[name])
    model(video, mask).loss.backward()
    assert without_gradient(model) == []


def test_models_of_mae_st_reconstruct_the_chosen_frames(video: Tensor, mask: TokenMask):
    for config in (MAE_ST, MAE_ST_RELEASED):
        out = make(config)(video, mask)
        assert out.predicted.shape == out.target.shape == (2, 24, 48)


def test_features_leave_the_class_token_out(video: Tensor, mask: TokenMask):
    model = make(MAE_ST)
    patches = patchify(video, TINY.tubelet_size)
    assert model.encode(video).shape == (2, 32, 24)
    assert torch.equal(model.encode(video), model.encoder(patches)[:, 1:])
    assert torch.equal(model.encode(video, mask), model.encoder(patches, mask.visible)[:, 1:])


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


def a_mask(visible: Tensor | None = None, masked: Tensor | None = None) -> TokenMask:
    index = torch.arange(32).expand(2, -1)
    return TokenMask(index[:, :8] if visible is None else visible, index[:, 8:] if masked is None else masked)


@pytest.mark.parametrize(
    "index",
    [
        torch.zeros(2, 8, dtype=torch.int32),
        torch.zeros(2, 32, dtype=torch.bool),
        torch.zeros(2, 8),
        torch.zeros(1, 8, dtype=torch.int64),
        torch.zeros(3, 8, dtype=torch.int64),
        torch.zeros(8, dtype=torch.int64),
        torch.zeros(2, 2, 4, dtype=torch.int64),
    ],
    ids=["int32", "bool", "float", "one row", "three rows", "no rows", "a grid"],
)
@pytest.mark.parametrize("name", ["visible", "masked"])
def test_a_mask_of_another_kind_is_refused(video: Tensor, name: str, index: Tensor):
    expected = rf"mask\.{name} .*\(2, K\).*found {index.dtype} \("
    with pytest.raises(ValueError, match=expected):
        clip_patches(video, TINY, a_mask(**{name: index}))


@pytest.mark.parametrize(("bad", "found"), [(-1, "-1 to 5"), (32, "5 to 32")])
@pytest.mark.parametrize("name", ["visible", "masked"])
def test_a_mask_of_unknown_tokens_is_refused(video: Tensor, name: str, bad: int, found: str):
    index = torch.full((2, 4), 5)
    index[1, 2] = bad
    with pytest.raises(ValueError, match=rf"0 to 31 in mask\.{name}, found {found}$"):
        clip_patches(video, TINY, a_mask(**{name: index}))


def test_a_mask_that_masks_nothing_is_taken(video: Tensor):
    nothing = torch.empty(2, 0, dtype=torch.int64)
    assert clip_patches(video, TINY, a_mask(masked=nothing)).shape == (2, 32, 96)


@pytest.mark.parametrize("call", ["forward", "encode"])
def test_the_model_checks_its_clip_and_mask(autoencoder: MaskedAutoencoder, video: Tensor, call: str):
    answer = getattr(autoencoder, call)
    with pytest.raises(ValueError, match="expected uint8 video"):
        answer(video / 255, a_mask())
    with pytest.raises(ValueError, match=r"mask\.visible"):
        answer(video, a_mask(visible=torch.full((2, 4), 32)))


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


# The published sizes of MAE-ST's models: width, depth, heads; parameters as released (a joint decoder that
# takes over the encoder's class token) and as its public code makes them (a separable one with its own).
MAE_ST_SIZES = [
    (768, 12, 12, 100_596_736, 99_898_880),
    (1024, 24, 16, 318_429_440, 317_731_584),
    (1280, 32, 16, 646_375_936, 645_678_080),
]


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "depth", "heads", "released", "native"), MAE_ST_SIZES)
def test_models_of_mae_st_have_the_published_number_of_parameters(
    dim: int, depth: int, heads: int, released: int, native: int
):
    encoder = EncoderConfig(
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_dim=4 * dim,
        positions="separable",
        class_token=True,
        key_bias=True,
    )
    decoder = DecoderConfig(dim=512, depth=4, heads=8, mlp_dim=2048, embed_bias=True, key_bias=True)
    target = PixelTarget(normalize="patch", pixels="normalized", frames=8)
    with torch.device("meta"):
        joint = replace(decoder, positions="joint", class_token="encoder")
        assert count(MaskedAutoencoder(AutoencoderConfig(encoder=encoder, decoder=joint, target=target))) == (
            released
        )
        own = replace(decoder, positions="separable", class_token="learned")
        assert count(MaskedAutoencoder(AutoencoderConfig(encoder=encoder, decoder=own, target=target))) == (
            native
        )


@pytest.mark.slow
def test_a_training_step_compiles_without_graph_breaks(video: Tensor):
    plain, compiled = make(MAE_ST_RELEASED).train(), make(MAE_ST_RELEASED).train()
    checkpoint_activations(compiled)
    mask = DualMasking(ratio=0.75).sample(TINY.grid, 2, torch.Generator().manual_seed(0))

    def loss(model: MaskedAutoencoder) -> Tensor:
        return model(video, mask).loss

    loss(plain).backward()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(compiled).backward()
    assert_same_gradients(compiled, plain)


@pytest.mark.slow
def test_encoder_and_decoder_compile_without_graph_breaks(video: Tensor, mask: TokenMask):
    model = make(CONFIGS["all_learned"])
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(video, mask), model(video, mask), rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------ what training asks


def test_learned_tokens_and_positions_are_not_decayed():
    assert make(VIDEOMAE).learned_tokens() == {"decoder.mask_token"}
    learned = {"positions.time", "positions.space", "positions.class_position", "class_token"}
    assert make(MAE_ST).learned_tokens() == {
        *(f"encoder.{name}" for name in learned),
        *(f"decoder.{name}" for name in learned),
        "decoder.mask_token",
    }
    released = make(MAE_ST_RELEASED)
    assert {name for name in released.learned_tokens() if name.startswith("decoder.")} == {
        "decoder.mask_token", "decoder.positions.table", "decoder.positions.class_position",
    }  # fmt: skip
    for config in CONFIGS.values():
        model = make(config)
        assert model.learned_tokens() <= dict(model.named_parameters()).keys()


def test_the_blocks_are_all_transformer_blocks():
    for config in CONFIGS.values():
        model = make(config)
        assert model.blocks == [module for module in model.modules() if isinstance(module, Block)]
