"""Multi-view testing: every video once, class probabilities averaged over its views, no video replaced."""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.checkpoints.model_folder import Model
from tubelet.clips import AnyClip, Views
from tubelet.data.dataset import Batch, ViewDataset, label_rows
from tubelet.data.loader import default_workers
from tubelet.data.manifest import Manifest, Sample, read_manifest
from tubelet.data.workers import LONG_WAIT
from tubelet.errors import UserError, plural, require_at_least, require_between
from tubelet.machine import MAX_PROCESSES, cores_per_process, version
from tubelet.masking import ClassifierMasking, RunningCellMasking, TokenMask
from tubelet.models.classifier import VideoClassifier
from tubelet.recipe.schema import EvaluateRecipe
from tubelet.results.accuracy import Evaluation
from tubelet.results.stored import CollectedResults, Results, stored_labels, stored_results, weights_digest
from tubelet.run.inference import (
    combined_probabilities,
    inference,
    on_device,
    require_classifier,
)
from tubelet.run.prediction import clip_and_views, precision_of_test
from tubelet.run.shares import Share, broken_videos, compute_share
from tubelet.run.tested_videos import check_classes, require_frames, seconds_of
from tubelet.settings import to_plain
from tubelet.train.runtime import Runtime, choose_device


def evaluate(
    model: Model | str | Path,
    data: str | Path | Manifest,
    *,
    split: str = "test",
    protocol: str | None = None,
    clip: AnyClip | None = None,
    views: Views | None = None,
    masking: ClassifierMasking | None = None,
    complementary: bool = False,
    batch_size: int = 8,
    workers: int | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    threads: int | None = None,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Test a classifier on a list of videos, each under clips x crops views.

    With `out`, finished videos are kept there: after an interruption the same call tests only the others, on
    any number of processes. A video that has changed is tested again, and another model or other settings are
    another test. Videos that could not be read are tried again.

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
        precision: "fp32", "bf16" or "fp16"; None is that of the protocol, else that of the model's recipe,
            fp32 if its card has no recipe.
        threads: CPU threads of each process; None is one for each core.
        out: folder for the results of finished videos; None keeps them in memory.
        progress: called with (finished videos, all videos) of this process in this call.

    Raises:
        UserError: an argument is out of range, the model is not a classifier or does not fit the classes or
            the clip, a video has no label, no video can be read, there is no such protocol, there are no
            complementary masks, the device or precision is not available, the model or the manifest cannot be
            read, the model's probabilities are not finite, or the same test is running with this `out`.
        OSError: `out` cannot be written.
    """
    require_at_least(1, batch_size=batch_size)
    require_between(0, MAX_PROCESSES, workers=workers)
    source = model if isinstance(model, str | Path) else "the model"
    loaded, runtime = on_device(model, device, precision_of_test(precision, protocol), threads)
    classifier = require_classifier(loaded, source)
    clip, views = clip_and_views(classifier, protocol=protocol, clip=clip, views=views)
    with runtime:
        return evaluate_model(
            classifier,
            data if isinstance(data, Manifest) else read_manifest(data, split),
            EvaluationConfig(clip=clip, views=views, masking=masking, complementary=complementary),
            runtime,
            batch_size=batch_size,
            workers=workers,
            out=out,
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What the probabilities of a video depend on besides the model and the precision; see `evaluate`."""

    clip: AnyClip
    views: Views
    masking: ClassifierMasking | None = None
    complementary: bool = False


def evaluate_model(
    model: VideoClassifier,
    manifest: Manifest,
    config: EvaluationConfig,
    runtime: Runtime,
    *,
    batch_size: int = 8,
    workers: int | None = None,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Test a classifier on the runtime's device; the other arguments and errors are those of `evaluate`."""
    manifest.require_labels()
    check_classes(model, manifest)
    require_frames(config.clip, model.config.encoder)
    dataset = ViewDataset(manifest, config.clip, config.views, size=model.config.encoder.image_size)
    if out is None:
        kept: AbstractContextManager[Results] = nullcontext(
            CollectedResults(len(manifest), model.config.classes)
        )
    else:
        asked = _asked(model, config, runtime)
        kept = stored_results(Path(out), asked, manifest, model.config.classes, runtime)
    with kept as results:
        share = compute_share(
            dataset,
            results,
            lambda batch: _probabilities(model, batch, config, runtime),
            runtime,
            batch_size=batch_size,
            workers=workers,
            progress=progress,
        )
        result = _join(results, runtime.gather(share), model, manifest, runtime)
    return replace(result, facts=_facts(config, runtime))


def _facts(config: EvaluationConfig, runtime: Runtime) -> dict[str, str]:
    """Return how a test was made, for people."""
    facts = {
        name: ", ".join(f"{key} {value}" for key, value in to_plain(part).items() if value is not None)
        for name, part in (("frames", config.clip), ("views", config.views), ("masking", config.masking))
        if part is not None
    }
    precision = str(runtime.dtype).removeprefix("torch.")
    return facts | {"computed": f"in {precision} on {runtime.device.type}, by Tubelet {version()}"}


def _asked(model: VideoClassifier, config: EvaluationConfig, runtime: Runtime) -> dict[str, Any]:
    """Return what the probabilities of a video depend on, as plain data."""
    return {
        "tubelet": version(),
        "weights": weights_digest(model),
        "model": to_plain(model.config),
        "card": to_plain(replace(model.card, provenance={})),
        "precision": str(runtime.dtype),
        **to_plain(config),
    }


def _probabilities(
    model: VideoClassifier, batch: Batch, config: EvaluationConfig, runtime: Runtime
) -> Tensor:
    """Return the class probabilities (videos, K) of a batch, averaged over the masks and the views."""
    masks = _masks(model, config, batch.seed.to(runtime.device))
    with inference(model, runtime):
        video = batch.video.to(runtime.device, non_blocking=True)
        logits = torch.stack([model(video, mask) for mask in masks]).mean(0)
        return combined_probabilities(model, logits, config.views).cpu()


def _join(
    results: Results, shares: Sequence[Share], model: VideoClassifier, manifest: Manifest, runtime: Runtime
) -> Evaluation:
    """Return the result over all processes, in the order of the manifest."""
    broken = broken_videos(shares, manifest)
    index, probabilities = results.join(runtime)
    if not len(index):
        reason = next(iter(broken.values()))
        raise UserError(f"none of the {plural(len(manifest), 'video')} can be read; the first: {reason}")
    samples = [manifest.samples[i] for i in index.tolist()]
    num_classes = model.config.classes if model.card.multi_label else None
    elapsed_s = sum(share.elapsed_s for share in shares)
    return Evaluation(
        names=[sample.name for sample in samples],
        labels=_labels(samples, num_classes, results.folder),
        probabilities=probabilities,
        broken=broken,
        views_per_second=sum(
            1 / max(float(np.median(share.seconds_per_view)), 1e-9)
            for share in shares
            if share.seconds_per_view
        ),
        data_wait=sum(share.waited_s for share in shares) / elapsed_s if elapsed_s else math.nan,
        reused=int(results.done.sum()),
        classes=manifest.classes,
        seconds=np.array([seconds_of(sample) for sample in samples], np.float32),
        list_file=os.path.abspath(manifest.root / f"{manifest.split}.csv"),  # noqa: PTH100  (links stay)
    )


def data_wait_advice(result: Evaluation, recipe: EvaluateRecipe) -> str:
    """Return what to change if a test waited long for data, else the empty text."""
    if not result.data_wait >= LONG_WAIT:
        return ""
    cores, workers = cores_per_process(), recipe.data.workers
    if workers is None:
        workers = default_workers(choose_device(recipe.runtime.device).type)
    more = f"set data.workers={cores} (it was {workers}), or " if workers < cores else ""
    return f"to wait less for data, {more}test on the small copies that `tubelet prepare ... --encode` writes"


def _labels(samples: Sequence[Sample], num_classes: int | None, folder: Path | None) -> np.ndarray:
    classes = [sample.classes for sample in samples]
    if num_classes is None or folder is None:
        return label_rows(classes, num_classes).numpy()
    return stored_labels(classes, num_classes, folder)


def run_test(
    recipe: EvaluateRecipe,
    model: VideoClassifier,
    manifest: Manifest,
    *,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Test a classifier as a recipe says on a list of videos; the other arguments are those of `evaluate`."""
    clip, views = clip_and_views(model, protocol=recipe.protocol, clip=recipe.data.clip)
    return evaluate(
        model,
        manifest,
        clip=clip,
        views=recipe.views.over(views),
        masking=recipe.masking,
        complementary=recipe.complementary,
        batch_size=recipe.batch_size,
        workers=recipe.data.workers,
        device=recipe.runtime.device,
        precision=precision_of_test(recipe.runtime.precision, recipe.protocol),
        threads=recipe.runtime.threads,
        out=out,
        progress=progress,
    )


def _masks(model: VideoClassifier, config: EvaluationConfig, seeds: Tensor) -> Sequence[TokenMask | None]:
    """Return the masks whose scores are averaged, for the seeds of the clips; None is all tokens."""
    masking = config.masking or model.config.masking
    if not config.complementary:
        return [masking.test_masks(model.grid, seeds) if masking else None]
    if not isinstance(masking, RunningCellMasking):
        found = f"{masking.kind} masking" if masking else "no masking, so it classifies by all tokens"
        raise UserError(f"complementary=true needs a masking of kind running_cell, found {found}")
    masks = masking.complements(model.grid, len(seeds), seeds.device)
    if len(masks) == 1:
        raise UserError(
            f"complementary=true needs a masking, and masking.ratio={masking.ratio:g} masks no token, as it "
            "is rounded down to whole slots: use 0.5 or 0.75"
        )
    return masks
