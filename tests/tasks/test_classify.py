"""The classification task: its losses by hand, and what it passes on to training."""

import math
from dataclasses import replace

import pytest
import torch

from tests.models.conftest import MAE_ST, MAE_ST_RELEASED, TINY, TINY_DECODER, randomize
from tubelet.data.dataset import Batch
from tubelet.data.mixing import Mixing
from tubelet.masking import RandomMasking, RunningCellMasking, TokenMask, row_noise
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.heads import BridgingHeadConfig
from tubelet.tasks.classify import ClassifyTask

MASKING = RunningCellMasking(ratio=0.5)
PLAIN = ClassifierConfig(encoder=replace(TINY, final_norm=False), classes=5)
MASKED = replace(PLAIN, masking=MASKING)
MAR = ClassifierConfig(
    encoder=TINY,
    classes=5,
    head=BridgingHeadConfig(dim=16, depth=2, heads=2, mlp_dim=32),
    masking=MASKING,
    decoder=TINY_DECODER,
)
MAE_ST_MAR = replace(
    MAR, encoder=MAE_ST.encoder, decoder=MAE_ST_RELEASED.decoder, target=MAE_ST_RELEASED.target
)


def task_with(config: ClassifierConfig, smoothing: float = 0.0, weight: float = 0.0) -> ClassifyTask:
    torch.manual_seed(0)
    model = VideoClassifier(config)
    randomize(model)
    return ClassifyTask(model, label_smoothing=smoothing, reconstruction_weight=weight)


def mask_of(batch: Batch) -> TokenMask:
    return MASKING.from_noise(TINY.grid, row_noise(batch.seed, MASKING.noise_size(TINY.grid)))


def cross_entropy(logits: torch.Tensor, label: torch.Tensor, smoothing: float) -> torch.Tensor:
    wanted = torch.full_like(logits, smoothing / logits.shape[1])
    wanted[torch.arange(len(label)), label] += 1 - smoothing
    log = logits - logits.exp().sum(1, keepdim=True).log()
    return -(wanted * log).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_smoothed_cross_entropy(batch: Batch, smoothing: float):
    task = task_with(PLAIN, smoothing)
    losses = task(batch)
    logits = task.model(batch.video)
    assert set(losses) == {"loss", "classification", "accuracy"}
    torch.testing.assert_close(losses["loss"], cross_entropy(logits, batch.label, smoothing))
    assert torch.equal(losses["loss"], losses["classification"])


def test_the_accuracy_is_the_share_of_clips_that_are_right(batch: Batch):
    task = task_with(PLAIN)
    right = task.model(batch.video).argmax(1)
    wrong = (right + 1) % 5
    label = torch.cat([right[:3], wrong[3:]])
    assert task(replace(batch, label=label))["accuracy"].item() == 0.75


def test_with_a_masking_only_visible_tokens_count(batch: Batch):
    task = task_with(MASKED, 0.1)
    losses = task(batch)
    logits = task.model(batch.video, mask_of(batch))
    assert set(losses) == {"loss", "classification", "accuracy"}
    torch.testing.assert_close(losses["loss"], cross_entropy(logits, batch.label, 0.1))


@pytest.mark.parametrize("config", [MAR, MAE_ST_MAR], ids=["mar", "mae_st"])
def test_a_decoder_adds_its_weighted_loss(batch: Batch, config: ClassifierConfig):
    task = task_with(config, 0.1, weight=0.3)
    losses = task(batch)
    logits, output = task.model.forward_jointly(batch.video, mask_of(batch))
    reconstruction = (output.predicted - output.target).square().mean()
    torch.testing.assert_close(losses["classification"], cross_entropy(logits, batch.label, 0.1))
    torch.testing.assert_close(losses["reconstruction"], reconstruction)
    torch.testing.assert_close(losses["loss"], losses["classification"] + 0.3 * reconstruction)


def binary_cross_entropy(logits: torch.Tensor, shown: torch.Tensor, smoothing: float) -> float:
    """The mean over clips and classes, one at a time, to targets smoothed as in timm."""
    rows, classes = logits.shape
    off = smoothing / classes
    total = 0.0
    for i in range(rows):
        for k in range(classes):
            target = 1 - smoothing + off if shown[i, k] else off
            probability = 1 / (1 + math.exp(-float(logits[i, k])))
            total -= target * math.log(probability) + (1 - target) * math.log(1 - probability)
    return total / (rows * classes)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_multi_label_data_is_the_smoothed_binary_cross_entropy(
    multi_label_batch: Batch, smoothing: float
):
    task = task_with(PLAIN, smoothing)
    losses = task(multi_label_batch)
    assert set(losses) == {"loss", "classification"}
    expected = binary_cross_entropy(
        task.model(multi_label_batch.video).detach(), multi_label_batch.label, smoothing
    )
    assert losses["loss"].item() == pytest.approx(expected, abs=1e-5)


def test_mar_reconstructs_with_multi_label_data_too(multi_label_batch: Batch):
    task = task_with(MAR, 0.1, weight=0.3)
    losses = task(multi_label_batch)
    logits, output = task.model.forward_jointly(multi_label_batch.video, mask_of(multi_label_batch))
    reconstruction = (output.predicted - output.target).square().mean()
    assert set(losses) == {"loss", "classification", "reconstruction"}
    assert losses["classification"].item() == pytest.approx(
        binary_cross_entropy(logits.detach(), multi_label_batch.label, 0.1), abs=1e-5
    )
    torch.testing.assert_close(losses["loss"], losses["classification"] + 0.3 * reconstruction)


@pytest.mark.parametrize("config", [MASKED, MAR], ids=["masked", "mar"])
def test_masks_follow_only_from_the_seeds(batch: Batch, config: ClassifierConfig):
    task = task_with(config, weight=0.1)
    torch.manual_seed(1)
    first = task(batch)["loss"]
    torch.manual_seed(2)
    assert torch.equal(task(batch)["loss"], first)
    assert not torch.equal(task(replace(batch, seed=batch.seed.flip(0)))["loss"], first)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_are_factors_on_the_loss_of_each_class(batch: Batch, smoothing: float):
    weights = [0.5, 1.0, 3.0, 0.0, 2.0]
    model = task_with(PLAIN).model
    task = ClassifyTask(model, label_smoothing=smoothing, class_weights=weights)
    log = model(batch.video).detach().log_softmax(1)
    expected = 0.0
    for row, label in enumerate(batch.label.tolist()):
        for k in range(5):
            share = (1 - smoothing) * (k == label) + smoothing / 5
            expected -= weights[k] * share * float(log[row, k]) / 4
    assert task(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)
    ones = ClassifyTask(model, label_smoothing=smoothing, class_weights=[1.0] * 5)
    torch.testing.assert_close(ones(batch)["loss"], cross_entropy(model(batch.video), batch.label, smoothing))
    assert task.state_dict().keys() == ones.state_dict().keys() == task_with(PLAIN).state_dict().keys()


def test_class_weights_of_mixed_and_of_multi_label_clips(batch: Batch, multi_label_batch: Batch):
    weights = [0.5, 1.0, 3.0, 0.0, 2.0]
    mixing = Mixing()
    task = ClassifyTask(task_with(PLAIN).model, mixing=mixing, class_weights=weights)
    video, target = mixing(batch.video, batch.label, batch.seed, 5)
    log = task.model(video).log_softmax(1)
    expected = -(target * torch.tensor(weights) * log).sum(1).mean()
    torch.testing.assert_close(task.train()(batch)["loss"], expected)
    task = ClassifyTask(task.model, class_weights=weights)
    chance = task.model(multi_label_batch.video).sigmoid()
    shown = multi_label_batch.label
    terms = torch.where(shown, chance.log(), (1 - chance).log()) * torch.tensor(weights)
    torch.testing.assert_close(task(multi_label_batch)["loss"], -terms.mean())


def test_the_ratio_goes_from_its_start_to_the_models_along_half_a_cosine(batch: Batch):
    task = task_with(replace(PLAIN, masking=RandomMasking(ratio=0.25)))
    task.masking_start_ratio = 0.75
    ratios = []
    for epoch in range(5):
        task.start_epoch(epoch, 5)
        assert task.masking
        ratios.append(task.masking.ratio)
        noise = row_noise(batch.seed, TINY.grid.volume)
        logits = task.model(batch.video, RandomMasking(ratio=ratios[-1]).from_noise(TINY.grid, noise))
        torch.testing.assert_close(task(batch)["loss"], cross_entropy(logits, batch.label, 0.0))
    half = math.sqrt(0.5) / 4
    assert ratios == pytest.approx([0.75, 0.5 + half, 0.5, 0.5 - half, 0.25])
    assert task.model.config.masking == RandomMasking(ratio=0.25)


def test_the_task_passes_on_what_its_model_offers_to_training():
    task = task_with(MAE_ST_MAR)
    model = task.model
    assert task.blocks == model.blocks
    assert task.num_layers == model.num_layers
    assert task.learned_tokens() == {f"model.{name}" for name in model.learned_tokens()}
    for name, _ in model.named_parameters():
        assert task.layer_of(f"model.{name}") == model.layer_of(name)
    assert (
        task.model_weights(task.state_dict() | {"other": torch.zeros(1)}).keys() == model.state_dict().keys()
    )
