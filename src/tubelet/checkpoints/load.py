"""Models on disk and on the net: any published checkpoint, or Tubelet's own folder, in and out."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tubelet.checkpoints.catalogue import PUBLISHED, Hub, Published, find
from tubelet.checkpoints.download import fetch_hub, fetch_published
from tubelet.checkpoints.families import huggingface
from tubelet.checkpoints.foreign import Foreign, members, read, read_folder, read_json, write
from tubelet.checkpoints.read_file import read_checkpoint
from tubelet.checkpoints.shapes import Given
from tubelet.clips import DenseClip, SegmentClip, Views
from tubelet.errors import UserError, did_you_mean
from tubelet.files import replacing
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.heads import LinearHeadConfig
from tubelet.models.resize import resize_model
from tubelet.progress import Bar
from tubelet.settings import parse, to_plain

Model = MaskedAutoencoder | VideoClassifier
FORMAT = 1  # of config.json
WEIGHTS, CONFIG = "model.safetensors", "config.json"
_log = logging.getLogger("tubelet")


def save_model(model: Model, path: Path | str, layout: str = "tubelet") -> None:
    """Write a model.

    Args:
        model: what to write.
        path: the folder to write for the layouts `tubelet` and `huggingface`, the file for the others.
        layout: `tubelet` holds all: architecture, weights and card. `videomae`, `videomaev2`, `mae_st`,
            `mmaction2`, `mar` and `huggingface` are what those code bases load. Of the card `huggingface`
            holds the class names and whether a video may show several, the others nothing: a line names
            what is lost of class names, clip and views.

    Raises:
        UserError: no such layout, or it cannot hold this model: what it cannot hold is named.
    """
    path = Path(path)
    if layout == "tubelet":
        _refuse_file(path)
        write_model(path, model, dict(model.state_dict()))
        return
    outer, weights = write(model.config, {n: x.detach().cpu() for n, x in model.state_dict().items()}, layout)
    if model.card.multi_label and layout != "huggingface":
        raise UserError(
            f"the layout {layout} cannot hold this model: it has no place for several classes a video"
        )
    if layout == "huggingface":
        _refuse_file(path)
        path.mkdir(parents=True, exist_ok=True)
        config = huggingface.write_config(model.config, model.card.classes, model.card.multi_label)
        _write_json(path / CONFIG, config)
        _write_json(path / "preprocessor_config.json", huggingface.write_preprocessor(model.config.encoder))
        with replacing(path / WEIGHTS) as temporary:
            temporary.write_bytes(save(weights, metadata={"format": "pt"}))
        _warn_of_lost(model, layout)
        return
    content = {outer: weights} | members(model.config, layout)
    if path.suffix == ".safetensors":
        raise UserError(f"{path}: the layout {layout} is a file of torch.save: name it {path.stem}.pth")
    if path.is_dir():
        raise UserError(f"{path} is a folder: the layout {layout} is one file, such as {path / 'model.pth'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(content, temporary)
    _warn_of_lost(model, layout)


def _warn_of_lost(model: Model, layout: str) -> None:
    """Name what the card says and the file, read again, does not."""
    card = model.card
    lost = [
        *(["the names of the classes"] if card.classes and layout != "huggingface" else []),
        *([f"clip={dict(card.clip)}"] if card.clip and dict(card.clip) != _published_clip(model) else []),
        *([f"views={dict(card.views)}"] if dict(card.views) not in ({}, asdict(Views())) else []),
    ]
    if lost:
        _log.warning("the layout %s has no place for %s", layout, ", ".join(lost))


def _refuse_file(path: Path) -> None:
    if path.is_file():
        raise UserError(f"{path} is a file: choose a folder for the model")


def write_model(folder: Path, model: Model, weights: dict[str, Tensor]) -> None:
    """As `save_model`, with weights from elsewhere, such as an average of them."""
    config = {
        "tubelet": FORMAT,
        "kind": "autoencoder" if isinstance(model, MaskedAutoencoder) else "classifier",
        "model": to_plain(model.config),
        "card": asdict(model.card),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as path:
        path.write_bytes(save({name: tensor.contiguous() for name, tensor in weights.items()}))
    _write_json(folder / CONFIG, config)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_model(
    source: Path | str,
    *,
    heads: int | None = None,
    decoder_heads: int | None = None,
    bridge_heads: int | None = None,
    image_size: int | None = None,
    frames: int | None = None,
    norm_eps: float | None = None,
) -> Model:
    """Read any model, in evaluation mode on the CPU. Whose it is, its content tells.

    Args:
        source: a Tubelet folder, such as a finished run; a checkpoint file of VideoMAE, VideoMAE V2, MAE-ST,
            MAR or mmaction2; a Hugging Face folder or hub id (`owner/name`); or a name of `tubelet zoo`,
            which is downloaded once.
        heads: attention heads of the encoder, where shapes do not tell and no published model is as wide.
        decoder_heads: the same of the decoder.
        bridge_heads: the same of MAR's bridging classifier.
        image_size: side of the frames in pixels that the model was made for, where the file does not tell
            (224 otherwise). Where it does tell another, the positions are resized, and a line says so.
        frames: frames of a clip, likewise (16 otherwise).
        norm_eps: epsilon of all LayerNorms, which no file but Hugging Face's and Tubelet's tells (1e-6
            otherwise).

    Raises:
        UserError: nothing is there, it is damaged, unsafe or of no known family, weights are missing or left
            over, or something is needed that the file does not tell.
    """
    given = Given(
        heads=heads,
        decoder_heads=decoder_heads,
        bridge_heads=bridge_heads,
        image_size=image_size,
        frames=frames,
        norm_eps=norm_eps,
    )
    path, published = _find(source)
    made_for = given
    if published:  # of a published model the size is known: another that is given is one to resize to
        said = {name: value for name, value in asdict(given).items() if value is not None}
        made_for = replace(Given(**{**published.given, **said}), image_size=None, frames=None)
        for name, value in published.given.items():
            _log.warning(
                "%s is loaded with %s=%s, which its file does not tell or tells wrongly", source, name, value
            )
    model = _read_own(path, given) if _is_own(path) else _read_foreign(path, made_for)
    if published:
        provenance = {**model.card.provenance, "name": published.name}
        model.card = replace(model.card, license=published.license, provenance=provenance)
    return _resized(model, given, source).eval()


def _find(source: Path | str) -> tuple[Path, Published | None]:
    """The file or folder, fetched if need be, and what is published of it."""
    path, name = Path(source), str(source)
    if path.is_file() and path.name == WEIGHTS and (path.parent / CONFIG).is_file():
        return path.parent, None
    if path.exists():
        return path, None
    known = {row.name for row in PUBLISHED}
    if name in known:
        published = find(name)
        with Bar(f"downloading {published.name}, megabytes") as bar:
            fetched = fetch_published(
                published, progress=lambda done, total: bar.show(done // 10**6, total // 10**6)
            )
        return fetched, published
    if _is_hub_id(name):
        try:
            return fetch_hub(name), next((row for row in PUBLISHED if row.source == Hub(repo=name)), None)
        except UserError as error:
            raise UserError(f"there is no folder {source} here, and {error}") from error
    raise UserError(
        f"no model at {source}: there is no such file or folder, and `tubelet zoo` has no such name"
        + did_you_mean(name, known)
    )


def _resized(model: Model, given: Given, source: Path | str) -> Model:
    """The model for the size that is given, if that is another than its own."""
    old = model.config.encoder
    image_size, frames = given.image_size or old.image_size, given.frames or old.frames
    if (image_size, frames) == (old.image_size, old.frames):
        return model
    try:
        resized = resize_model(model, image_size=image_size, frames=frames)
    except ValueError as error:
        raise UserError(f"{source} cannot be resized: {error}") from None
    _log.warning(
        "%s was made for %d frames of %d pixels: its positions were resized in time, height and width to "
        "%d frames of %d pixels",
        *(source, old.frames, old.image_size, frames, image_size),
    )
    return resized


def _is_hub_id(source: str) -> bool:
    """Whether it is `owner/name`, not a file that is missing."""
    is_file = source.endswith((".pth", ".pt", ".pyth", ".bin", ".ckpt", ".safetensors"))
    return source.count("/") == 1 and not source.startswith((".", "/", "~")) and not is_file


def _is_own(path: Path) -> bool:
    """Whether it is a Tubelet folder, or meant to be one."""
    if not path.is_dir():
        return False
    return not (path / CONFIG).is_file() or "model_type" not in read_json(path / CONFIG)


def _read_foreign(path: Path, given: Given) -> Model:
    try:
        foreign: Foreign = read_folder(path, given) if path.is_dir() else read(read_checkpoint(path), given)
        model = _make(foreign.config if given.norm_eps is None else _with_eps(foreign.config, given.norm_eps))
        _check(model, foreign.weights, str(path), "its architecture", foreign.names)
        model.load_state_dict(foreign.weights)
    except UserError as error:  # of a setting's range, which does not know whose it is
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None
    except _NONSENSE as error:
        raise UserError(f"{path}: its sizes do not fit each other: {error}") from None
    provenance = {"family": foreign.family, "file": path.name, "members": sorted(foreign.others)}
    model.card = ModelCard(
        classes=foreign.classes,
        multi_label=foreign.multi_label,
        clip=_published_clip(model),
        provenance=provenance,
    )
    return model


# What sizes that make no sense end in, one by one too many to foresee.
_NONSENSE = (ValueError, TypeError, ArithmeticError, RuntimeError, AttributeError, IndexError, KeyError)


def _with_eps(
    config: AutoencoderConfig | ClassifierConfig, eps: float
) -> AutoencoderConfig | ClassifierConfig:
    """The same with another epsilon in all LayerNorms."""
    encoder = replace(config.encoder, norm_eps=eps)
    decoder = config.decoder and replace(config.decoder, norm_eps=eps, final_norm_eps=eps)
    if isinstance(config, AutoencoderConfig):
        assert decoder
        return replace(config, encoder=encoder, decoder=decoder)
    head = replace(config.head, norm_eps=eps) if isinstance(config.head, LinearHeadConfig) else config.head
    return replace(config, encoder=encoder, decoder=decoder, head=head)


def _make(config: AutoencoderConfig | ClassifierConfig) -> Model:
    return MaskedAutoencoder(config) if isinstance(config, AutoencoderConfig) else VideoClassifier(config)


def _published_clip(model: Model) -> dict[str, Any]:
    """How clips are sampled, which foreign files do not tell: 174 classes are Something-Something V2's, whose
    recipes spread the frames over the video; all others take every fourth frame."""
    frames = model.config.encoder.frames
    spread = isinstance(model, VideoClassifier) and model.config.classes == 174
    return asdict(SegmentClip(frames=frames) if spread else DenseClip(frames=frames, stride=4))


# What a Tubelet folder tells, whatever is given; sizes it is resized to.
_TOLD = ("heads", "decoder_heads", "bridge_heads", "norm_eps")


def read_architecture(folder: Path) -> AutoencoderConfig | ClassifierConfig:
    """That of the model in a Tubelet folder, whose weights are not looked at.

    Raises:
        UserError: there is none, it is damaged or of another version.
    """
    return _architecture(_read_config(folder), folder)


def _architecture(config: Mapping[str, Any], folder: Path) -> AutoencoderConfig | ClassifierConfig:
    kinds: dict[str, Any] = {"autoencoder": AutoencoderConfig, "classifier": ClassifierConfig}
    if config.get("tubelet") != FORMAT or config.get("kind") not in kinds:
        raise UserError(
            f"{folder / CONFIG} is not a model that this version reads: expected tubelet={FORMAT} and a kind "
            f"of {', '.join(kinds)}, found tubelet={config.get('tubelet')} and kind={config.get('kind')}"
        )
    found: AutoencoderConfig | ClassifierConfig = parse(
        kinds[config["kind"]], config.get("model", {}), str(folder / CONFIG)
    )
    return found


def _read_own(folder: Path, given: Given) -> Model:
    """A Tubelet folder."""
    told = [name for name in _TOLD if getattr(given, name) is not None]
    if told:
        raise UserError(f"{folder} tells {', '.join(told)} itself: leave out {', '.join(told)}")
    config = _read_config(folder)
    architecture = _architecture(config, folder)
    try:
        model = _make(architecture)
    except _NONSENSE as error:
        raise UserError(f"{folder / CONFIG}: its sizes do not fit each other: {error}") from None
    model.card = parse(ModelCard, config.get("card", {}), str(folder / CONFIG))
    try:
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    _check(model, weights, str(folder / WEIGHTS), CONFIG)
    model.load_state_dict(weights)
    return model


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(_no_model(folder))
    return read_json(path)


def _no_model(folder: Path) -> str:
    if (folder / "recipe.yaml").is_file():
        return f"the run in {folder} has not saved a model yet: give its command again to go on with it"
    return f"no model in {folder}: expected a folder with {CONFIG} and {WEIGHTS}"


def _check(
    model: Model, weights: dict[str, Tensor], source: str, config: str, theirs: Mapping[str, str] = {}
) -> None:
    """Every weight is there, of the right shape, and none is left over; `theirs` are the file's names."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [
        f"{theirs.get(name, name)}: expected {expected.get(name, 'nothing')}, "
        f"found {found.get(name, 'nothing')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if wrong:
        listed = "\n  ".join(wrong)
        raise UserError(f"{source} does not fit {config}, these weights differ:\n  {listed}")
