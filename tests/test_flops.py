"""Cost of a view, against the published tables (multiply-adds, each counted once)."""

from dataclasses import replace

import pytest
import torch

from tubelet.flops import gflops_per_view, parameter_count
from tubelet.masking import RunningCellMasking
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig

BASE = EncoderConfig()
LARGE = EncoderConfig(dim=1024, depth=24, heads=16, mlp_dim=4096)


def classifier(encoder: EncoderConfig = BASE) -> VideoClassifier:
    with torch.device("meta"):
        return VideoClassifier(ClassifierConfig(encoder=replace(encoder, final_norm=False), classes=400))


def mar() -> VideoClassifier:
    config = ClassifierConfig(
        encoder=BASE,
        classes=400,
        head=BridgingHeadConfig(),
        masking=RunningCellMasking(ratio=0.5),
        decoder=DecoderConfig(),
    )
    with torch.device("meta"):
        return VideoClassifier(config)


def test_videomae_base_and_large() -> None:
    """VideoMAE's table: 180 G and 87 M, 597 G and 305 M."""
    assert gflops_per_view(classifier()) == pytest.approx(180, rel=0.01)
    assert parameter_count(classifier()) == 86_534_800
    assert gflops_per_view(classifier(LARGE)) == pytest.approx(597, rel=0.01)
    assert parameter_count(classifier(LARGE)) == 304_270_736


def test_mar_base_at_half() -> None:
    """MAR's table: 86 G, which counts the embedding of all tubelets; here the visible half is embedded."""
    embedding_of_the_hidden = 784 * 1536 * 768 / 1e9
    assert gflops_per_view(mar()) + embedding_of_the_hidden == pytest.approx(86.35, rel=0.01)
    # The count of the original code's parameters without the zero vector that nothing uses.
    assert parameter_count(mar()) == 93_131_920 - 512


def test_masking_at_test_replaces_the_models_own() -> None:
    costs = [gflops_per_view(mar(), RunningCellMasking(ratio=ratio)) for ratio in (0.0, 0.25, 0.5, 0.75)]
    assert costs == sorted(costs, reverse=True)
    assert costs[2] == pytest.approx(gflops_per_view(mar()))
