"""Multi-view testing: every video once, class probabilities averaged over its views, no video replaced."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tubelet.checkpoints.model_folder import Model
from tubelet.clips import AnyClip, Views
from tubelet.data.dataset import Batch, ViewDataset, label_rows
from tubelet.data.loader import default_workers, view_batches
from tubelet.data.manifest import Manifest, read_manifest
from tubelet.errors import UserError
from tubelet.masking import RunningCellMasking, TokenMask
from tubelet.models.classifier import VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.run.accuracy import Evaluation
from tubelet.run.inference import combined_probabilities, inference, on_device, require_classifier
from tubelet.run.prediction import clip_and_views
from tubelet.train.runtime import Runtime


def evaluate(
    model: Model | str | Path,
    data: str | Path | Manifest,
    *,
    split: str = "test",
    protocol: str | None = None,
    clip: AnyClip | None = None,
    views: Views | None = None,
    masking: RunningCellMasking | None = None,
    complementary: bool = False,
    batch_size: int = 8,
    workers: int | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Test a classifier on a list of videos, each under clips x crops views.

    Under torchrun every process calls it with the same arguments: each tests its share of the videos, and
    all return the whole result.

    Args:
        model: a classifier, or anything that `load_model` reads.
        data: the folder of a data set, with its lists (test.csv, ...) and classes.txt, or a manifest.
        split: the list of that folder to test on.
        protocol: the published test to reproduce, such as "mar_k400" (a key of `PROTOCOLS`): its clips and
            views, of which `clip` and `views` replace parts; None is as the model's card says.
        clip: which frames make a clip; None is what the protocol or the card says.
        views: clips and crops of each video to average over; None is what the protocol or the card says. The
            geometry and scores are also theirs unless they are given.
        masking: classify by the tokens that this leaves visible; None is as the model was trained.
        complementary: average the class scores over masks that together show every token once, as MAR does.
        batch_size: videos at a time in each process.
        workers: decoding processes of each process; None is one for each core, or half as many where the
            model computes on the CPU, too.
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "mps", "cuda" or a certain GPU such as "cuda:1".
            With None a model that is given as an object stays where it is, and one that is read goes to the
            best device.
        precision: "fp32" or "bf16"; None is that of the model's recipe, fp32 if its card has no recipe.
        threads: CPU threads of each process; None is half of its cores.
        progress: called with (finished videos, all videos) of this process.

    Raises:
        UserError: the model is not a classifier or does not fit the classes or the clip, a video has no
            label, no video can be read, there is no such protocol, there are no complementary masks, the
            device or precision is not available, or the model or the manifest cannot be read.
    """
    source = model if isinstance(model, str | Path) else "the model"
    loaded, runtime = on_device(model, device, precision, threads)
    classifier = require_classifier(loaded, source)
    clip, views = clip_and_views(classifier, protocol=protocol, clip=clip, views=views)
    with runtime:
        return evaluate_model(
            classifier,
            data if isinstance(data, Manifest) else read_manifest(data, split),
            clip=clip,
            views=views,
            runtime=runtime,
            masking=masking,
            complementary=complementary,
            batch_size=batch_size,
            workers=workers,
            progress=progress,
        )


def evaluate_model(
    model: VideoClassifier,
    manifest: Manifest,
    *,
    clip: AnyClip,
    views: Views,
    runtime: Runtime,
    masking: RunningCellMasking | None = None,
    complementary: bool = False,
    batch_size: int = 8,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Test a classifier on the runtime's device; the other arguments and errors are those of `evaluate`."""
    manifest.require_labels()
    _check_classes(model, manifest)
    require_frames(clip, model.config.encoder)
    dataset = ViewDataset(manifest, clip, views, size=model.config.encoder.image_size)
    batches = view_batches(
        dataset,
        batch=batch_size,
        rank=runtime.rank,
        world=runtime.world,
        workers=default_workers(runtime.device.type) if workers is None else workers,
        pin=runtime.device.type == "cuda",
    )
    num_mine = len(range(runtime.rank, len(dataset), runtime.world))
    share = _Share()
    for batch in batches:
        share.broken |= batch.failures
        if len(batch):
            started = time.perf_counter()
            share.probabilities.append(_probabilities(model, batch, views, runtime, masking, complementary))
            share.seconds_per_view.append((time.perf_counter() - started) / len(batch))
            share.indices.append(batch.index[:: views.count])
        if progress:
            progress(sum(map(len, share.indices)) + len(share.broken), num_mine)
    return _join(runtime.gather(share), model, manifest)


@dataclass
class _Share:
    """What one process has found: per batch, the videos by number, their probabilities and the time."""

    indices: list[Tensor] = field(default_factory=list)
    probabilities: list[Tensor] = field(default_factory=list)
    seconds_per_view: list[float] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


def _probabilities(
    model: VideoClassifier,
    batch: Batch,
    views: Views,
    runtime: Runtime,
    masking: RunningCellMasking | None,
    complementary: bool,
) -> Tensor:
    """Return the class probabilities (videos, K) of a batch, averaged over the masks and the views."""
    masks = _masks(model, masking, complementary, len(batch), runtime.device)
    with inference(model, runtime):
        video = batch.video.to(runtime.device, non_blocking=True)
        logits = torch.stack([model(video, mask) for mask in masks]).mean(0)
        return combined_probabilities(model, logits, views).cpu()


def _join(shares: Sequence[_Share], model: VideoClassifier, manifest: Manifest) -> Evaluation:
    """Return the result over all processes, in the order of the manifest."""
    broken = {name: reason for share in shares for name, reason in share.broken.items()}
    indices = [index for share in shares for index in share.indices]
    if not indices:
        reason = next(iter(broken.values()))
        raise UserError(f"none of the {len(manifest)} videos can be read; the first: {reason}")
    index = torch.cat(indices)
    order = index.argsort()
    samples = [manifest.samples[i] for i in index[order].tolist()]
    num_classes = model.config.classes if model.card.multi_label else None
    return Evaluation(
        names=[sample.name for sample in samples],
        labels=label_rows([sample.classes for sample in samples], num_classes).numpy(),
        probabilities=torch.cat([part for share in shares for part in share.probabilities])[order].numpy(),
        broken=broken,
        views_per_second=sum(
            1 / max(float(np.median(share.seconds_per_view)), 1e-9) for share in shares if share.indices
        ),
    )


def require_frames(clip: AnyClip, encoder: EncoderConfig, other: str = "") -> None:
    """Raise a UserError if clips have another number of frames than the model takes.

    Args:
        clip: how clips are sampled.
        encoder: the model's encoder.
        other: another setting that can be changed instead, as the end of the message.
    """
    if clip.frames != encoder.frames:
        raise UserError(
            f"data.clip.frames is {clip.frames}, but the model takes {encoder.frames} frames: set "
            f"data.clip.frames={encoder.frames}{other}"
        )


def _check_classes(model: VideoClassifier, manifest: Manifest) -> None:
    listed, trained_on = f"{manifest.root / manifest.split}.csv", model.card.classes
    if len(manifest.classes) != model.config.classes:
        raise UserError(
            f"{listed}: its classes.txt has {len(manifest.classes)} classes, but the model has "
            f"{model.config.classes}: test it on the classes that it was trained on"
        )
    if trained_on and manifest.classes != trained_on:
        raise UserError(
            f"{listed}: the model was trained on other classes: its first are {', '.join(trained_on[:3])}; "
            f"those of classes.txt are {', '.join(manifest.classes[:3])}"
        )
    if manifest.multi_label and not model.card.multi_label:
        raise UserError(
            f"{listed} is multi-label, but the model was trained on one class per video, so that its "
            "probabilities exclude each other: fine-tune it on a multi-label list first"
        )


def _masks(
    model: VideoClassifier,
    masking: RunningCellMasking | None,
    complementary: bool,
    num_clips: int,
    device: torch.device,
) -> Sequence[TokenMask | None]:
    """Return the masks whose scores are averaged; None is the model's own mask."""
    masking = masking or (model.config.masking if complementary else None)
    if not complementary:
        return [masking.fixed(model.grid, num_clips, device) if masking else None]
    if masking is None:
        raise UserError("complementary=true needs a masking: this model classifies by all tokens")
    masks = masking.complements(model.grid, num_clips, device)
    if len(masks) == 1:
        raise UserError(
            f"complementary=true needs a masking, and masking.ratio={masking.ratio:g} masks no token, as it "
            "is rounded down to whole slots: use 0.5 or 0.75"
        )
    return masks
