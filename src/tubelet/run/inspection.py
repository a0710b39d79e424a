"""What is in a checkpoint: family, architecture, size, cost, and missing parts."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Unpack

from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import WEIGHTS, Model
from tubelet.checkpoints.read_file import is_finite
from tubelet.errors import first_few
from tubelet.masking import RunningCellMasking, RunningMasking
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.flops import gflops_per_view, parameter_count


@dataclass(frozen=True, kw_only=True, repr=False)
class Inspection:
    """The result of `inspect_checkpoint`.

    Attributes:
        source: the file, folder or name.
        family: the code base that wrote it, or tubelet.
        kind: autoencoder, classifier, or encoder (a classifier without its last layer).
        lines: (name, value) pairs to print, in reading order.
        missing: what the file does not have, of decoder, classifier and optimizer.
    """

    source: str
    family: str
    kind: str
    lines: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        missing = ("missing", ", ".join(self.missing))
        rows = (("family", self.family), ("kind", self.kind), *self.lines, missing)
        return "\n".join(f"{name:12} {value}" for name, value in rows if value)

    __repr__ = __str__


def inspect_checkpoint(
    source: Path | str,
    *,
    weights: str | None = None,
    allow_nonfinite: bool = False,
    **hints: Unpack[ArchitectureHints],
) -> Inspection:
    """Describe any model that `load_model` reads; see there for the arguments.

    Raises:
        UserError: the model cannot be loaded.
    """
    model = load_model(source, weights=weights, allow_nonfinite=allow_nonfinite, **hints)
    if isinstance(model, MaskedAutoencoder):
        kind = "autoencoder"
    else:
        kind = "classifier" if model.config.classes else "encoder"
    missing = [
        *(["decoder"] if model.decoder is None else []),
        *(["classifier"] if kind != "classifier" else []),
        *([] if _has_optimizer(source, model) else ["optimizer"]),
    ]
    return Inspection(
        source=str(source),
        family=str(model.card.provenance.get("family", "tubelet")),
        kind=kind,
        lines=tuple(_describe(model)),
        missing=tuple(missing),
    )


def _has_optimizer(source: Path | str, model: Model) -> bool:
    """It is in the state of a run to resume, or in a foreign file's other members."""
    path = Path(source)
    folder = path.parent if path.name == WEIGHTS else path
    if folder.is_dir():
        return (folder / "last.pt").is_file()
    return any("optim" in str(name) for name in model.card.provenance.get("members", ()))


def _describe(model: Model) -> Iterator[tuple[str, str]]:
    encoder, grid, card = model.config.encoder, model.grid, model.card
    if chosen := card.provenance.get("weights"):
        yield "weights", f"{chosen}; the file has others"
    patch = f"{encoder.patch_size} x {encoder.patch_size}"
    yield "clip", f"{encoder.frames} frames of {encoder.image_size} x {encoder.image_size} pixels"
    if card.clip:
        settings = ", ".join(f"{name}={value}" for name, value in asdict(card.clip).items())
        yield "sampling", settings + (" (assumed, not in the file)" if "clip" in card.provenance else "")
    yield "tokens", f"{grid.volume} = {grid.t} x {grid.h} x {grid.w}, each {encoder.tubelet} x {patch}"
    yield (
        "encoder",
        f"{encoder.depth} blocks, {encoder.dim} wide, {encoder.heads} heads, MLP {encoder.mlp_dim}, "
        f"positions {encoder.positions}" + (", class token" if encoder.class_token else ""),
    )
    yield "pixels", f"mean {_numbers(encoder.mean)}, deviation {_numbers(encoder.std)}"
    if decoder := model.config.decoder:
        yield (
            "decoder",
            f"{decoder.depth} blocks, {decoder.dim} wide, {decoder.heads} heads, positions "
            f"{decoder.positions}",
        )
    if not isinstance(model, MaskedAutoencoder):
        config = model.config
        multi_label = ", multi-label" if card.multi_label else ""
        yield "head", f"{config.head.kind}, {config.classes} classes{multi_label}"
        if masking := config.masking:
            pattern = f" {masking.pattern}" if isinstance(masking, RunningMasking) else ""
            kind = masking.kind.replace("_", " ")
            yield "masking", f"{kind}{pattern}, {masking.ratio:.0%} masked"
    if card.classes:
        yield "classes", first_few(card.classes, 4)
    total = sum(parameter.numel() for parameter in model.parameters())
    used = parameter_count(model)
    also = f" ({used:,} without the decoder)" if used != total else ""
    yield "parameters", f"{total:,}{also}"
    diverged = [tensor for tensor in model.state_dict().values() if not is_finite(tensor)]
    if bad := sum(int((~tensor.isfinite()).sum()) for tensor in diverged):
        yield "not finite", f"{bad:,} numbers are NaN or infinite"
    yield "GFLOPs", f"{', '.join(_costs(model))}; one multiply-add counts as one"
    if card.license:
        yield "license", card.license


def _costs(model: Model) -> Iterator[str]:
    """Those of a view at MAR's ratios; for an autoencoder, of encoding a clip."""
    if isinstance(model, MaskedAutoencoder) or model.grid.h % 2 or model.grid.w % 2:
        yield f"{gflops_per_view(model):.4g} for all tokens of a clip"
        return
    yield f"{gflops_per_view(model, RunningCellMasking(ratio=0.0)):.4g} a view"
    for ratio in (0.25, 0.5, 0.75):
        yield f"{gflops_per_view(model, RunningCellMasking(ratio=ratio)):.4g} with {ratio:.0%} masked"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
