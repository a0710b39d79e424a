"""Load any model: a Tubelet folder, any family's checkpoint, or a published one by its name."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from tubelet.checkpoints.catalogue import PublishedCheckpoint, catalogue
from tubelet.checkpoints.download import fetch_published
from tubelet.checkpoints.families.family import SSV2_CLASSES
from tubelet.checkpoints.hints import ArchitectureHints, given_hints
from tubelet.checkpoints.hub import HUB_WEIGHTS, fetch_hub
from tubelet.checkpoints.model_folder import (
    BAD_SIZE_ERRORS,
    CONFIG,
    Config,
    Model,
    build_empty,
    fill,
    is_model_folder,
    read_model,
)
from tubelet.checkpoints.other_files import models_below
from tubelet.checkpoints.weight_sets import read_checkpoint
from tubelet.errors import UserError, did_you_mean
from tubelet.models.autoencoder import AutoencoderConfig
from tubelet.models.classifier import VideoClassifier
from tubelet.models.heads import LinearHeadConfig
from tubelet.models.resize import resize_model
from tubelet.progress import Bar

_HINTS_A_FOLDER_RECORDS = ("heads", "decoder_heads", "bridge_heads", "norm_eps")
_MODELS_SHOWN = 4
_log = logging.getLogger("tubelet")


def load_model(
    source: Path | str,
    *,
    weights: str | None = None,
    allow_nonfinite: bool = False,
    **hints: Unpack[ArchitectureHints],
) -> Model:
    """Load any model, in evaluation mode on the CPU; the family is detected from the tensor names.

    Foreign files do not record how clips are sampled. The card then has what the published recipes do: every
    fourth frame, or frames spread over the video for a classifier of 174 classes, which is taken for one of
    Something-Something V2. The card's provenance says that this is assumed.

    Args:
        source: a Tubelet folder, such as a finished run; a checkpoint file of VideoMAE, VideoMAE V2, MAE-ST,
            MAR or mmaction2; a Hugging Face folder or hub id (`owner/name`); or a name of `tubelet zoo`,
            which is downloaded once.
        heads: attention heads of the encoder, if the file does not record them and no published model has
            its width.
        decoder_heads: attention heads of the decoder, in the same case.
        bridge_heads: attention heads of MAR's bridging classifier, in the same case.
        image_size: side, in pixels, of the frames that the model was trained on, if the file does not record
            it (default 224). If it records another, the positions are resized, and a log line says so.
        frames: frames of the clips that it was trained on, in the same way (default 16).
        norm_eps: epsilon of all LayerNorms, which only Hugging Face and Tubelet record (default 1e-6).
        weights: which weights of a file with more than one set of them: `ema` for their average over
            training, or the name of the set in the file, such as `teacher`. The default is what the file's
            own code base loads, and a log line says which it is.
        allow_nonfinite: whether weights may be NaN or infinite, to examine a model that diverged.

    Raises:
        UserError: the source is missing, damaged, unsafe or not of a known family, weights are missing, left
            over or not finite, or the file does not record a setting that must be given.
    """
    hints = given_hints(hints)
    path, published = resolve_source(source)
    if is_model_folder(path):
        given = [name for name in _HINTS_A_FOLDER_RECORDS if name in hints]
        given += ["weights"] * (weights is not None)
        if given:
            raise UserError(f"{path} records {', '.join(given)}: leave out {', '.join(given)}")
        model = read_model(path, allow_nonfinite=allow_nonfinite)
    elif published is None:
        model = _load_foreign(path, hints, weights, allow_nonfinite)
        if isinstance(model, VideoClassifier) and model.config.classes == SSV2_CLASSES:
            _log.warning(
                "%s does not record how clips are sampled: its %d classes are taken for those of "
                "Something-Something V2, with frames spread over the video",
                source,
                SSV2_CLASSES,
            )
    else:
        model = load_published(published, path, hints, weights, allow_nonfinite=allow_nonfinite)
    return _resized(model, hints, source).eval()


def resolve_source(source: Path | str) -> tuple[Path, PublishedCheckpoint | None]:
    """Return the file or folder, downloaded if necessary, and its row of the catalogue if it has one.

    Raises:
        UserError: there is no such path, published name or hub repository, or it cannot be downloaded.
    """
    path, name = Path(source), str(source)
    is_whole_model = path.name in (CONFIG, *HUB_WEIGHTS, *(f"{name}.index.json" for name in HUB_WEIGHTS))
    if path.is_file() and is_whole_model and (path.parent / CONFIG).is_file():
        return path.parent, None
    if path.exists():
        return path, None
    if published := catalogue().get(name):
        return download_published(published), published
    if _is_hub_id(name) and not _is_below_a_folder(path):
        try:
            return fetch_hub(name), next((row for row in catalogue().values() if row.source == name), None)
        except UserError as error:
            raise UserError(f"there is no folder {source} here, and {error}") from error
    if _is_below_a_folder(path):
        raise UserError(f"no model at {source}: there is no such file or folder{_nearest_model(path)}")
    raise UserError(
        f"no model at {source}: there is no such file or folder, and `tubelet zoo` has no such name"
        + did_you_mean(name, catalogue())
    )


def download_published(published: PublishedCheckpoint) -> Path:
    """Return the file or folder of a published checkpoint, downloaded with a progress bar if necessary.

    Raises:
        UserError: it cannot be downloaded.
    """
    with Bar(f"downloading {published.name}, megabytes") as bar:
        return fetch_published(
            published, progress=lambda done, total: bar.show(done // 10**6, total // 10**6)
        )


def _is_below_a_folder(path: Path) -> bool:
    """Whether a path that does not exist begins with a folder that does, or is where runs are by default."""
    return len(path.parts) > 1 and (Path(path.parts[0]).is_dir() or path.parts[0] == "runs")


def _nearest_model(path: Path) -> str:
    """Return a hint at the model with the nearest path, for a path that does not exist."""
    above = next((folder for folder in path.parents if folder.is_dir()), None)
    if above is None or above == Path() or not (models := models_below(above)):
        return f", and no models in {above}" if above and above != Path() else ""
    near = did_you_mean(str(path), map(str, models))
    return near or f"; there are: {', '.join(map(str, models[:_MODELS_SHOWN]))}"


def _is_hub_id(source: str) -> bool:
    """Whether it is `owner/name`, not a missing file."""
    is_file = source.endswith((".pth", ".pt", ".pyth", ".bin", ".ckpt", ".safetensors"))
    return source.count("/") == 1 and not source.startswith((".", "/", "~")) and not is_file


def load_published(
    published: PublishedCheckpoint,
    path: Path,
    hints: ArchitectureHints | None = None,
    weights: str | None = None,
    *,
    allow_nonfinite: bool = False,
) -> Model:
    """Load a published checkpoint from its file or folder, at the size that it was trained at.

    Raises:
        UserError: as `load_model`.
    """
    given: ArchitectureHints = {**published.hints, **(hints or {}), "image_size": None, "frames": None}
    for name, value in published.hints.items():
        text = "%s is loaded with %s=%s, which its file does not record or records wrongly"
        _log.warning(text, published.name, name, value)
    model = _load_foreign(path, given, weights, allow_nonfinite)
    provenance = {**model.card.provenance, "name": published.name}
    metrics = {"top1": published.top1, "top5": published.top5}
    if known := {name: value / 100 for name, value in metrics.items() if value is not None}:
        how = f"by its authors, {published.protocol}" if published.protocol else "by its authors"
        provenance["results"] = [{"data": published.data, "metrics": known, "how": how}]
    model.card = replace(model.card, license=published.license, provenance=provenance)
    return model


def _load_foreign(path: Path, hints: ArchitectureHints, weights: str | None, allow_nonfinite: bool) -> Model:
    try:
        family, file = read_checkpoint(path, weights, allow_nonfinite=allow_nonfinite)
        config = family.read_config(file, hints)
        if (eps := hints.get("norm_eps")) is not None:
            config = _with_eps(config, eps)
        model = build_empty(config, file.weights, file.source)
        fill(model, family.table(config, file), file.weights, file.source)
        card = family.read_card(file, config)
    except UserError as error:
        # Errors about a setting's range do not name the file.
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None
    except BAD_SIZE_ERRORS as error:
        raise UserError(f"{path}: its sizes do not fit each other: {error}") from None
    provenance = {
        "family": family.name,
        "file": path.name,
        "members": sorted(file.others),
        "clip": "assumed: as in the published recipes",
    }
    if "weights" in file.others:
        provenance["weights"] = file.others["weights"]
    model.card = replace(card, provenance=provenance)
    return model


def _with_eps(config: Config, eps: float) -> Config:
    encoder = replace(config.encoder, norm_eps=eps)
    if isinstance(config, AutoencoderConfig):
        decoder = replace(config.decoder, norm_eps=eps, final_norm_eps=eps)
        return replace(config, encoder=encoder, decoder=decoder)
    head = replace(config.head, norm_eps=eps) if isinstance(config.head, LinearHeadConfig) else config.head
    reconstruction = config.decoder and replace(config.decoder, norm_eps=eps, final_norm_eps=eps)
    return replace(config, encoder=encoder, decoder=reconstruction, head=head)


def _resized(model: Model, hints: ArchitectureHints, source: Path | str) -> Model:
    """The model for the hinted size, if that is not its own."""
    old = model.config.encoder
    image_size, frames = hints.get("image_size") or old.image_size, hints.get("frames") or old.frames
    if (image_size, frames) == (old.image_size, old.frames):
        return model
    try:
        resized = resize_model(model, image_size=image_size, frames=frames)
    except ValueError as error:
        raise UserError(f"{source} cannot be resized: {error}") from None
    _log.warning(
        "%s was trained on %d frames of %d pixels: its positions were resized in time, height and width to "
        "%d frames of %d pixels",
        *(source, old.frames, old.image_size, frames, image_size),
    )
    return resized
