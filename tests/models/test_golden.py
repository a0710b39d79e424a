"""Our models answer as the published systems did: weights of theirs, an input and their own outputs.

The weights are random and small (width 32, 2 blocks, frames of 64 x 64). The keys are mapped by hand here, so
that these tests depend on the models alone.
"""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tubelet.masking import TokenMask
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder, PixelTarget
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-5}
ENCODER: dict[str, Any] = {"image_size": 64, "dim": 32, "depth": 2, "heads": 4, "mlp_dim": 128}

RENAMED = [
    (r"\.attn\.q_bias", ".attention.query_bias"),
    (r"\.attn\.v_bias", ".attention.value_bias"),
    (r"\.attn\.qkv", ".attention.qkv"),
    (r"\.attn\.proj", ".attention.project"),
    (r"\.mlp\.fc1", ".mlp.0"),
    (r"\.mlp\.fc2", ".mlp.2"),
    (r"patch_embed\.proj", "embed.project"),
    (r"(^|\.)blocks\.", r"\1transformer.blocks."),
    (r"^encoder_to_decoder", "decoder.embed"),
    (r"^mask_token", "decoder.mask_token"),
    (r"^decoder\.head", "decoder.predict"),
    (r"^fc_norm", "head.norm"),
    (r"^head\.(weight|bias)", r"head.classify.\1"),
    (r"^(embed|transformer)\.", r"encoder.\1."),
]


def read(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def load(model: nn.Module, golden: dict[str, Tensor]) -> None:
    state = {}
    for key, value in golden.items():
        if not key.startswith("weights/"):
            continue
        name = key.removeprefix("weights/")
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        if name.endswith("embed.project.weight"):
            value = value.permute(0, 2, 3, 4, 1).flatten(1)  # a convolution over (C, T, H, W) as a matrix
        state[name] = value
    model.load_state_dict(state)


@pytest.fixture(scope="module")
def pretrain() -> dict[str, Tensor]:
    return read("videomae_pretrain")


@pytest.fixture(scope="module")
def video(pretrain: dict[str, Tensor]) -> Tensor:
    return pretrain["video"].transpose(1, 2)


def autoencoder(golden: dict[str, Tensor], target: PixelTarget) -> MaskedAutoencoder:
    config = AutoencoderConfig(
        encoder=EncoderConfig(**ENCODER),
        decoder=DecoderConfig(dim=16, depth=1, heads=2, mlp_dim=64),
        target=target,
    )
    model = MaskedAutoencoder(config).eval()
    load(model, golden)
    for layer in model.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = 1e-5  # this file was made with PyTorch's default; VideoMAE's own models have 1e-6
    return model


@pytest.mark.parametrize(("target", "loss"), [("channel", "loss"), (None, "loss_raw")])
def test_the_autoencoder_paints_what_videomae_paints(
    pretrain: dict[str, Tensor], video: Tensor, target: Literal["channel"] | None, loss: str
):
    model = autoencoder(pretrain, PixelTarget(normalize=target))
    with torch.no_grad():
        out = model(video, TokenMask.from_masked(pretrain["mask"]))
    torch.testing.assert_close(out.predicted[..., ::24], pretrain["pred"], **TOLERANCE)
    torch.testing.assert_close(out.loss, pretrain[loss][0], **TOLERANCE)


def test_the_classifier_scores_as_videomae_does(video: Tensor):
    golden = read("videomae_finetune")
    config = ClassifierConfig(encoder=EncoderConfig(**ENCODER, final_norm=False), classes=7)
    model = VideoClassifier(config).eval()
    load(model, golden)
    with torch.no_grad():
        logits = model(video)
        features = model.head.norm(model.encode(video).mean(1))
    torch.testing.assert_close(logits, golden["logits"], **TOLERANCE)
    torch.testing.assert_close(features, golden["features"], **TOLERANCE)
