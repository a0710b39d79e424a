"""Multi-view testing: every video once, its views' class probabilities averaged, nothing replaced."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tubelet.checkpoints.load import load_model
from tubelet.clips import AnyClip, Views
from tubelet.data.dataset import ViewDataset, label_rows
from tubelet.data.loader import default_workers, view_batches
from tubelet.data.manifest import Manifest, read_manifest
from tubelet.errors import UserError, plural
from tubelet.files import replacing
from tubelet.masking import RunningCellMasking, TokenMask
from tubelet.models.classifier import VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.recipe.schema import EvaluateRecipe
from tubelet.run.prediction import clip_of, views_of
from tubelet.train.runtime import Runtime


@dataclass(frozen=True)
class Evaluation:
    """The outcome of a test.

    Attributes:
        names: (n) the tested videos, as in the manifest.
        labels: (n,) int64 their true classes; (n, K) bool, true for each class shown, where a video may show
            several.
        probabilities: (n, K) float32, averaged over the views.
        broken: videos that could not be read, with the reason; they are in none of the numbers.
        clips_per_second: views through the network in a second of its own time, over all processes; of the
            median batch, as the first ones still warm up.
    """

    names: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    broken: dict[str, str]
    clips_per_second: float

    @property
    def multi_label(self) -> bool:
        """Whether a video may show several classes."""
        return self.labels.ndim == 2

    def metrics(self) -> dict[str, float]:
        """`top1` and `top5` or, where a video may show several classes, `mAP`; all in [0, 1]."""
        if self.multi_label:
            return {"mAP": self.mean_average_precision()}
        return {"top1": self.top(1), "top5": self.top(5)}

    def mean_average_precision(self) -> float:
        """The mean of `average_precision` over the classes that a tested video shows, in [0, 1].

        Raises:
            ValueError: each video shows one class.
        """
        if not self.multi_label:
            raise ValueError("each video shows one class: ask for top(k)")
        shown = np.flatnonzero(self.labels.any(0))
        each = [average_precision(self.probabilities[:, k], self.labels[:, k]) for k in shown]
        return float(np.mean(each)) if each else 0.0

    def top(self, k: int) -> float:
        """The share of tested videos whose class is among the k most probable, in [0, 1].

        Raises:
            ValueError: a video may show several classes.
        """
        self._require_one()
        if not self.names:
            return 0.0
        best = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return float((best == self.labels[:, None]).any(1).mean())

    def confusion(self) -> np.ndarray:
        """(K, K) int64 counts: true class by row, predicted class by column; raises as `top`."""
        self._require_one()
        classes = self.probabilities.shape[1]
        pairs = self.labels * classes + self.probabilities.argmax(1)
        return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def _require_one(self) -> None:
        if self.multi_label:
            raise ValueError("a video may show several classes: ask for mean_average_precision()")

    def summary(self) -> str:
        """The outcome in a few lines, with the denominators and the videos that are not in it."""
        videos = plural(len(self.names), "video")
        if self.multi_label:
            shown, there = int(self.labels.any(0).sum()), self.labels.shape[1]
            over = f"{there} classes" if shown == there else f"the {shown} of {there} classes that they show"
            outcome = f"mAP {self.mean_average_precision():.2%}  of {videos}, over {over}"
        else:
            outcome = f"top-1 {self.top(1):.2%}  top-5 {self.top(5):.2%}  of {videos}"
        lines = [f"{outcome}  ({self.clips_per_second:.1f} views/s)"]
        if self.broken:
            videos = plural(len(self.broken), "video")
            are = "is" if len(self.broken) == 1 else "are"
            lines.append(f"{videos} could not be read and {are} in none of these numbers:")
            lines.extend(f"  {reason}" for reason in self.broken.values())
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write all of it as a compressed .npz, under exactly this name."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                names=np.array(self.names),
                labels=self.labels,
                probabilities=self.probabilities,
                broken=np.array(list(self.broken.items()), dtype=str).reshape(-1, 2),
                clips_per_second=self.clips_per_second,
            )

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Read what `save` wrote."""
        with np.load(path) as saved:
            return cls(
                names=saved["names"].tolist(),
                labels=saved["labels"],
                probabilities=saved["probabilities"],
                broken=dict(saved["broken"].tolist()),
                clips_per_second=float(saved["clips_per_second"]),
            )


def run_evaluation(
    source: str, recipe: EvaluateRecipe, progress: Callable[[int, int], None] | None = None
) -> Evaluation:
    """Test the model in a folder as an `evaluate` recipe says; every process calls it.

    Raises:
        UserError: as `load_model` and `evaluate`; or the model's classes are not the data set's.
    """
    with Runtime(recipe.runtime) as runtime:
        model = load_model(source)
        if not isinstance(model, VideoClassifier):
            raise UserError(f"{source} is an autoencoder: it names no classes. Fine-tune it first")
        manifest = read_manifest(recipe.data.root, recipe.data.split)
        if model.card.classes and manifest.classes != model.card.classes:
            raise UserError(
                f"{source} was trained on other classes than those of {manifest.root}: its first are "
                f"{', '.join(model.card.classes[:3])}; there they are {', '.join(manifest.classes[:3])}"
            )
        return evaluate(
            model.to(runtime.device),
            manifest,
            clip=recipe.data.clip or clip_of(model),
            views=recipe.views or views_of(model),
            runtime=runtime,
            masking=recipe.masking,
            complementary=recipe.complementary,
            batch=recipe.batch_size,
            workers=recipe.data.workers,
            progress=progress,
        )


def evaluate(
    model: VideoClassifier,
    manifest: Manifest,
    *,
    clip: AnyClip,
    views: Views,
    runtime: Runtime,
    masking: RunningCellMasking | None = None,
    complementary: bool = False,
    batch: int = 8,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Test a classifier; every process calls it and gets the whole outcome.

    Args:
        model: on the runtime's device, in evaluation mode.
        manifest: the videos, all with labels.
        clip: which frames make a clip.
        views: how many clips and crops of each video.
        runtime: processes and device.
        masking: recognise on the tokens that this leaves visible; None is as the model was trained.
        complementary: average the class scores over masks that together show every token once.
        batch: videos at a time in each process.
        workers: decoding processes; None is one for each core, or half as many beside a CPU's network.
        progress: called with (videos done, videos in all) of this process.

    Raises:
        UserError: a video has no label, the labels are not of the model's kind, the clip does not fit the
            model, no video can be read, or there are no complementary masks.
    """
    manifest.require_labels()
    _check_classes(model, manifest)
    require_frames(clip, model.config.encoder)
    dataset = ViewDataset(manifest, clip, views, size=model.config.encoder.image_size)
    loader = view_batches(
        dataset,
        batch=batch,
        rank=runtime.rank,
        world=runtime.world,
        workers=default_workers(runtime.device.type) if workers is None else workers,
        pin=runtime.device.type == "cuda",
    )
    indices, probabilities, broken = [], [], dict[str, str]()
    seconds: list[float] = []  # of the network, batch by batch
    done = 0
    for loaded in loader:
        broken |= loaded.failures
        done += len(loaded) // views.count + len(loaded.failures)
        if len(loaded):
            batch_on_device = loaded.to(runtime.device)
            started = time.perf_counter()
            masks = _masks(model, masking, complementary, len(loaded), runtime.device)
            with torch.no_grad(), runtime.autocast():
                logits = torch.stack([model(batch_on_device.video, mask) for mask in masks]).mean(0)
            scores = model.probabilities(logits).unflatten(0, (-1, views.count)).mean(1).cpu()
            seconds.append((time.perf_counter() - started) / len(loaded))
            probabilities.append(scores)
            indices.append(loaded.index[:: views.count])
        if progress:
            progress(done, len(range(runtime.rank, len(dataset), runtime.world)))

    mine = (torch.cat(indices), torch.cat(probabilities)) if indices else None
    parts = runtime.gather((mine, broken, float(np.median(seconds)) if seconds else float("inf")))
    found = [part for part, _, _ in parts if part is not None]
    broken = {name: reason for _, failures, _ in parts for name, reason in failures.items()}
    if not found:
        raise UserError(
            f"none of the {len(manifest)} videos can be read; the first: {next(iter(broken.values()))}"
        )
    index = torch.cat([part[0] for part in found])
    order = index.argsort()
    samples = [manifest.samples[i] for i in index[order].tolist()]
    return Evaluation(
        names=[sample.path for sample in samples],
        labels=label_rows(
            [s.classes for s in samples], model.config.classes if model.card.multi_label else None
        ).numpy(),
        probabilities=torch.cat([part[1] for part in found])[order].numpy(),
        broken=broken,
        clips_per_second=sum(1 / max(part[2], 1e-9) for part in parts),
    )


def require_frames(clip: AnyClip, encoder: EncoderConfig, other: str = "") -> None:
    """Raise a UserError where clips have other than the model's frames; `other` is what else could be set."""
    if clip.frames != encoder.frames:
        raise UserError(
            f"data.clip.frames is {clip.frames}, but the model takes {encoder.frames} frames: set "
            f"data.clip.frames={encoder.frames}{other}"
        )


def _check_classes(model: VideoClassifier, manifest: Manifest) -> None:
    listed = f"{manifest.root / manifest.split}.csv"
    if len(manifest.classes) != model.config.classes:
        raise UserError(
            f"the model tells {model.config.classes} classes apart, but the videos of {listed} are of "
            f"{len(manifest.classes)}, as its classes.txt says: test it on those that it was trained on"
        )
    if manifest.multi_label and not model.card.multi_label:
        raise UserError(
            f"{listed} has videos of several classes, but the model was trained on one class a video: its "
            "probabilities exclude each other. Fine-tune it on such a list first"
        )


def _masks(
    model: VideoClassifier,
    masking: RunningCellMasking | None,
    complementary: bool,
    clips: int,
    device: torch.device,
) -> Sequence[TokenMask | None]:
    """The masks to average over; None is the model's own."""
    masking = masking or (model.config.masking if complementary else None)
    if complementary:
        if masking is None:
            raise UserError("complementary=true needs a masking: this model looks at all tokens at once")
        masks = masking.complements(model.grid, clips, device)
        if len(masks) == 1:
            raise UserError(
                f"complementary=true needs a masking, and masking.ratio={masking.ratio:g} masks nothing, as "
                "it rounds down to whole slots: give 0.5 or 0.75"
            )
        return masks
    return [masking.fixed(model.grid, clips, device) if masking else None]


def average_precision(scores: np.ndarray, shown: np.ndarray) -> float:
    """The area under a class's steps of precision over recall, one at each distinct score.

    That is the mean, over the videos that show the class, of the precision among all that score at least as
    high. Videos of equal scores count together, so that their order makes no difference (the definition of
    scikit-learn's average_precision_score).

    Args:
        scores: (n,) float, higher where the class is more likely.
        shown: (n,) bool, whether a video shows the class; one at least does.

    Returns:
        A share in [0, 1].
    """
    order = np.argsort(-scores)
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of the videos of each score
    found = shown[order].cumsum()[last]
    return float((np.diff(found, prepend=0) * found / (last + 1)).sum() / found[-1])
