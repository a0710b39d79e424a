"""A model that computes without training: on its device, in its precision, in evaluation mode."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model
from tubelet.clips import Views
from tubelet.data.dataset import Batch
from tubelet.errors import UserError
from tubelet.models.classifier import VideoClassifier
from tubelet.train.runtime import Runtime, RuntimeConfig, choose_device

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def on_device(
    model: Model | str | Path,
    device: str | torch.device | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> tuple[Model, Runtime]:
    """Return the model on its device, and the runtime with that device and the precision to compute in.

    Args:
        model: a model, or anything that `load_model` reads.
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "mps", "cuda" or a certain GPU such as "cuda:1".
            With None a model that is given as an object stays where it is, and one that is read goes to the
            best device.
        precision: "fp32", "bf16" or "fp16". With None or "auto" it is the precision of the model's recipe
            where its card has one (bf16 only on devices that have it in hardware, fp16 only on GPUs), else
            fp32.
        threads: as in `RuntimeConfig`.

    Raises:
        UserError: as `load_model`; or the device or precision is not available.
    """
    if precision not in (None, *get_args(Precision)):
        raise UserError(f"precision must be fp32, bf16 or fp16, found {precision}")
    if device is None and not isinstance(model, str | Path):
        chosen = next(model.parameters()).device
    else:
        chosen = choose_device(device or "auto")
    loaded = load_model(model) if isinstance(model, str | Path) else model
    given = cast(Precision, precision or "auto")
    config = RuntimeConfig(
        precision=_recipe_precision(loaded, chosen) if given == "auto" else given, threads=threads
    )
    return loaded.to(chosen), Runtime(config, chosen)


def _recipe_precision(model: Model, device: torch.device) -> Precision:
    """Return fp32 unless the model was trained in half precision and the device has it."""
    settings: object = model.card.provenance
    for name in ("recipe", "runtime"):
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    trained_in = settings.get("precision") if isinstance(settings, Mapping) else None
    if trained_in == "fp16" and device.type == "cuda":
        return "fp16"
    return "auto" if trained_in in ("auto", "bf16") else "fp32"


@contextmanager
def inference(model: Model, runtime: Runtime) -> Iterator[None]:
    """Compute in evaluation mode, without gradients and in the runtime's precision.

    Afterwards each module is in the mode that it was in before.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), runtime.autocast():
            yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class Scored:
    """What the model computed of the videos of a batch.

    Attributes:
        names: of the N videos that could be read.
        index: (N,) int64, their numbers.
        values: (N, K) float32, on the CPU: class probabilities or features.
        failures: the reason by name, for videos that could not be read.
        num_views: views of these videos.
        seconds: that the model took for them.
    """

    names: list[str]
    index: Tensor
    values: Tensor
    failures: dict[str, str]
    num_views: int
    seconds: float


def scored_batches(
    batches: Iterable[Batch],
    compute: Callable[[Batch], Tensor],
    num_views: int,
    what: str = "probabilities",
) -> Iterator[Scored]:
    """Yield what the model computes of each batch's videos as the batches come.

    Args:
        batches: all views of some videos each.
        compute: returns the values of a batch's videos, (videos, K) on the CPU.
        num_views: rows of a batch for each video.
        what: the values are, for messages.

    Raises:
        UserError: the values of a video are not finite.
    """
    for batch in batches:
        started = time.perf_counter()
        found = compute(batch) if len(batch) else torch.empty(0, 0)
        seconds = time.perf_counter() - started
        names = batch.names[::num_views]
        require_finite(found, names, what)
        yield Scored(names, batch.index[::num_views].cpu(), found, batch.failures, len(batch), seconds)


def require_finite(values: Tensor, names: Sequence[str], what: str = "probabilities") -> None:
    """Raise a UserError that names the first video whose values (videos, K) are not finite."""
    finite = values.isfinite().all(1).tolist()
    if not all(finite):
        raise UserError(
            f"{names[finite.index(False)]}: the model's {what} of this video are not finite: its "
            "weights are NaN or infinite, or too large for the precision. Check the checkpoint, and try "
            "precision=fp32"
        )


def combined_probabilities(model: VideoClassifier, logits: Tensor, views: Views) -> Tensor:
    """Return the class probabilities (videos, K) of videos from the logits of all views (videos * V, K)."""
    if views.scores == "mean_logit":
        return model.probabilities(logits.float().unflatten(0, (-1, views.count)).mean(1))
    probabilities = model.probabilities(logits).unflatten(0, (-1, views.count))
    return probabilities.amax(1) if views.scores == "max_probability" else probabilities.mean(1)


def require_classifier(model: Model, source: object = "the model") -> VideoClassifier:
    """Return the model; raise a UserError if it does not classify."""
    if not isinstance(model, VideoClassifier):
        raise UserError(
            f"{source} is an autoencoder, which has no classes: fine-tune it first (tubelet finetune)"
        )
    if not model.config.classes:
        raise UserError(f"{source} is an encoder without a classifier: fine-tune it first (tubelet finetune)")
    return model
