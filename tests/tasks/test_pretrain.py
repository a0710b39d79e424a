"""The pre-training task: its loss, and masks that follow from each clip's seed."""

from dataclasses import replace

import pytest
import torch

from tests.models.conftest import MAE_ST, MAE_ST_RELEASED, TINY, TINY_DECODER, randomize
from tubelet.data.dataset import Batch
from tubelet.masking import (
    AnyMasking,
    BlockMasking,
    DualMasking,
    FrameMasking,
    RandomMasking,
    RunningCellMasking,
    TubeMasking,
    row_noise,
)
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.patches import patchify
from tubelet.tasks.pretrain import PretrainTask

VIDEOMAE = AutoencoderConfig(encoder=TINY, decoder=TINY_DECODER)
MASKINGS: list[AnyMasking] = [
    TubeMasking(ratio=0.75),
    RandomMasking(ratio=0.75),
    FrameMasking(ratio=0.5),
    BlockMasking(ratio=0.75),
    RunningCellMasking(),
    DualMasking(ratio=0.75),
]


def task_with(masking: AnyMasking, config: AutoencoderConfig = VIDEOMAE) -> PretrainTask:
    torch.manual_seed(0)
    model = MaskedAutoencoder(config)
    randomize(model)
    return PretrainTask(model, masking)


@pytest.mark.parametrize(
    "config", [VIDEOMAE, MAE_ST, MAE_ST_RELEASED], ids=["videomae", "mae_st", "released"]
)
@pytest.mark.parametrize("masking", MASKINGS)
def test_the_loss_is_the_mean_squared_error_over_masked_tokens(
    batch: Batch, masking: AnyMasking, config: AutoencoderConfig
):
    task = task_with(masking, config)
    patches = patchify(batch.video, TINY.tubelet_size)
    everything = torch.arange(TINY.grid.volume).expand(4, -1)
    target = config.target(patches, everything, task.model.encoder)
    errors = []
    for row in range(4):
        noise = row_noise(batch.seed[row : row + 1], masking.noise_size(TINY.grid))
        mask = masking.from_noise(TINY.grid, noise)
        encoded = task.model.encoder(patches[row : row + 1], mask.visible)
        predicted = task.model.decoder(encoded, mask)[0]
        for found, token in zip(predicted, mask.masked[0].tolist(), strict=True):
            if token not in mask.visible[0].tolist():
                errors.append((found - target[row, token]).square())
    losses = task(batch)
    assert set(losses) == {"loss"}
    torch.testing.assert_close(losses["loss"], torch.stack(errors).mean())


@pytest.mark.parametrize("masking", MASKINGS)
def test_the_loss_does_not_depend_on_global_randomness(batch: Batch, masking: AnyMasking):
    task = task_with(masking)
    torch.manual_seed(1)
    first = task(batch)["loss"]
    torch.manual_seed(2)
    assert torch.equal(task(batch)["loss"], first)
    assert not torch.equal(task(replace(batch, seed=batch.seed + 1))["loss"], first)


def test_the_loss_of_a_batch_is_the_mean_of_its_clips(batch: Batch):
    task = task_with(TubeMasking(ratio=0.75))
    single = [
        task(replace(batch, video=batch.video[k : k + 1], seed=batch.seed[k : k + 1]))["loss"]
        for k in range(4)
    ]
    torch.testing.assert_close(task(batch)["loss"], torch.stack(single).mean())


@pytest.mark.parametrize("masking", MASKINGS)
def test_masks_are_made_on_the_clips_device(batch: Batch, masking: AnyMasking):
    meta = torch.device("meta")
    assert task_with(masking).to(meta)(batch.to(meta))["loss"].device == meta
