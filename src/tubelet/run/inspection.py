"""What is in a checkpoint: whose it is, how large, what it costs, and what it lacks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tubelet.checkpoints.load import WEIGHTS, Model, load_model
from tubelet.masking import RunningCellMasking
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.flops import gflops_per_view, parameter_count


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `inspect` finds.

    Attributes:
        source: where it is.
        family: the code base it is from, or tubelet.
        kind: autoencoder, classifier, or encoder (a classifier without its last layer).
        lines: (name, value) pairs for people, in reading order.
        lacks: what the file does not hold, of decoder, classifier and optimizer.
    """

    source: str
    family: str
    kind: str
    lines: tuple[tuple[str, str], ...]
    lacks: tuple[str, ...]

    def __str__(self) -> str:
        rows = (("family", self.family), ("kind", self.kind), *self.lines, ("lacks", ", ".join(self.lacks)))
        return "\n".join(f"{name:12} {value}" for name, value in rows if value)


def inspect(source: Path | str, **given: Any) -> Inspection:
    """Look into any model that `load_model` reads.

    Args:
        source: as there.
        given: as there: heads, decoder_heads, bridge_heads, image_size, frames and norm_eps.

    Raises:
        UserError: as there.
    """
    model = load_model(source, **given)
    family = str(model.card.provenance.get("family", "tubelet"))
    painter = isinstance(model, MaskedAutoencoder)
    kind = "autoencoder" if painter else "classifier" if model.config.classes else "encoder"  # type: ignore[union-attr]
    lacks = [
        *(["decoder"] if model.decoder is None else []),
        *(["classifier"] if kind != "classifier" else []),
        *([] if _has_optimizer(source, model) else ["optimizer"]),
    ]
    return Inspection(
        source=str(source), family=family, kind=kind, lines=tuple(_describe(model)), lacks=tuple(lacks)
    )


def _has_optimizer(source: Path | str, model: Model) -> bool:
    """The state of a run to resume from, or a foreign file's other members."""
    path = Path(source)
    folder = path.parent if path.name == WEIGHTS else path
    if folder.is_dir():
        return (folder / "last.pt").is_file()
    return any("optim" in str(name) for name in model.card.provenance.get("members", ()))


def _describe(model: Model) -> Iterator[tuple[str, str]]:
    encoder, grid = model.config.encoder, model.grid
    yield "clip", f"{encoder.frames} frames of {encoder.image_size} x {encoder.image_size} pixels"
    yield (
        "tokens",
        f"{grid.volume} = {grid.t} x {grid.h} x {grid.w}, each {encoder.tubelet} x {encoder.patch_size} x "
        f"{encoder.patch_size}",
    )
    yield (
        "encoder",
        f"{encoder.depth} blocks, {encoder.dim} wide, {encoder.heads} heads, MLP {encoder.mlp_dim}, "
        f"positions {encoder.positions}" + (", class token" if encoder.class_token else ""),
    )
    yield "pixels", f"mean {_numbers(encoder.mean)}, deviation {_numbers(encoder.std)}"
    decoder = model.config.decoder
    if decoder:
        yield (
            "decoder",
            f"{decoder.depth} blocks, {decoder.dim} wide, {decoder.heads} heads, positions "
            f"{decoder.positions}",
        )
    if not isinstance(model, MaskedAutoencoder):
        config = model.config
        several = ", a video may show several" if model.card.multi_label else ""
        yield "head", f"{config.head.kind}, {config.classes} classes{several}"
        if config.masking:
            yield "masking", f"running cells, {config.masking.ratio:.0%} masked"
    if model.card.classes:
        shown = ", ".join(model.card.classes[:4])
        yield (
            "classes",
            shown + (f" and {len(model.card.classes) - 4} more" if len(model.card.classes) > 4 else ""),
        )
    total = sum(parameter.numel() for parameter in model.parameters())
    used = parameter_count(model)
    also = f" ({used:,} without the decoder)" if used != total else ""
    yield "parameters", f"{total:,}{also}"
    yield "GFLOPs", f"{', '.join(_costs(model))}; one multiply-add is one"
    if model.card.license:
        yield "license", model.card.license


def _costs(model: Model) -> Iterator[str]:
    """A view at MAR's ratios; of an autoencoder, encoding a clip."""
    if isinstance(model, MaskedAutoencoder) or model.grid.h % 2 or model.grid.w % 2:
        yield f"{gflops_per_view(model):.4g} for all tokens of a clip"
        return
    yield f"{gflops_per_view(model, RunningCellMasking(ratio=0.0)):.4g} a view"
    for ratio in (0.25, 0.5, 0.75):
        yield f"{gflops_per_view(model, RunningCellMasking(ratio=ratio)):.4g} with {ratio:.0%} masked"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
