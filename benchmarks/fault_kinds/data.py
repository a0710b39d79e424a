"""Small data, models and recipes that the kinds damage."""

from dataclasses import replace
from pathlib import Path

import torch

from tubelet.checkpoints.model_folder import Model
from tubelet.clips import SegmentClip
from tubelet.demo.motion_clips import CLASSES
from tubelet.demo.motion_videos import SyntheticConfig, write_synthetic
from tubelet.masking import RunningCellMasking
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig

HINTS = {"heads": 2, "image_size": 32, "frames": 4}
"""What foreign files of the models here do not record."""
_ENCODER = "{frames: 4, image_size: 32, patch_size: 8, dim: 32, depth: 2, heads: 2, mlp_dim: 64}"
_RECIPES = {
    "pretrain": f"""
task: pretrain
data: {{root: ROOT, clip: {{kind: dense, frames: 4, stride: 4}}, workers: 0}}
model: {{encoder: {_ENCODER}, decoder: {{dim: 16, depth: 1, heads: 2, mlp_dim: 32}}}}
optim: {{base_lr: 1.0e-2, batch_size: 8, epochs: 4}}
log: {{every_steps: 1}}
save: {{every_seconds: 0}}
runtime: {{threads: 1}}
""",
    "finetune": f"""
task: finetune
data: {{root: ROOT, clip: {{kind: segment, frames: 4}}, workers: 0}}
encoder: {_ENCODER}
optim: {{base_lr: 1.0e-2, batch_size: 8, epochs: 3}}
views: {{clips: 2, crops: 1}}
log: {{every_steps: 1}}
save: {{every_seconds: 0}}
runtime: {{threads: 1}}
""",
}
TASKS = tuple(_RECIPES)


def motion_data(folder: Path) -> Path:
    """Write the motion data set, once: 24 videos to train on, 12 to validate and 36 to test on."""
    if not folder.exists():
        write_synthetic(folder, SyntheticConfig(size=32, train=24, val=12, test=36), workers=0)
    return folder


def tiny_recipe(task: str, root: Path, folder: Path) -> Path:
    """Write the recipe of a training of a few seconds, which saves after every step."""
    path = folder / f"{task}.yaml"
    path.write_text(_RECIPES[task].replace("ROOT", str(root)), encoding="utf-8")
    return path


def tiny_models() -> dict[str, Model]:
    """Return random models: an autoencoder, a classifier, and a classifier with MAR's head and decoder."""
    torch.manual_seed(0)
    encoder = EncoderConfig(frames=4, image_size=32, patch_size=8, dim=32, depth=2, heads=2, mlp_dim=64)
    decoder = DecoderConfig(dim=64, depth=1, heads=1, mlp_dim=64)
    head = BridgingHeadConfig(dim=64, depth=1, heads=1, mlp_dim=64)
    mar = ClassifierConfig(
        encoder=encoder, classes=12, head=head, decoder=decoder, masking=RunningCellMasking(ratio=0.5)
    )
    linear = ClassifierConfig(encoder=replace(encoder, final_norm=False), classes=len(CLASSES))
    models: dict[str, Model] = {
        "autoencoder": MaskedAutoencoder(AutoencoderConfig(encoder=encoder, decoder=decoder)),
        "classifier": VideoClassifier(linear),
        "mar": VideoClassifier(mar),
    }
    for name in ("classifier", "mar"):
        models[name].card = ModelCard(classes=CLASSES, clip=SegmentClip(frames=4))
    return models
