"""Mixup and cutmix, against loops over pixels and against the published distributions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.data.binomial import within
from tests.models.conftest import TINY, TINY_DECODER, randomize
from tubelet.data.dataset import Batch
from tubelet.data.mixing import MixDraw, Mixing, mix_clips
from tubelet.errors import UserError
from tubelet.masking import RunningCellMasking, row_noise
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.heads import BridgingHeadConfig
from tubelet.tasks.classify import ClassifyTask

SIDE = 16
MIXUP = Mixing(cutmix=0)
CUTMIX = Mixing(mixup=0)


def seeds(count: int, batch: int = 2) -> torch.Tensor:
    """(count, batch) random numbers, some of them negative."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (count, batch), generator=generator)


def draws(mixing: Mixing, count: int, height: int = 224, width: int = 224) -> list[MixDraw]:
    return [mixing.draw(seed, height, width) for seed in seeds(count)]


# ------------------------------------------------------------------------------------------------ drawing


def test_cutmix_is_as_frequent_as_the_switch_setting():
    assert within(sum(mix.box is not None for mix in draws(Mixing(), 2000)), 2000, 0.5)
    assert within(sum(mix.box is not None for mix in draws(Mixing(switch=0.2), 2000)), 2000, 0.2)
    assert all(mix.box is None for mix in draws(MIXUP, 200))
    assert all(mix.box is not None for mix in draws(CUTMIX, 200))


def test_batches_are_mixed_with_the_given_probability():
    mixes = draws(Mixing(probability=0.3), 2000)
    assert within(sum(mix != MixDraw(1.0) for mix in mixes), 2000, 0.3)


@pytest.mark.parametrize("alpha", [0.8, 0.2, 4.0])
def test_the_weight_in_mixup_has_the_beta_distribution(alpha: float):
    weights = np.array([mix.weight for mix in draws(Mixing(mixup=alpha, cutmix=0), 4000)])
    truth = np.random.default_rng(1).beta(alpha, alpha, 200_000)
    for bound in np.linspace(0.1, 0.9, 9):
        assert within(int((weights < bound).sum()), 4000, float((truth < bound).mean()))


def box_by_hand(weight: float, y: int, x: int, height: int, width: int) -> tuple[int, int, int, int]:
    h, w = int(height * np.sqrt(1 - weight)), int(width * np.sqrt(1 - weight))
    return (
        int(np.clip(y - h // 2, 0, height)),
        int(np.clip(y + h // 2, 0, height)),
        int(np.clip(x - w // 2, 0, width)),
        int(np.clip(x + w // 2, 0, width)),
    )


@pytest.mark.slow
def test_boxes_in_cutmix_have_the_published_distribution():
    """Compare sides, positions and areas with the published steps on numpy's draws."""
    height, width = 224, 160
    ours = np.array([mix.box for mix in draws(CUTMIX, 4000, height, width)])
    rng = np.random.default_rng(1)
    truth = np.array(
        [
            box_by_hand(rng.beta(1, 1), int(rng.integers(height)), int(rng.integers(width)), height, width)
            for _ in range(40_000)
        ]
    )
    for measure in (
        lambda box: box[:, 1] - box[:, 0],
        lambda box: box[:, 3] - box[:, 2],
        lambda box: box[:, 0],
        lambda box: box[:, 3],
        lambda box: (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]),
    ):
        for fraction in (0.1, 0.3, 0.5, 0.7, 0.9):
            edge = np.quantile(measure(truth), fraction)
            assert within(int((measure(ours) <= edge).sum()), 4000, float((measure(truth) <= edge).mean()))


def test_the_weight_in_cutmix_is_the_area_outside_the_box():
    for mix in draws(CUTMIX, 300, 20, 30):
        assert mix.box is not None
        top, bottom, left, right = mix.box
        kept = sum(not (top <= y < bottom and left <= x < right) for y in range(20) for x in range(30))
        assert mix.weight == pytest.approx(kept / 600)


def test_a_mix_follows_from_only_the_seeds_of_the_batch():
    one, other = seeds(2, batch=3)
    torch.manual_seed(1)
    np.random.seed(1)
    first = Mixing().draw(one, 64, 64)
    torch.manual_seed(2)
    np.random.seed(2)
    assert Mixing().draw(one.clone(), 64, 64) == first
    assert Mixing().draw(other, 64, 64) != first
    assert Mixing().draw(one.flip(0), 64, 64) != first


# ------------------------------------------------------------------------------------------------ mixing


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.618, 1.0])
def test_mixup_is_the_rounded_mean_of_both_clips(batch: Batch, weight: float):
    video = batch.video
    mixed = mix_clips(video, MixDraw(weight))
    assert mixed.dtype == torch.uint8
    pixels = video.numpy().astype(np.float64)
    for k in range(4):
        exact = weight * pixels[k] + (1 - weight) * pixels[3 - k]
        assert np.abs(mixed[k].numpy() - exact).max() <= 0.5 + 1e-4


def test_cutmix_takes_the_box_from_the_partner_in_all_frames(batch: Batch):
    box = (3, 9, 5, 16)
    mixed = mix_clips(batch.video, MixDraw(0.5, box))
    for k in range(4):
        for y in range(SIDE):
            for x in range(SIDE):
                source = 3 - k if 3 <= y < 9 and 5 <= x < 16 else k
                assert torch.equal(mixed[k, ..., y, x], batch.video[source, ..., y, x])


@pytest.mark.parametrize("mix", [MixDraw(0.3), MixDraw(0.3, (0, 8, 0, 8))])
def test_the_middle_clip_of_an_odd_batch_and_the_given_batch_stay_unchanged(batch: Batch, mix: MixDraw):
    video = batch.video[:3]
    before = video.clone()
    mixed = mix_clips(video, mix)
    assert torch.equal(mixed[1], before[1])
    assert torch.equal(video, before)


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
def test_labels_are_mixed_as_the_clips_are(batch: Batch, mixing: Mixing):
    mixed, target = mixing(batch.video, batch.label, batch.seed, 5)
    mix = mixing.draw(batch.seed, SIDE, SIDE)
    assert torch.equal(mixed, mix_clips(batch.video, mix))
    expected = np.zeros((4, 5))
    for k in range(4):
        expected[k, int(batch.label[k])] += mix.weight
        expected[k, int(batch.label[3 - k])] += 1 - mix.weight
    assert target.dtype == torch.float32
    np.testing.assert_allclose(target.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
def test_multi_labels_are_mixed_as_the_clips_are(multi_label_batch: Batch, mixing: Mixing):
    mixed, target = mixing(multi_label_batch.video, multi_label_batch.label, multi_label_batch.seed, 5)
    mix = mixing.draw(multi_label_batch.seed, SIDE, SIDE)
    assert torch.equal(mixed, mix_clips(multi_label_batch.video, mix))
    shown = multi_label_batch.label.numpy().astype(float)
    assert target.dtype == torch.float32
    np.testing.assert_allclose(target.numpy(), mix.weight * shown + (1 - mix.weight) * shown[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"switch": 1.5}, r"^switch .*1\.5"),
        ({"probability": -0.1}, r"^probability .*-0\.1"),
        ({"mixup": -1}, r"^mixup .*-1"),
        ({"cutmix": float("nan")}, r"^cutmix .*nan"),
        ({"mixup": 0, "cutmix": 0}, "^mixup and cutmix"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str):
    with pytest.raises(UserError, match=message):
        Mixing(**settings)


# ----------------------------------------------------------------------------------------------- training

PLAIN = ClassifierConfig(encoder=replace(TINY, final_norm=False), classes=5)
MAR = ClassifierConfig(
    encoder=TINY,
    classes=5,
    head=BridgingHeadConfig(dim=16, depth=2, heads=2, mlp_dim=32),
    masking=RunningCellMasking(ratio=0.5),
    decoder=TINY_DECODER,
)


def task_with(config: ClassifierConfig, mixing: Mixing | None, smoothing: float = 0.0) -> ClassifyTask:
    torch.manual_seed(0)
    model = VideoClassifier(config)
    randomize(model)
    return ClassifyTask(model, label_smoothing=smoothing, reconstruction_weight=0.1, mixing=mixing)


def published_loss(logits: torch.Tensor, label: torch.Tensor, weight: float, smoothing: float) -> float:
    """Soft targets as published: off = smoothing / K, on = 1 - smoothing + off, both labels' mixed."""
    log = logits.double().log_softmax(1).detach().numpy()
    rows, classes = log.shape
    total = 0.0
    for k in range(rows):
        for c in range(classes):
            off = smoothing / classes
            own, other = (1 - smoothing + off if int(label[i]) == c else off for i in (k, rows - 1 - k))
            total -= (weight * own + (1 - weight) * other) * log[k, c]
    return total / rows


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
def test_the_loss_is_the_published_soft_cross_entropy(batch: Batch, mixing: Mixing, smoothing: float):
    task = task_with(PLAIN, mixing, smoothing)
    losses = task(batch)
    mix = mixing.draw(batch.seed, SIDE, SIDE)
    logits = task.model(mix_clips(batch.video, mix))
    assert losses["loss"].item() == pytest.approx(
        published_loss(logits, batch.label, mix.weight, smoothing), abs=1e-5
    )
    right = (logits.argmax(1) == batch.label).float().mean()
    assert losses["accuracy"] == right  # against each clip's own label


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
def test_the_loss_on_mixed_multi_labels_is_the_mean_of_both_binary_losses(
    multi_label_batch: Batch, mixing: Mixing
):
    """The binary cross-entropy is linear in its targets."""
    task = task_with(PLAIN, mixing)
    mix = mixing.draw(multi_label_batch.seed, SIDE, SIDE)
    probabilities = task.model(mix_clips(multi_label_batch.video, mix)).double().sigmoid().detach().numpy()
    own, other = multi_label_batch.label.numpy(), multi_label_batch.label.numpy()[::-1]
    each = (-np.log(np.where(shown, probabilities, 1 - probabilities)).mean() for shown in (own, other))
    first, second = each
    expected = mix.weight * first + (1 - mix.weight) * second
    assert task(multi_label_batch)["loss"].item() == pytest.approx(expected, abs=1e-5)


def test_mar_reconstructs_the_mixed_clip(batch: Batch):
    task = task_with(MAR, CUTMIX)
    mixed = mix_clips(batch.video, CUTMIX.draw(batch.seed, SIDE, SIDE))
    assert MAR.masking is not None
    mask = MAR.masking.from_noise(TINY.grid, row_noise(batch.seed, MAR.masking.noise_size(TINY.grid)))
    _, reconstruction = task.model.forward_jointly(mixed, mask)
    torch.testing.assert_close(
        task(batch)["reconstruction"], (reconstruction.predicted - reconstruction.target).square().mean()
    )


def test_the_mix_is_drawn_without_waiting_for_the_device(batch: Batch):
    meta = torch.device("meta")  # its tensors have no values to wait for
    losses = task_with(MAR, Mixing()).to(meta)(batch.to(meta))
    assert losses["loss"].device == losses["reconstruction"].device == meta


def test_nothing_is_mixed_in_evaluation(batch: Batch):
    task, plain = task_with(PLAIN, Mixing()).eval(), task_with(PLAIN, None).eval()
    assert torch.equal(task(batch)["loss"], plain(batch)["loss"])
    assert not torch.equal(task.train()(batch)["loss"], plain.train()(batch)["loss"])
