"""How long the demo takes on this machine: a short measurement before it, corrected by each finished step."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch.nn import functional

from tubelet.demo.motion_clips import CLASSES
from tubelet.demo.motion_videos import SyntheticConfig
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.recipe.schema import FinetuneRecipe, Recipe
from tubelet.run.run_record import LOG_FILE
from tubelet.train.runtime import Runtime, RuntimeConfig

_PROBE_CLIPS = 16
_PROBE_STEPS = 3
# The time of one item, relative to that of a clip in the measurement; found on two cores of a Xeon with AVX2.
_VIDEO_TO_WRITE, _TEST_VIEW = 1.3, 0.5
_TRAINING_CLIP = {"pretrain": 0.33, "finetune_mar": 0.65, "finetune_full": 1.15, "finetune_scratch": 1.15}
_START_S = 4.0  # of each training and test, to start the processes that decode


def planned_seconds(
    out: Path, data: SyntheticConfig, recipes: Mapping[str, Recipe], num_tests: int, config: RuntimeConfig
) -> dict[str, float]:
    """Return the expected seconds of each step, less what is finished in `out`."""
    scratch = recipes["finetune_scratch"]
    assert isinstance(scratch, FinetuneRecipe)
    with Runtime(config) as runtime:
        clip_s = seconds_per_clip(scratch, len(CLASSES), runtime)
    videos = data.train + data.val + data.test - len(list((out / "data").glob("videos/*/*.mp4")))
    planned = {"data": videos * _VIDEO_TO_WRITE * clip_s}
    for run, recipe in recipes.items():
        clips = data.train * recipe.data.clips_per_video * _TRAINING_CLIP[run]
        if isinstance(recipe, FinetuneRecipe):
            clips += data.val * recipe.views.count * _TEST_VIEW
        epochs = recipe.optim.epochs - _finished_epochs(out / run)
        planned[run] = clips * epochs * clip_s + (_START_S if epochs > 0 else 0)
    views = data.test * scratch.views.count * _TEST_VIEW
    return planned | {"tests": num_tests * (views * clip_s + _START_S), "report": _START_S}


def _finished_epochs(run: Path) -> float:
    """Return the epochs that a run has logged."""
    log = run / LOG_FILE
    for line in reversed(log.read_text(encoding="utf-8").splitlines() if log.exists() else []):
        with suppress(ValueError):  # a line that a kill has cut short
            return float(json.loads(line).get("epoch", 0))
    return 0.0


class Clock:
    """The expected seconds of each step of the demo.

    Args:
        planned: step -> expected seconds, in their order.
    """

    def __init__(self, planned: Mapping[str, float]) -> None:
        self._planned = dict(planned)
        self._expected_s = self._actual_s = 0.0  # of the finished steps

    @property
    def left_s(self) -> float:
        """The expected seconds of the steps that have not begun, at the speed of the finished ones."""
        return sum(self._planned.values()) * (self._actual_s / self._expected_s if self._expected_s else 1)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of a step; within it, `left_s` is about the steps after it."""
        expected, start = self._planned.pop(name), time.monotonic()
        yield
        self._expected_s += expected
        self._actual_s += time.monotonic() - start


def seconds_per_clip(recipe: FinetuneRecipe, classes: int, runtime: Runtime) -> float:
    """Measure the training of the recipe's classifier on all tokens of random clips: seconds per clip."""
    assert recipe.encoder is not None
    config = ClassifierConfig(encoder=recipe.encoder, head=recipe.head, classes=classes)
    model = VideoClassifier(config).to(runtime.device)
    side, frames = recipe.encoder.image_size, recipe.encoder.frames
    clips = torch.zeros(_PROBE_CLIPS, frames, 3, side, side, dtype=torch.uint8, device=runtime.device)
    labels = torch.zeros(_PROBE_CLIPS, dtype=torch.int64, device=runtime.device)

    def seconds() -> float:
        start = time.monotonic()
        with runtime.autocast():
            loss = functional.cross_entropy(model(clips), labels)
        loss.backward()
        loss.item()  # waits for a GPU
        return time.monotonic() - start

    seconds()  # the first step also allocates
    return min(seconds() for _ in range(_PROBE_STEPS)) / _PROBE_CLIPS
