"""Cost of a view, against the published tables (multiply-adds, each counted once)."""

from dataclasses import replace

import pytest
import torch

from tubelet.masking import RunningCellMasking
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.flops import gflops_per_view, parameter_count
from tubelet.models.heads import BridgingHeadConfig, LinearHeadConfig, MlpHeadConfig

SMALL = EncoderConfig(size="small")
BASE = EncoderConfig()
LARGE = EncoderConfig(size="large")
HUGE = EncoderConfig(size="huge")
LARGE_DECODER = DecoderConfig(size="large")


def classifier(encoder: EncoderConfig = BASE) -> VideoClassifier:
    with torch.device("meta"):
        return VideoClassifier(ClassifierConfig(encoder=replace(encoder, final_norm=False), classes=400))


def mae_st(encoder: EncoderConfig) -> VideoClassifier:
    return classifier(replace(encoder, positions="separable", class_token=True, key_bias=True))


def mar(encoder: EncoderConfig = BASE, ratio: float = 0.5) -> VideoClassifier:
    config = ClassifierConfig(
        encoder=encoder,
        classes=400,
        head=BridgingHeadConfig(),
        masking=RunningCellMasking(ratio=ratio),
        decoder=DecoderConfig() if encoder == BASE else LARGE_DECODER,
    )
    with torch.device("meta"):
        return VideoClassifier(config)


@pytest.mark.parametrize(
    ("encoder", "gflops", "parameters"),
    [
        (SMALL, 56.95, 22_033_936),
        (BASE, 180.49, 86_534_800),
        pytest.param(LARGE, 597.2, 304_270_736, marks=pytest.mark.slow),
    ],
    ids=["small", "base", "large"],
)
def test_videomaes_classifiers(encoder: EncoderConfig, gflops: float, parameters: int) -> None:
    """mmaction2's count, with which VideoMAE's table agrees; it has the norms in it too."""
    assert gflops_per_view(classifier(encoder)) == pytest.approx(gflops, rel=0.002)
    assert parameter_count(classifier(encoder)) == parameters


@pytest.mark.parametrize(
    ("encoder", "gflops", "parameters"),
    [
        (BASE, 180, 86_702_224),
        pytest.param(LARGE, 598, 304_506_256, marks=pytest.mark.slow),
        pytest.param(HUGE, 1193, 632_424_080, marks=pytest.mark.slow),
    ],
    ids=["base", "large", "huge"],
)
def test_mae_sts_classifiers(encoder: EncoderConfig, gflops: float, parameters: int) -> None:
    """PySlowFast's table."""
    assert gflops_per_view(mae_st(encoder)) == pytest.approx(gflops, rel=0.003)
    assert parameter_count(mae_st(encoder)) == parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "ratio", "num_masked", "gflops"),
    [
        (BASE, 0.25, 392, 138.04),
        (BASE, 0.5, 784, 86.35),
        (BASE, 0.75, 1176, 40.95),
        (LARGE, 0.5, 784, 276),
        (LARGE, 0.75, 1176, 131),
    ],
    ids=["base, 25 %", "base, 50 %", "base, 75 %", "large, 50 %", "large, 75 %"],
)
def test_mar_at_several_ratios(encoder: EncoderConfig, ratio: float, num_masked: int, gflops: float) -> None:
    """MAR's table counts the embedding of all tubelets; here only the visible ones are embedded."""
    embedding_of_masked = num_masked * 1536 * encoder.dim / 1e9
    found = gflops_per_view(mar(encoder, ratio)) + embedding_of_masked
    assert found == pytest.approx(gflops, rel=0.004)


@pytest.mark.parametrize(("encoder", "parameters"), [(BASE, 93_131_920), (LARGE, 310_896_528)])
def test_mars_parameters(encoder: EncoderConfig, parameters: int) -> None:
    """The original code's count without the zero vector that nothing uses, and without the decoder."""
    assert parameter_count(mar(encoder)) == parameters - 512


@pytest.mark.slow
def test_masking_at_test_replaces_the_models_own() -> None:
    costs = [gflops_per_view(mar(), RunningCellMasking(ratio=ratio)) for ratio in (0.0, 0.25, 0.5, 0.75)]
    assert costs == sorted(costs, reverse=True)
    assert costs[2] == pytest.approx(gflops_per_view(mar()))


@pytest.mark.slow
def test_of_an_autoencoder_the_encoder_is_counted() -> None:
    with torch.device("meta"):
        model = MaskedAutoencoder(AutoencoderConfig())
    head = 768 * 400 / 1e9
    assert gflops_per_view(model) == pytest.approx(gflops_per_view(classifier()) - head)
    assert parameter_count(model) == 86_227_200
    half = gflops_per_view(model, RunningCellMasking(ratio=0.5))
    assert half < gflops_per_view(model) / 2  # attention costs the square of the tokens


def test_counting_leaves_the_model_as_it_is() -> None:
    config = replace(SMALL, depth=1, image_size=32, frames=4)
    model = VideoClassifier(ClassifierConfig(encoder=replace(config, final_norm=False), classes=3)).train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    assert gflops_per_view(model) > 0
    assert model.training
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


@pytest.mark.slow
def test_heads_cost_what_mar_publishes() -> None:
    """Table VI, ViT-B at one half on 174 classes; it includes embedding the tokens that are dropped."""
    dropped = 784 * 1536 * 768 / 1e9
    for head, published in (
        (LinearHeadConfig(normalize="tokens"), 79.84),
        (MlpHeadConfig(dim=512), 80.15),
        (BridgingHeadConfig(dim=256, depth=8, heads=2, mlp_dim=1024), 87.46),
        (BridgingHeadConfig(dim=384, depth=2, heads=3, mlp_dim=1536), 83.80),
        (BridgingHeadConfig(dim=512, depth=2), 86.35),
        (BridgingHeadConfig(dim=640, depth=4, heads=5, mlp_dim=2560), 98.81),
    ):
        config = ClassifierConfig(
            encoder=EncoderConfig(), classes=174, head=head, masking=RunningCellMasking()
        )
        with torch.device("meta"):
            model = VideoClassifier(config)
        assert gflops_per_view(model) + dropped == pytest.approx(published, rel=2e-3), head
