"""The checkpoints that others have published, from `catalogue.csv`: content, address and published accuracy.

A name says `method_size_data`, then what sets the file apart: the epochs of a shorter schedule (`800e`), what
was done after pre-training (`finetuned`, `distilled`), and the host where it is not the authors' own (`hf`,
`mmaction2`, `pyslowfast`, `demo`). Accuracies are those of the publishers. A row with `architecture` and
`answer` was downloaded and loaded by `tubelet zoo --verify`; the others were not.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.errors import UserError, did_you_mean

_NUMBERS: dict[str, type] = {"bytes": int, "heads": int, "decoder_heads": int, "top1": float, "top5": float}


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint:
    """A published checkpoint: one row of the catalogue; an empty cell is None.

    Attributes:
        name: its name in Tubelet, lower case with underscores.
        family: who published the file, and so which layout it has; `videomaev2` has VideoMAE's.
        size: the encoder's: small, base, large, huge or giant.
        contains: `autoencoder` (encoder and decoder), `encoder`, or `classifier` (encoder and head).
        data: the data set it was trained on; for a classifier the one with its classes.
        url: the web address of the file.
        mirror: another address of the same file.
        hub: `owner/name` of its repository on the Hugging Face hub.
        hub_file: the file in that repository; None is a whole model with its `config.json`.
        page: the web page to open where the file must be downloaded by hand.
        steps: what to do on that page.
        md5_prefix: the first digits of the file's MD5.
        sha256: the SHA-256 of the file, or of the weights of a whole model.
        bytes: the size of what has that SHA-256.
        heads: the encoder's attention heads, where the file does not record them or records them wrongly.
        decoder_heads: the decoder's attention heads, in the same case.
        architecture: what `tubelet zoo --verify` found: kind, sizes and number of parameters.
        answer: its first scores, features or loss on a fixed clip, found in the same way.
        license: of the weights.
        top1: top-1 accuracy in percent, as published for this file.
        top5: top-5 accuracy in percent, as published for this file.
        protocol: what that was measured with.
        note: what else one should know.
    """

    name: str
    family: str
    size: str
    contains: str
    data: str
    url: str | None = None
    mirror: str | None = None
    hub: str | None = None
    hub_file: str | None = None
    page: str | None = None
    steps: str | None = None
    md5_prefix: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    architecture: str | None = None
    answer: str | None = None
    license: str
    top1: float | None = None
    top5: float | None = None
    protocol: str | None = None
    note: str = ""

    @property
    def source(self) -> str | None:
        """The address, or the hub's repository and file; None where it must be downloaded by hand."""
        return self.url or (f"{self.hub}/{self.hub_file}" if self.hub_file else self.hub)

    @property
    def by_hand(self) -> str:
        """How to get the file where `source` is None."""
        text = f"open {self.page}, {self.steps}, download the file by hand and give its path"
        copy = f"{self.name}_hf"
        return text + (f"; or give {copy}, its copy on the hub" if copy in catalogue() else "")

    @property
    def hints(self) -> ArchitectureHints:
        """What the file does not record, or records wrongly."""
        hints: ArchitectureHints = {"heads": self.heads} if self.heads else {}
        return hints | {"decoder_heads": self.decoder_heads} if self.decoder_heads else hints

    def describe(self) -> str:
        """Return all that is known of it, one line each."""
        accuracy = " / ".join(f"{value} %" for value in (self.top1, self.top5) if value is not None)
        rows = {
            "name": self.name,
            "holds": f"{self.contains}, ViT-{self.size}, {self.family}",
            "trained on": self.data,
            "from": self.source or self.by_hand,
            "checksum": f"MD5 {self.md5_prefix}..." if self.md5_prefix else self.sha256,
            "bytes": f"{self.bytes:,}" if self.bytes else "",
            "built as": self.architecture,
            "answer": self.answer,
            "loaded with": ", ".join(f"{name}={value}" for name, value in self.hints.items()),
            "top-1/top-5": accuracy and f"{accuracy} ({self.protocol})",
            "license": self.license,
            "note": self.note,
        }
        return "\n".join(f"{name:12} {value}" for name, value in rows.items() if value)


@cache
def catalogue() -> Mapping[str, PublishedCheckpoint]:
    """Return all published checkpoints by name, in the order of the file."""
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = [_parse(row) for row in csv.DictReader(file, strict=True)]
    return {row.name: row for row in rows}


def csv_line(row: PublishedCheckpoint) -> str:
    """Return a row as a line of the file."""
    cells = ["" if value is None else value for value in vars(row).values()]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _parse(row: Mapping[str, str]) -> PublishedCheckpoint:
    values: dict[str, Any] = {name: _NUMBERS.get(name, str)(cell) for name, cell in row.items() if cell}
    return PublishedCheckpoint(**values)


def published_checkpoint(name: str) -> PublishedCheckpoint:
    """Return the published checkpoint of this name, such as `mae_st_large_k400`.

    Raises:
        UserError: the catalogue has no such name.
    """
    if name not in catalogue():
        hint = did_you_mean(name, catalogue()) or "; `tubelet zoo` lists all names"
        raise UserError(f"no published checkpoint is called '{name}'{hint}")
    return catalogue()[name]
