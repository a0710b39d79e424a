"""Golden training curves: 50 steps of pre-training and of MAR's fine-tuning reproduce the recorded numbers.

A refactoring must reproduce the curves. After a change that is meant to alter the numbers, write them again
and say why in the commit: `python -m tests.train.test_golden_curve --write`.

All settings are written out here, so a new default does not change a curve. The clips are computed with
integer arithmetic, so no decoder is involved, and no random numbers except PyTorch's for the first weights,
drop path and dropout.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor

from tubelet.data.dataset import Batch
from tubelet.masking import RunningCellMasking, TubeMasking
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig
from tubelet.models.target import PixelTarget
from tubelet.tasks.classify import ClassifyTask
from tubelet.tasks.pretrain import PretrainTask
from tubelet.train.checkpoint import CheckpointStore, SaveConfig
from tubelet.train.loggers import MEASURED, LogConfig, Logs
from tubelet.train.loop import fit
from tubelet.train.optim import OptimConfig
from tubelet.train.runtime import Runtime, RuntimeConfig
from tubelet.train.task import Task

FILE = Path(__file__).parents[1] / "golden" / "curves.json"
STEPS = 50

# The same machine gives the same bits; another processor or library adds up in another order. A relative
# change of 1e-6 (eight times float32's rounding) of every first weight moves no number of the curves by more
# than 1.2e-5 of the curve's largest. A wrong rule moves them by far more: `test_a_wrong_rule_is_noticed`.
TOLERANCE = 1e-4

ENCODER = EncoderConfig(
    frames=4,
    image_size=16,
    tubelet=2,
    patch_size=4,
    dim=24,
    depth=2,
    heads=3,
    mlp_dim=48,
    positions="separable",
    position_grid=None,
    class_token=True,
    key_bias=False,
    layer_scale=None,
    final_norm=True,
    norm_eps=1e-6,
    mean=(0.45, 0.45, 0.45),
    std=(0.225, 0.225, 0.225),
)
DECODER = DecoderConfig(
    dim=16,
    depth=1,
    heads=2,
    mlp_dim=32,
    positions="joint",
    position_grid=None,
    class_token="encoder",
    embed_bias=True,
    key_bias=True,
    layer_scale=None,
    norm_eps=1e-6,
    final_norm_eps=1e-6,
)
TARGET = PixelTarget(normalize="channel", pixels="zero_one", frames=None, spacing="linspace")
RUNTIME = RuntimeConfig(
    device="cpu", precision="fp32", parallel="ddp", compile=False, recompute=False, threads=1
)


def clip(index: int) -> Tensor:
    """A wave that moves right, left, down or up, by class: uint8 (T, C, H, W)."""
    t, c, y, x = torch.meshgrid(*(torch.arange(size) for size in (4, 3, 16, 16)), indexing="ij")
    dx, dy = [(1, 0), (-1, 0), (0, 1), (0, -1)][index % 4]
    phase = 7 * index + 3 * c + (2 + index % 3) * (x - 2 * dx * t) + (3 + index % 5) * (y - 2 * dy * t)
    return ((12 * phase) % 511 - 255).abs().to(torch.uint8)


def batch_of(indices: list[int]) -> Batch:
    return Batch(
        video=torch.stack([clip(index) for index in indices]),
        label=torch.tensor([index % 4 for index in indices]),
        seed=torch.tensor([index * 7919 - 3 for index in indices]),
        index=torch.tensor(indices),
        names=[f"{index}.mp4" for index in indices],
        failures={},
    )


class Clips:
    """Twenty clips in batches of `size`, turned by one clip each epoch, with other seeds in each."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return 20 // self.size

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = [(index + epoch) % 20 + 20 * epoch for index in range(20)]
        for first in range(start * self.size, 20, self.size):
            yield batch_of(order[first : first + self.size])

    def end_epoch(self, gather: Callable[[Any], list[Any]]) -> None:
        """There is nothing to join."""

    def state(self, gather: Callable[[Any], list[Any]]) -> dict[str, Any]:
        return {}

    def resume(self, state: dict[str, Any]) -> None:
        """There is nothing to restore."""


class Recorder:
    """Keeps the numbers of every step."""

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []

    def resume(self, step: int) -> None:
        """There is nothing to drop."""

    def log(self, step: int, values: dict[str, float]) -> None:
        kept = {name: value for name, value in values.items() if name not in MEASURED}
        self.lines.append({"step": step, **kept})

    def advance(self, epoch: float) -> None:
        """Only logged values are kept."""

    def close(self) -> None:
        """There is nothing to close."""


def pretraining() -> tuple[Task, OptimConfig, int]:
    model = MaskedAutoencoder(AutoencoderConfig(encoder=ENCODER, decoder=DECODER, target=TARGET))
    optim = OptimConfig(
        base_lr=0.32,
        batch_size=4,
        epochs=10,
        warmup_epochs=1.0,
        min_lr=1e-3,
        warmup_lr=1e-4,
        weight_decay=0.5,
        betas=(0.9, 0.95),
        eps=1e-8,
        layer_decay=1.0,
        clip_grad=1.0,
        accumulate=1,
        ema=None,
    )
    return PretrainTask(model, TubeMasking(ratio=0.75)), optim, 4


def fine_tuning() -> tuple[Task, OptimConfig, int]:
    config = ClassifierConfig(
        encoder=ENCODER,
        classes=4,
        head=BridgingHeadConfig(dim=16, depth=1, heads=2, mlp_dim=32, dropout=0.1),
        masking=RunningCellMasking(ratio=0.5, cell=(2, 2), same_start=True, shuffle_time=True),
        decoder=DECODER,
        target=TARGET,
    )
    optim = OptimConfig(
        base_lr=0.32,
        batch_size=4,
        epochs=10,
        warmup_epochs=1.0,
        min_lr=1e-3,
        warmup_lr=1e-4,
        weight_decay=0.5,
        betas=(0.9, 0.999),
        eps=1e-8,
        layer_decay=0.75,
        clip_grad=None,
        accumulate=2,
        ema=0.9,
    )
    model = VideoClassifier(config, drop_path=0.2)
    task = ClassifyTask(model, label_smoothing=0.1, reconstruction_weight=0.1, mixing=None)
    return task, optim, 2


RUNS = {"pretrain": pretraining, "finetune_mar": fine_tuning}


def validate(task: Task) -> dict[str, float]:
    losses = task(batch_of(list(range(1000, 1008))))
    return {"score": -float(losses["loss"])}


def curve(name: str) -> dict[str, list[float]]:
    """Every number that one run logs, by name, in order."""
    torch.manual_seed(3)
    task, optim, micro_batch = RUNS[name]()
    recorder = Recorder()
    with TemporaryDirectory() as folder, Runtime(RUNTIME) as runtime, Logs(recorder) as logs:
        fit(
            task,
            Clips(micro_batch),
            optim,
            runtime,
            CheckpointStore(Path(folder)),
            logs=logs,
            seed=5,
            save=SaveConfig(every_epochs=5, every_seconds=1e9),
            log=LogConfig(every_steps=1),
            validate=validate,
            score="score",
        )
    assert recorder.lines[-1]["step"] == STEPS
    names = dict.fromkeys(key for line in recorder.lines for key in line if key not in ("step", "epoch"))
    return {key: [line[key] for line in recorder.lines if key in line] for key in names}


def distance(found: dict[str, list[float]], expected: dict[str, list[float]]) -> float:
    """The largest difference of two curves, relative to each curve's own largest number."""
    assert found.keys() == expected.keys()
    return max(
        abs(a - b) / max(map(abs, expected[key]))
        for key in expected
        for a, b in zip(found[key], expected[key], strict=True)
    )


@pytest.mark.parametrize("name", RUNS)
def test_training_reproduces_the_golden_curve(name: str):
    expected = json.loads(FILE.read_text(encoding="utf-8"))[name]
    assert len(expected["loss"]) == STEPS
    assert distance(curve(name), expected) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_wrong_rule_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch):
    expected = json.loads(FILE.read_text(encoding="utf-8"))[name]
    for rule, wrong in (("learned_tokens", lambda task: set()), ("layer_of", lambda task, name: 1)):
        if rule != "layer_of" or RUNS[name]()[0].num_layers > 1:
            with monkeypatch.context() as patch:
                patch.setattr(type(RUNS[name]()[0]), rule, wrong)
                assert distance(curve(name), expected) > 10 * TOLERANCE, rule


def write() -> None:
    curves = {
        name: {key: [float(f"{value:.7g}") for value in values] for key, values in curve(name).items()}
        for name in RUNS
    }
    FILE.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: python -m {__spec__.name} --write")
    write()
