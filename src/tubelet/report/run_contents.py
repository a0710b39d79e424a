"""What the page of a training run shows, from the files of the run and, if they are at hand, its videos."""

import logging
from collections.abc import Iterator
from dataclasses import fields
from statistics import fmean

import numpy as np
from torch import Tensor

from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model
from tubelet.data.dataset import read_clip
from tubelet.data.manifest import Manifest, read_manifest
from tubelet.data.workers import LONG_WAIT
from tubelet.errors import UserError, plural
from tubelet.masking import TokenMask
from tubelet.progress import in_minutes
from tubelet.recipe.schema import FinetuneRecipe
from tubelet.report.contents import Chart, Curve, Picture, percent, rounded
from tubelet.report.run_page import RunPage
from tubelet.run.prediction import clip_of
from tubelet.run.run_record import RunRecord
from tubelet.run.visualize import draw_mask, reconstruction
from tubelet.video.reader import VideoError

_MAX_POINTS = 400  # of a curve; of more, the means of equal parts are drawn
_MAX_LISTED = 100  # videos that could not be read
_NUM_PICTURES = 3
_MAX_TRIED = 10  # videos for them
_FEW = 9  # readings, of which no spread is shown
_MEASURED = {
    "clips_per_s",
    "data_wait",
    "lr",
    "grad_norm",
    "memory_gb",
    "loss_scale",
    "epoch",
    "step",
    "time",
}
_SCORES = {"top1": "top-1", "top5": "top-5", "mAP": "mAP", "accuracy": "accuracy"}
_log = logging.getLogger("tubelet")


def run_contents(run: RunRecord) -> RunPage:
    """Return what the page of a run shows."""
    model, manifest = _model(run), _training_list(run)
    wait = _mean(run, "data_wait")
    return RunPage(
        title=run.folder.resolve().name,
        lead=_lead(run, manifest),
        caution=_caution(run),
        key_figures=list(_key_figures(run, wait)),
        charts=list(_charts(run)),
        pictures=list(_pictures(model, manifest)) if model and manifest else [],
        data=list(_data(run, manifest)),
        broken=list(run.failures.values())[:_MAX_LISTED],
        num_broken=len(run.failures),
        speed=list(_speed(run, wait)),
        advice=_advice(run, wait),
        recipe=run.recipe_text,
        facts=list(_facts(run, model)),
    )


def _model(run: RunRecord) -> Model | None:
    """Return the run's last model, if it has saved one."""
    try:
        return load_model(run.folder)
    except UserError as error:
        _log.warning("the page has no pictures: %s", error)
        return None


def _training_list(run: RunRecord) -> Manifest | None:
    try:
        return read_manifest(run.recipe.data.root, run.recipe.data.train)
    except UserError as error:
        _log.warning("the page has no pictures and no number of videos: %s", error)
        return None


def _lead(run: RunRecord, manifest: Manifest | None) -> str:
    recipe = run.recipe
    verb = "Fine-tuning" if isinstance(recipe, FinetuneRecipe) else "Pre-training"
    videos = f"{plural(len(manifest), 'video')} of " if manifest else ""
    start = f", from {recipe.init}" if recipe.init else ""
    return f"{verb} on {videos}{recipe.data.root}{start}: {plural(recipe.optim.epochs, 'epoch')}."


def _caution(run: RunRecord) -> str:
    if not run.lines:
        return "The run has not logged anything yet."
    if run.is_finished:
        return ""
    return (
        f"The run is not finished: {rounded(run.epoch)} of {plural(run.recipe.optim.epochs, 'epoch')} are "
        "logged. Its command, repeated, resumes it."
    )


def _key_figures(run: RunRecord, wait: float | None) -> Iterator[tuple[str, str, str]]:
    for name in ("val/top1", "val/mAP"):
        if scores := run.values(name):
            yield percent(max(score for _, score in scores)), "%", f"best {_curve_name(name)}"
    if losses := run.values("loss"):
        yield rounded(losses[-1][1]), "", "loss of the last logged steps"
    if speed := _mean(run, "clips_per_s"):
        yield rounded(speed), "", "clips per second"
    if wait is not None:
        yield percent(wait), "%", "of the time waiting for data"


def _curve_name(name: str) -> str:
    """Return a logged name for people: `val/top1` is `validation top-1`."""
    part, _, rest = name.rpartition("/")
    return f"validation {_SCORES.get(rest, rest)}" if part == "val" else _SCORES.get(name, name)


def _charts(run: RunRecord) -> Iterator[Chart]:
    names = run.names()
    scores = [name for name in names if name.removeprefix("val/") in _SCORES]
    losses = [name for name in names if name not in _MEASURED and name not in scores]
    for title, y_label, shown, factor in (
        ("Loss", "loss", losses, 1.0),
        ("Accuracy", "percent", scores, 100.0),
        ("Learning rate", "peak rate of all parameters", ["lr"], 1.0),
        ("Gradient", "norm", ["grad_norm"], 1.0),
        ("Throughput", "clips per second", ["clips_per_s"], 1.0),
        ("Waiting for data", "percent of the time", ["data_wait"], 100.0),
    ):
        curves = [curve for name in shown if (curve := _curve(run, name, factor))]
        if curves:
            yield Chart(title, "epoch", y_label, curves)


def _curve(run: RunRecord, name: str, factor: float) -> Curve | None:
    values = np.array(run.values(name))
    if not len(values):
        return None
    parts = np.array_split(values, min(len(values), _MAX_POINTS))
    points = np.array([part.mean(0) for part in parts])
    return Curve(_curve_name(name), points[:, 0].tolist(), (factor * points[:, 1]).tolist())


def _pictures(model: Model, manifest: Manifest) -> Iterator[Picture]:
    """Yield reconstructions of a few training videos, if the model reconstructs and they can be read."""
    if model.decoder is None:
        return
    samples = manifest.samples
    every, found = max(1, len(samples) // _MAX_TRIED), 0
    for sample in samples[::every][:_MAX_TRIED]:
        try:
            clip = read_clip(
                manifest.locate(sample), clip_of(model), size=model.config.encoder.image_size,
                start=sample.start, end=sample.end,
            )  # fmt: skip
        except VideoError:
            continue
        yield reconstruction_picture(sample.name, model, clip, draw_mask(model, seed=found), precision="fp32")
        found += 1
        if found == _NUM_PICTURES:
            return


def reconstruction_picture(
    name: str, model: Model, clip: Tensor, mask: TokenMask, *, precision: str | None = None
) -> Picture:
    """Return a clip of this name, masked and reconstructed; the arguments are those of `reconstruction`."""
    masked = mask.masked.shape[1] / model.grid.volume
    animation = reconstruction(model, clip, mask, precision=precision)
    return Picture(f"{name}, {masked:.0%} masked", animation.to_bytes("webp"), "image/webp")


def _data(run: RunRecord, manifest: Manifest | None) -> Iterator[tuple[str, str]]:
    data, optim = run.recipe.data, run.recipe.optim
    clips = data.repeats * data.augmented_copies
    yield "training list", str(data.root / f"{data.train}.csv")
    for source in data.more_roots:
        yield "and", str(source.root / f"{data.train}.csv")
    if manifest:
        yield "videos in it" if not data.more_roots else "videos in the first", f"{len(manifest):,}"
        if manifest.classes:
            yield "classes", f"{len(manifest.classes):,}"
    if isinstance(run.recipe, FinetuneRecipe):
        yield "validation list", str(data.root / f"{run.recipe.data.val}.csv")
    yield "epochs", f"{rounded(run.epoch)} of {optim.epochs:,}"
    yield "steps", f"{run.step:,} of {plural(optim.batch_size, 'video')}"
    each = f", {clips} of each video" if clips > 1 else ""
    yield "clips trained on", f"{run.step * optim.batch_size * clips:,}{each}"
    yield "videos that could not be read", f"{len(run.failures):,}"


def _mean(run: RunRecord, name: str) -> float | None:
    values = [value for _, value in run.values(name)]
    return fmean(values) if values else None


def _speed(run: RunRecord, wait: float | None) -> Iterator[tuple[str, str]]:
    if speeds := [value for _, value in run.values("clips_per_s")]:
        low, middle, high = np.percentile(speeds, (5, 50, 95)).tolist()
        spread = f"; 90 % between {rounded(low)} and {rounded(high)}" if len(speeds) > _FEW else ""
        yield "clips per second", f"{rounded(middle)} (median{spread})"
    if wait is not None:
        yield "time waiting for data", f"{percent(wait)} %"
    if memory := [value for _, value in run.values("memory_gb")]:
        yield "most memory", f"{rounded(max(memory))} GB"


def _advice(run: RunRecord, wait: float | None) -> str:
    if wait is None or wait < LONG_WAIT:
        return ""
    copies = run.recipe.data.repeats
    more = "" if copies > 1 else ", or take more clips of each decoded video (data.repeats)"
    return (
        "Training waited for data. Raise data.workers if there are idle cores, train on the small copies "
        f"that tubelet prepare --encode writes{more}."
    )


def _facts(run: RunRecord, model: Model | None) -> Iterator[tuple[str, str]]:
    if run.times:
        first, last = run.times
        yield "first logged", f"{first:%Y-%m-%d %H:%M} UTC"
        yield "last logged", f"{last:%Y-%m-%d %H:%M} UTC"
        yield "between them", in_minutes((last - first).total_seconds())
    yield "folder", str(run.folder.resolve())
    yield "seed", str(run.recipe.seed)
    if model:
        encoder = model.config.encoder
        size = f"{encoder.frames} frames of {encoder.image_size} x {encoder.image_size} pixels"
        yield "clips", size
        yield "encoder", f"{encoder.depth} blocks, {encoder.dim} wide, {encoder.heads} heads"
        yield "parameters", f"{sum(p.numel() for p in model.parameters()):,}"
        for name in ("tubelet", "torch"):
            if version := model.card.provenance.get(name):
                yield name, str(version)
    runtime = run.recipe.runtime
    yield "runtime", ", ".join(f"{f.name} {getattr(runtime, f.name)}" for f in fields(runtime))
