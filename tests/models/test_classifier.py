"""The classifier: on all tokens, on the visible ones, and with MAR's reconstruction."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

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
from tubelet.masking import RunningCellMasking, TokenMask
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig, LinearHead
from tubelet.models.layers import Block, checkpoint_activations
from tubelet.patches import patchify

PLAIN = ClassifierConfig(encoder=replace(TINY, final_norm=False), classes=5)
MAR = ClassifierConfig(
    encoder=TINY,
    classes=5,
    head=BridgingHeadConfig(dim=16, depth=2, heads=2, mlp_dim=32),
    masking=RunningCellMasking(ratio=0.5),
    decoder=TINY_DECODER,
)


MAE_ST_PLAIN = ClassifierConfig(encoder=replace(MAE_ST.encoder, final_norm=False), classes=5)
MAE_ST_MAR = replace(
    MAR, encoder=MAE_ST.encoder, decoder=MAE_ST_RELEASED.decoder, target=MAE_ST_RELEASED.target
)
CONFIGS = {"plain": PLAIN, "mar": MAR, "mae_st": MAE_ST_PLAIN, "mae_st_mar": MAE_ST_MAR}
GENERATOR = torch.Generator().manual_seed(1)
CLIP = torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8, generator=GENERATOR)


def make(config: ClassifierConfig) -> VideoClassifier:
    torch.manual_seed(0)
    model = VideoClassifier(config).eval()
    randomize(model)
    return model


@pytest.fixture
def mask() -> TokenMask:
    return RunningCellMasking(ratio=0.5).sample(TINY.grid, 2, torch.Generator().manual_seed(3))


def test_without_masking_all_tokens_count(video: Tensor):
    model = make(PLAIN)
    everything = TokenMask(torch.arange(32).expand(2, -1), torch.empty(2, 0, dtype=torch.int64))
    torch.testing.assert_close(model(video), model(video, everything))
    assert model(video).shape == (2, 5)


def test_probabilities_exclude_each_other_unless_the_card_says_otherwise():
    model = make(PLAIN)
    logits = torch.tensor([[2.0, -1.0, 0.0, 0.5, 3.0]], dtype=torch.bfloat16)
    exponentials = [math.exp(x) for x in logits[0].tolist()]
    exclusive = model.probabilities(logits)
    assert exclusive.dtype == torch.float32
    assert exclusive[0].tolist() == pytest.approx([x / sum(exponentials) for x in exponentials])
    model.card = ModelCard(multi_label=True)
    single = model.probabilities(logits)
    assert single.dtype == torch.float32
    assert single[0].tolist() == pytest.approx([x / (1 + x) for x in exponentials])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(CONFIGS)), st.integers(0, 99))
def test_all_tokens_visible_is_the_same_as_no_mask(name: str, seed: int):
    model = make(replace(CONFIGS[name], masking=None))
    torch.manual_seed(seed)
    randomize(model.head)
    everything = TokenMask(torch.arange(32).expand(2, -1), torch.empty(2, 0, dtype=torch.int64))
    torch.testing.assert_close(model(CLIP, everything), model(CLIP), rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(CONFIGS)), st.permutations(range(32)), st.integers(1, 32))
def test_scores_do_not_depend_on_any_order_of_any_visible_tokens(name: str, order: list[int], count: int):
    model = make(CONFIGS[name])
    masked = torch.tensor([sorted(order[count:])] * 2, dtype=torch.int64)
    visible, ordered = torch.tensor([order[:count]] * 2), torch.tensor([sorted(order[:count])] * 2)
    found = model(CLIP, TokenMask(visible, masked))
    torch.testing.assert_close(found, model(CLIP, TokenMask(ordered, masked)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [PLAIN, MAR], ids=["plain", "mar"])
def test_scores_do_not_depend_on_the_order_of_visible_tokens(
    config: ClassifierConfig, video: Tensor, mask: TokenMask
):
    model = make(config)
    order = torch.randperm(mask.visible.shape[1])
    permuted = TokenMask(mask.visible[:, order], mask.masked)
    torch.testing.assert_close(model(video, permuted), model(video, mask), rtol=1e-4, atol=1e-5)


def test_a_model_with_masking_tests_with_its_fixed_mask(video: Tensor, mask: TokenMask):
    model = make(MAR)
    fixed = RunningCellMasking(ratio=0.5).fixed(TINY.grid, batch=2)
    assert torch.equal(model(video), model(video, fixed))
    assert torch.equal(model(video), model(video))
    assert not torch.allclose(model(video), model(video, mask))


def test_a_masked_model_does_not_use_the_rest(video: Tensor):
    model = make(MAR)
    changed = video.clone()
    changed[:, :2, :, 0:4] = 0  # the first row of tokens at the first time: its cells show their lower slots
    changed[:, :2, :, 8:12] = 0
    assert torch.equal(model(changed), model(video))


def test_scores_of_a_joint_pass_are_the_ordinary_ones(video: Tensor, mask: TokenMask):
    model = make(MAR)
    logits, reconstruction = model.forward_jointly(video, mask)
    torch.testing.assert_close(logits, model(video, mask))
    assert reconstruction.predicted.shape == reconstruction.target.shape == (2, 16, 96)


def test_a_joint_pass_reconstructs_as_the_autoencoder_with_the_same_weights(video: Tensor, mask: TokenMask):
    model = make(MAR)
    autoencoder = MaskedAutoencoder(AutoencoderConfig(encoder=TINY, decoder=TINY_DECODER))
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    autoencoder.load_state_dict(weights)
    reconstruction = model.forward_jointly(video, mask)[1]
    torch.testing.assert_close(reconstruction, autoencoder(video, mask))


def test_a_joint_pass_reaches_every_parameter(video: Tensor, mask: TokenMask):
    model = make(MAR).train()
    logits, reconstruction = model.forward_jointly(video, mask)
    (F.cross_entropy(logits, torch.tensor([1, 4])) + 0.1 * reconstruction.loss).backward()
    assert without_gradient(model) == []


def test_a_classifier_reaches_every_parameter(video: Tensor):
    model = make(PLAIN).train()
    F.cross_entropy(model(video), torch.tensor([1, 4])).backward()
    assert without_gradient(model) == []


def test_a_joint_pass_needs_a_decoder(video: Tensor, mask: TokenMask):
    with pytest.raises(ValueError, match="no decoder"):
        make(PLAIN).forward_jointly(video, mask)


def test_drop_path_is_random_only_in_training(video: Tensor):
    model = VideoClassifier(PLAIN, drop_path=0.5)
    randomize(model)
    assert torch.equal(model.eval()(video), model(video))
    assert len({tuple(model.train()(video)[0].tolist()) for _ in range(8)}) > 1


@pytest.mark.parametrize("config", [PLAIN, MAR], ids=["plain", "mar"])
def test_a_clip_of_the_wrong_kind_is_refused(config: ClassifierConfig, video: Tensor):
    with pytest.raises(ValueError, match="expected uint8 video of shape"):
        make(config)(video / 255)


@pytest.mark.parametrize(
    ("dim", "heads", "classes", "parameters"),
    [(384, 6, 400, 22_033_936), (768, 12, 400, 86_534_800), (768, 12, 174, 86_361_006)],
)
def test_classifiers_have_the_published_number_of_parameters(
    dim: int, heads: int, classes: int, parameters: int
):
    encoder = EncoderConfig(dim=dim, heads=heads, mlp_dim=4 * dim, final_norm=False)
    with torch.device("meta"):
        model = VideoClassifier(ClassifierConfig(encoder=encoder, classes=classes))
    assert count(model) == parameters
    assert len(model.state_dict()) == 162


@pytest.mark.parametrize(("classes", "parameters"), [(174, 93_015_982), (400, 93_131_920)])
def test_mar_has_the_published_number_of_parameters_at_inference(classes: int, parameters: int):
    config = ClassifierConfig(
        encoder=EncoderConfig(), classes=classes, head=BridgingHeadConfig(), masking=RunningCellMasking()
    )
    with torch.device("meta"):
        model = VideoClassifier(config)
    assert count(model) == parameters - 512  # published with a mask token that the head never uses


@pytest.mark.parametrize(
    ("dim", "depth", "heads", "parameters"),
    [(768, 12, 12, 86_702_224), (1024, 24, 16, 304_506_256), (1280, 32, 16, 632_424_080)],
    ids=["base", "large", "huge"],
)
def test_classifiers_of_mae_st_have_the_published_number_of_parameters(
    dim: int, depth: int, heads: int, parameters: int
):
    encoder = EncoderConfig(
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_dim=4 * dim,
        positions="separable",
        class_token=True,
        key_bias=True,
        final_norm=False,
    )
    with torch.device("meta"):
        assert count(VideoClassifier(ClassifierConfig(encoder=encoder, classes=400))) == parameters


def test_a_classifier_of_mae_st_takes_the_mean_before_its_norm_and_leaves_the_class_token_out(video: Tensor):
    model = make(MAE_ST_PLAIN)
    tokens = model.encoder(patchify(video, TINY.tubelet_size))
    assert tokens.shape == (2, 33, 24)
    head = model.head
    assert isinstance(head, LinearHead)
    mean = sum(tokens[:, k] for k in range(1, 33)) / 32
    expected = head.classify(F.layer_norm(mean, (24,), head.norm.weight, head.norm.bias, 1e-6))
    torch.testing.assert_close(model(video), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.encode(video), tokens[:, 1:])


def test_a_joint_pass_with_a_class_token_reconstructs_as_the_autoencoder_does(video: Tensor, mask: TokenMask):
    model = make(MAE_ST_MAR)
    autoencoder = MaskedAutoencoder(MAE_ST_RELEASED)
    autoencoder.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head.")})
    logits, reconstruction = model.forward_jointly(video, mask)
    torch.testing.assert_close(reconstruction, autoencoder(video, mask))
    torch.testing.assert_close(logits, model(video, mask))
    assert reconstruction.predicted.shape == (2, 16, 48)


@pytest.mark.slow
def test_the_forward_pass_compiles_without_graph_breaks(video: Tensor, mask: TokenMask):
    model = make(MAE_ST_PLAIN)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(video), model(video), rtol=0, atol=1e-5)
    torch.testing.assert_close(compiled(video, mask), model(video, mask), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_joint_training_step_compiles_without_graph_breaks(video: Tensor, mask: TokenMask):
    plain, compiled = make(MAE_ST_MAR).train(), make(MAE_ST_MAR).train()
    checkpoint_activations(compiled)

    def loss(model: VideoClassifier) -> Tensor:
        logits, reconstruction = model.forward_jointly(video, mask)
        return F.cross_entropy(logits, torch.tensor([1, 4])) + 0.1 * reconstruction.loss

    loss(plain).backward()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(compiled).backward()
    assert_same_gradients(compiled, plain)


# ------------------------------------------------------------------------------------ what training asks


def test_layers_count_from_the_embedding_to_the_head():
    model = make(MAR)
    layers = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert model.num_layers == 4  # embedding, two blocks, the rest
    for name, layer in layers.items():
        match name.split("."):
            case ["encoder", "embed", *_]:
                assert layer == 0, name
            case ["encoder", "transformer", "blocks", number, *_]:
                assert layer == int(number) + 1, name
            case _:
                assert layer == 3, name
    assert set(layers.values()) == {0, 1, 2, 3}
    assert layers["head.transformer.blocks.0.norm1.weight"] == 3
    assert layers["decoder.transformer.blocks.0.norm1.weight"] == 3


def test_the_class_token_and_learned_positions_are_in_the_first_layer():
    """As in MAE-ST: with layer-wise decay they learn as slowly as the patch embedding."""
    model = make(MAE_ST_MAR)
    assert {name for name, _ in model.named_parameters() if model.layer_of(name) == 0} == {
        "encoder.embed.project.weight",
        "encoder.embed.project.bias",
        "encoder.class_token",
        "encoder.positions.time",
        "encoder.positions.space",
        "encoder.positions.class_position",
    }
    assert model.layer_of("decoder.positions.table") == model.num_layers - 1


def test_learned_tokens_and_positions_are_not_decayed():
    assert make(PLAIN).learned_tokens() == set()
    assert make(MAR).learned_tokens() == {"decoder.mask_token"}
    own = {"class_token", "positions.time", "positions.space", "positions.class_position"}
    for config in (MAE_ST_PLAIN, MAE_ST_MAR):
        model = make(config)
        names = {name.removeprefix("encoder.") for name in model.learned_tokens()}
        assert {name for name in names if not name.startswith("decoder.")} == own
        assert model.learned_tokens() <= dict(model.named_parameters()).keys()


def test_the_blocks_are_all_transformer_blocks():
    for config in CONFIGS.values():
        model = make(config)
        assert model.blocks == [module for module in model.modules() if isinstance(module, Block)]
