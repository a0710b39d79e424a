"""Verify published checkpoints: size, checksum, architecture, and the answer on a fixed clip."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tubelet.checkpoints.catalogue import PublishedCheckpoint, csv_line
from tubelet.checkpoints.hub_folder import weight_files
from tubelet.checkpoints.load import download_published, load_published
from tubelet.checkpoints.model_folder import Model
from tubelet.checkpoints.read_file import CHUNK_BYTES
from tubelet.masking import RandomMasking, row_noise
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.encoder import EncoderConfig

TOLERANCE = 1e-3
"""Absolute, for answers on other machines and versions of PyTorch."""
_NUM_VALUES = 4


@dataclass(frozen=True)
class Verification:
    """What was found in a published checkpoint.

    Attributes:
        row: the row of the catalogue with what was found.
        problems: what differs from the row of the catalogue as it is.
    """

    row: PublishedCheckpoint
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return csv_line(self.row)


def verify_published(published: PublishedCheckpoint, file: Path | None = None) -> Verification:
    """Load a published checkpoint and run it on a fixed clip, in float32 on the CPU.

    Args:
        published: the row of the catalogue.
        file: its file or folder; None downloads it.

    Raises:
        UserError: it cannot be downloaded or loaded.
    """
    path = file or download_published(published)
    files = weight_files(path) if path.is_dir() else [path]
    md5, sha256 = digests(files)
    model = load_published(published, path).eval()
    found = replace(
        published,
        sha256=sha256,
        bytes=sum(part.stat().st_size for part in files),
        architecture=architecture(model),
        answer=answer(model),
    )
    problems = [
        f"expected {name} {getattr(published, name)}, found {getattr(found, name)}"
        for name in ("sha256", "bytes", "architecture")
        if getattr(published, name) not in (None, getattr(found, name))
    ]
    if published.md5_prefix and not md5.startswith(published.md5_prefix):
        problems.append(f"expected an MD5 that begins with {published.md5_prefix}, found {md5}")
    if not found.architecture or not found.architecture.startswith(f"{published.contains} "):
        problems.append(f"expected an {published.contains}, found {found.architecture}")
    if published.answer and not _is_close(published.answer, str(found.answer)):
        problems.append(f"expected the answer {published.answer}, found {found.answer}")
    return Verification(found, tuple(problems))


def digests(files: Sequence[Path]) -> tuple[str, str]:
    """Return the MD5 and the SHA-256 of files, one after the other."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                md5.update(chunk)
                sha256.update(chunk)
    return md5.hexdigest(), sha256.hexdigest()


def architecture(model: Model) -> str:
    """Return the kind, the sizes (depth x width / heads) and the number of parameters, in one line."""
    encoder, decoder = model.config.encoder, model.config.decoder
    kind = "autoencoder"
    if not isinstance(model, MaskedAutoencoder):
        kind = f"classifier of {model.config.classes}" if model.config.classes else "encoder"
    parts = [
        kind,
        f"{encoder.frames} x {encoder.image_size}",
        f"encoder {encoder.depth} x {encoder.dim} / {encoder.heads}",
        *([f"decoder {decoder.depth} x {decoder.dim} / {decoder.heads}"] if decoder else []),
        f"{sum(parameter.numel() for parameter in model.parameters())} parameters",
    ]
    return " ".join(parts)


def fixed_clip(config: EncoderConfig) -> Tensor:
    """Return colored waves that move, uint8 (1, T, 3, H, W): the same numbers on every machine."""
    side = torch.arange(config.image_size)
    time = torch.arange(config.frames)[:, None, None, None]
    color = torch.arange(len(config.mean))[:, None, None]
    rows, columns = side[:, None], side
    return ((rows * (color + 1) + columns * 2 + rows * columns // 16 + time * 9) % 256)[None].to(torch.uint8)


def answer(model: Model) -> str:
    """Return the loss at a fixed mask, or the first scores or features, of the fixed clip."""
    clip = fixed_clip(model.config.encoder)
    with torch.inference_mode():
        if isinstance(model, MaskedAutoencoder):
            masking = RandomMasking(ratio=0.75)
            noise = row_noise(torch.tensor([0]), masking.noise_size(model.grid))
            kind, values = "loss", model(clip, masking.from_noise(model.grid, noise)).loss[None]
        else:
            kind, values = ("scores" if model.config.classes else "features"), model(clip)[0, :_NUM_VALUES]
    return " ".join([kind, *(f"{value:.5f}" for value in values.tolist())])


def _is_close(expected: str, found: str) -> bool:
    kinds, values = zip(*(text.split(" ", 1) for text in (expected, found)), strict=True)
    numbers = [[float(value) for value in text.split()] for text in values]
    return kinds[0] == kinds[1] and all(
        abs(one - other) <= TOLERANCE for one, other in zip(*numbers, strict=True)
    )
