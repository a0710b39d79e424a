"""Settings that are `auto`: plain values from the number of videos, the model to start from and the machine.

`fit_settings` is a pure function; `situation_of` looks at the data set, the model and the machine for it.
"""

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from tubelet.checkpoints.load import load_model
from tubelet.clips import AnyClip, DenseClip, SegmentClip
from tubelet.data.augment import mirrored_classes
from tubelet.data.dataset import read_clip
from tubelet.data.loader import default_workers
from tubelet.data.manifest import Manifest, read_manifest
from tubelet.errors import plural
from tubelet.machine import memory_bytes, process_rank
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.classifier import ClassifierConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.recipe.schema import TASKS, FinetuneRecipe, PretrainRecipe, Recipe
from tubelet.settings import parse, to_plain
from tubelet.train.optim import scaled_lr
from tubelet.train.runtime import Runtime, RuntimeConfig, choose_device
from tubelet.video.reader import VideoError

AUTO = "auto"
_SMALL_ENCODER = {
    "frames": 8, "image_size": 96, "patch_size": 12, "dim": 192, "depth": 4, "heads": 3, "mlp_dim": 768,
}  # fmt: skip
_SMALL_DECODER = {"dim": 96, "depth": 2, "heads": 3, "mlp_dim": 384}
_LONG_S = 10.0  # longer videos show more than one action: a clip is a part of them
_USABLE_MEMORY = 0.7  # of the device; the rest is for fragmentation, other programs and the batch
_MIN_CLIPS = 8  # that must fit on a GPU at a time, or half of the tokens are masked
_EFFICIENCY = 0.4  # of a training step, of the speed of its matrix products
_TEMPORARY_VALUES = {"base_lr": 0.0, "epochs": 1_000_000}  # with them all other settings can be checked


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What settings that are `auto` depend on.

    Attributes:
        num_videos: videos to train on.
        classes: class names.
        seconds: median duration of the videos; 0 if it is unknown.
        device: cpu, cuda or mps.
        memory_bytes: memory of the device.
        processes: processes that share the batch.
        start: architecture of the model of init.
        start_clip: how that model's clips are sampled.
        multiply_adds_per_s: measured speed of matrix products, for the estimate of the duration only.
        reads_per_s: measured clips read per second with all workers, for the same.
    """

    num_videos: int
    classes: tuple[str, ...] = ()
    seconds: float = 0.0
    device: str = "cpu"
    memory_bytes: int = 16 * 2**30
    processes: int = 1
    start: AutoencoderConfig | ClassifierConfig | None = None
    start_clip: AnyClip | None = None
    multiply_adds_per_s: float = 0.0
    reads_per_s: float = 0.0


def has_auto(settings: Mapping[str, Any]) -> bool:
    """Return whether a recipe's settings contain `auto`, other than for its device and precision."""

    return any(_within(value, 4) for key, value in settings.items() if key != "runtime")


def _within(value: Any, depth: int) -> bool:
    """Return whether a value is `auto` or contains it, down to a depth, as YAML may contain itself."""
    if isinstance(value, Mapping):
        return depth > 0 and any(_within(inner, depth - 1) for inner in value.values())
    return bool(value == AUTO)


def situation_of(settings: Mapping[str, Any], source: str) -> Situation:
    """Look at the data set, the model of init and the machine.

    Raises:
        UserError: a setting is wrong, or the data set or the model cannot be read.
    """
    recipe = parse(TASKS[settings["task"]], _without_auto(settings), source)
    manifest = read_manifest(recipe.data.root, recipe.data.train)
    durations = [sample.frames / sample.fps for sample in manifest.samples if sample.frames and sample.fps]
    device = choose_device(recipe.runtime.device)
    cuda = device.type == "cuda"
    start = load_model(recipe.init) if recipe.init else None
    return Situation(
        num_videos=len(manifest),
        classes=manifest.classes,
        seconds=median(durations) if durations else 0.0,
        device=device.type,
        memory_bytes=torch.cuda.get_device_properties(device).total_memory if cuda else memory_bytes(),
        processes=process_rank()[1],
        start=start.config if start else None,
        start_clip=start.card.clip if start else None,
        multiply_adds_per_s=_multiply_adds_per_s(recipe.runtime),
        reads_per_s=_reads_per_s(manifest, recipe.data.workers, device.type),
    )


def fit_settings(settings: Mapping[str, Any], situation: Situation, source: str) -> dict[str, Any]:
    """Return a recipe's settings with a plain value for each that is `auto`; a pure function.

    What is given stays, and the others follow from it too.

    Args:
        settings: as read from a recipe.
        situation: what the values depend on.
        source: where the settings are from, for messages.

    Raises:
        UserError: a setting that is given is wrong.
    """
    fitted = deepcopy(dict(settings))
    model = fitted.setdefault("model", {}) if fitted["task"] == "pretrain" else fitted
    _fit_model(fitted, model, situation)
    clip = _clip(situation, _frames(fitted, model, situation))
    fitted["data"]["clip"] = _filled(fitted["data"].get("clip"), to_plain(clip), whole="kind")
    given = fitted["optim"]
    recipe = parse(TASKS[fitted["task"]], _without_auto(fitted), source)
    encoder = _encoder(recipe, situation)
    if isinstance(recipe, FinetuneRecipe):
        if fitted.get("masking") == AUTO:
            masked = situation.device == "cuda" and _clips_that_fit(recipe, encoder, situation) < _MIN_CLIPS
            fitted["masking"] = {"kind": "running_cell", "ratio": 0.5} if masked else None
            recipe = parse(TASKS["finetune"], _without_auto(fitted), source)
        fitted["data"]["augment"] = _filled(fitted["data"].get("augment"), _augment(situation))
    batch = _batch(situation, recipe.task) if given.get("batch_size") == AUTO else recipe.optim.batch_size
    epochs = _epochs(recipe, situation) if given.get("epochs") == AUTO else recipe.optim.epochs
    fits = max(1, _clips_that_fit(recipe, encoder, situation) // recipe.data.clips_per_video)
    fitted["optim"] = _filled(
        given,
        {
            "batch_size": batch,
            "epochs": epochs,
            "warmup_epochs": epochs / 10,
            "accumulate": _accumulate(batch // situation.processes, fits),
            "base_lr": _base_lr(recipe.task, encoder.dim, batch),
            "layer_decay": 0.75 if situation.start and encoder.depth >= 12 else 1.0,
        },
    )
    return fitted


def _without_auto(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that can be checked before what is `auto` is decided."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and key != "runtime" and _within(value, 4):
            found[key] = _without_auto(value)
        elif value != AUTO:
            found[key] = value
        elif key in _TEMPORARY_VALUES:
            found[key] = _TEMPORARY_VALUES[key]
    return found


def _filled(group: Any, values: Mapping[str, Any], whole: str = "") -> Any:
    """Return a group of settings with values for those that are `auto`, and with all if `whole` is `auto`."""
    if not isinstance(group, Mapping):
        return group
    if group.get(whole) == AUTO:
        return {**values, **{key: value for key, value in group.items() if value != AUTO}}
    return {key: values.get(key, value) if value == AUTO else value for key, value in group.items()}


def _fit_model(fitted: dict[str, Any], model: dict[str, Any], situation: Situation) -> None:
    """Decide the architecture: that of init, else ViT-B on a GPU, else a small one."""
    start, cuda = situation.start, situation.device == "cuda"
    encoder: dict[str, Any] = {"size": "base"} if cuda else dict(_SMALL_ENCODER)
    decoder: dict[str, Any] = {"size": "base"} if cuda else dict(_SMALL_DECODER)
    if start and fitted["task"] == "finetune":
        if isinstance(model.get("encoder"), Mapping) and set(model["encoder"].values()) == {AUTO}:
            model["encoder"] = None
        return
    if isinstance(start, AutoencoderConfig):
        plain = to_plain(start)
        encoder, decoder = plain.pop("encoder"), plain.pop("decoder")
        model.update({key: value for key, value in plain.items() if key not in model})
    sizes = {"frames": EncoderConfig.frames, "image_size": EncoderConfig.image_size}
    model["encoder"] = _filled(model.get("encoder"), sizes | encoder, whole="size")
    model["decoder"] = _filled(model.get("decoder"), decoder, whole="size")
    if fitted["task"] == "finetune":
        del model["decoder"]


def _frames(fitted: Mapping[str, Any], model: Mapping[str, Any], situation: Situation) -> Any:
    """Return the frames of the model's clips, as they are given or decided."""
    if situation.start:
        return fitted.get("frames") or situation.start.encoder.frames
    encoder = model.get("encoder")
    return (encoder or {}).get("frames", EncoderConfig.frames)


def _clip(situation: Situation, frames: Any) -> AnyClip:
    """Return init's sampling; without it frames of the whole video, or about two seconds of a long one."""
    frames = int(frames) if str(frames).isdigit() and int(frames) else EncoderConfig.frames
    if situation.start_clip:
        return replace(situation.start_clip, frames=frames)
    if situation.seconds > _LONG_S:
        return DenseClip(frames=frames, stride=max(1, 64 // frames))
    return SegmentClip(frames=frames)


def _encoder(recipe: Recipe, situation: Situation) -> EncoderConfig:
    """Return the architecture that is trained, with the clip's size that is given."""
    if isinstance(recipe, PretrainRecipe):
        return recipe.model.encoder
    if situation.start is None:
        return recipe.encoder or EncoderConfig()
    start = situation.start.encoder
    return replace(
        start, frames=recipe.frames or start.frames, image_size=recipe.image_size or start.image_size
    )


def _augment(situation: Situation) -> dict[str, Any]:
    """Return flips, none if class names have sides, and on a GPU also VideoMAE's RandAugment."""
    mirrored = mirrored_classes(situation.classes)
    has_sides = any(number != image for number, image in enumerate(mirrored))
    return {
        "flip": 0.0 if has_sides else 0.5,
        "randaugment": {"policy": "rand-m7-n4-mstd0.5-inc1"} if situation.device == "cuda" else None,
    }


def _batch(situation: Situation, task: str) -> int:
    """Return a power of two of at most a third of the videos, or a multiple of the processes above it."""
    largest = (
        {"pretrain": 256, "finetune": 64} if situation.device == "cuda" else {"pretrain": 32, "finetune": 16}
    )
    batch = min(largest[task], 1 << (max(1, situation.num_videos // 3).bit_length() - 1))
    return -(-batch // situation.processes) * situation.processes


def _epochs(recipe: Recipe, situation: Situation) -> int:
    """Return the epochs, a multiple of ten: few videos are shown more often, within bounds by device."""
    cuda = situation.device == "cuda"
    if recipe.task == "pretrain":
        clips, least, most = (2_000_000, 100, 800) if cuda else (20_000, 20, 400)
    else:
        clips, least, most = (60_000, 30, 100) if cuda else (3_000, 10, 100)
    per_epoch = situation.num_videos * recipe.data.clips_per_video
    return max(least, min(most, clips // per_epoch // 10 * 10))


def _base_lr(task: str, dim: int, batch: int) -> float:
    """Return the rate for a batch of 256: the peak grows with the root of the batch and falls with the width.

    At ViT-B and the published batches this is close to VideoMAE's rates.
    """
    peak = (5e-4 if task == "pretrain" else 1e-3) * (768 / dim) * (batch / 256) ** 0.5
    return float(f"{peak * 256 / batch:.2g}")


def _accumulate(batch: int, fits: int) -> int:
    """Return the fewest micro-batches that divide a process's batch and fit in memory."""
    return next(parts for parts in range(1, batch + 1) if batch % parts == 0 and batch // parts <= fits)


def _clips_that_fit(recipe: Recipe, encoder: EncoderConfig, situation: Situation) -> int:
    """Return how many clips of a step fit in memory, with about 16 values a token, block and feature."""
    value_bytes = 2 if situation.device == "cuda" else 4
    tokens = encoder.grid.volume
    visible = 1 - recipe.masking.ratio if recipe.masking else 1.0
    values = 16.0 * tokens * visible * encoder.dim * encoder.depth
    if isinstance(recipe, PretrainRecipe):
        values += 16.0 * tokens * recipe.model.decoder.dim * recipe.model.decoder.depth
    free = _USABLE_MEMORY * situation.memory_bytes - 16 * parameter_estimate(encoder)
    return max(0, int(free / (values * value_bytes)))


def parameter_estimate(encoder: EncoderConfig) -> int:
    """Return the parameters of an encoder's matrices."""
    block = encoder.dim * (4 * encoder.dim + 2 * encoder.mlp_dim)
    return encoder.depth * block + encoder.patch_values * encoder.dim


def describe_fit(recipe: Recipe, situation: Situation) -> list[str]:
    """Return in a few lines what was decided, for the person who starts the run."""
    encoder, optim = _encoder(recipe, situation), recipe.optim
    videos = plural(situation.num_videos, "video")
    classes = f", {plural(len(situation.classes), 'class', 'classes')}" if recipe.task == "finetune" else ""
    device = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}[situation.device]
    origin = f"from {recipe.init}" if recipe.init else "from random weights"
    half = f", {recipe.masking.ratio:.0%} masked" if recipe.masking else ""
    parts = f" in {optim.accumulate} parts" if optim.accumulate > 1 else ""
    flips = "on" if recipe.data.augment.flip else "off"
    rate = scaled_lr(optim.base_lr, optim.batch_size)
    lines = [
        f"{videos}{classes}, {device}: {parameter_estimate(encoder) / 1e6:.1f} M parameters {origin},",
        f"  {recipe.data.clip.kind} clips of {encoder.frames} frames, {encoder.image_size} pixels{half}, "
        f"batch {optim.batch_size}{parts}, {plural(optim.epochs, 'epoch')},",
        f"  warm-up {optim.warmup_epochs:g}, learning rate {rate:.1e}, flips {flips}",
    ]
    if recipe.task == "finetune" and not recipe.init:
        lines.append("  init=MODEL, a pre-trained one, usually learns far more from few videos")
    return [*lines, f"  about {_duration(_seconds(recipe, encoder, situation))} on this machine"]


def _seconds(recipe: Recipe, encoder: EncoderConfig, situation: Situation) -> float:
    """Return about how long training takes: computing or reading, whichever is slower."""
    visible = 1 - recipe.masking.ratio if recipe.masking else 1.0
    values = encoder.grid.volume * (visible * parameter_estimate(encoder))
    if isinstance(recipe, PretrainRecipe):
        decoder = recipe.model.decoder
        values += encoder.grid.volume * decoder.depth * decoder.dim * (4 * decoder.dim + 2 * decoder.mlp_dim)
    videos = recipe.optim.epochs * situation.num_videos
    computing = (
        3 * values * videos * recipe.data.clips_per_video / (_EFFICIENCY * situation.multiply_adds_per_s)
    )
    return max(computing / situation.processes, videos / situation.reads_per_s)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return "a minute"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.0f} hours"


def _multiply_adds_per_s(config: RuntimeConfig) -> float:
    """Measure matrix products of a transformer's size, as training computes them."""
    side, repeats = 768, 8
    runtime = Runtime(config)  # not entered: it would join the run's process group
    with runtime.autocast(), torch.no_grad():
        left = right = torch.ones(side, side, device=runtime.device)
        fastest = math.inf
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(repeats):
                result = left @ right
            result[0, 0].item()  # waits for a GPU
            fastest = min(fastest, time.perf_counter() - start)
    return repeats * side**3 / fastest


def _reads_per_s(manifest: Manifest, workers: int | None, device: str) -> float:
    """Measure how many clips all workers read per second, with the first videos that can be read."""
    seconds = []
    for sample in manifest.samples[:: max(1, len(manifest) // 3)][:3]:
        start = time.perf_counter()
        with suppress(VideoError):
            read_clip(manifest.locate(sample), SegmentClip(), size=224, start=sample.start, end=sample.end)
            seconds.append(time.perf_counter() - start)
    number = default_workers(device) if workers is None else workers
    return max(1, number) / median(seconds or [1.0])
