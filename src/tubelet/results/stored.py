"""What a model computes of each video while it runs: in memory, or in files from which it resumes.

The values of a video are its class probabilities in a test, or its features.

    OUT/0123456789abcdef/         one test: its name is a hash of everything that its results depend on
        test.json                 what that is
        8d3f….npy                 finished videos: an array of records (key, values as float32)

A file of results is written every ten seconds by each process, under a temporary name, and then named after
the hash of its content: it is complete, and damage is recognized. At the end of a test they are joined into
one, whose first rows are those of the manifest. The key of a video is a hash of its path, its size and time
of change, and what the manifest says of it except the labels.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
import torch
from torch import nn

from tubelet.data.dataset import label_rows
from tubelet.data.manifest import Manifest, Sample
from tubelet.files import discard_partials, exclusive, write_json
from tubelet.results.blocks import mapped_array, row_blocks, write_array
from tubelet.train.runtime import Runtime
from tubelet.video.image_folder import size_and_version

SAVE_EVERY_S = 10.0
"""Seconds after which a process writes the results that are only in its memory."""
_MAX_WAITING_BYTES = 2**22
_LABELS_TOGETHER = 4096
_BLOCK_BYTES = 2**23  # read and written at a time
_LISTED = tuple(field.name for field in fields(Sample) if field.name not in ("label", "labels"))
_PART_NAME = "[0-9a-f]" * 32 + ".npy"

_log = logging.getLogger("tubelet")


class Results(Protocol):
    """The values that the processes of a test find.

    Attributes:
        done: (N,) bool, whether an earlier run of the test has finished a video of the manifest.
        folder: where the results are; None if they are in memory.
    """

    done: np.ndarray
    folder: Path | None

    def add(self, index: np.ndarray, values: np.ndarray) -> None:
        """Add the values (n, K) of videos by their numbers (n,) in the manifest."""
        ...

    def join(self, runtime: Runtime) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers (n,) of all finished videos in order, and their values (n, K)."""
        ...


class CollectedResults:
    """Results in memory; see `Results`."""

    def __init__(self, num_videos: int, width: int) -> None:
        self.done = np.zeros(num_videos, dtype=bool)
        self.folder: Path | None = None
        self._index = [np.empty(0, dtype=np.int64)]
        self._values = [np.empty((0, width), dtype=np.float32)]

    def add(self, index: np.ndarray, values: np.ndarray) -> None:
        """See `Results.add`."""
        self._index.append(index.copy())  # it may be a part of something larger
        self._values.append(values.copy())

    def join(self, runtime: Runtime) -> tuple[np.ndarray, np.ndarray]:
        """See `Results.join`."""
        shares = runtime.gather((np.concatenate(self._index), np.concatenate(self._values)))
        index, values = (np.concatenate(parts) for parts in zip(*shares, strict=True))
        order = index.argsort()
        return index[order], values[order]


class StoredResults:
    """Results in files; see `Results`.

    Args:
        folder: of the test.
        keys: (N,) the key of each video of the manifest.
        parts: names of the files that earlier runs have left.
        done: (N,) bool, whether a video is in one of them.
        width: numbers K of a video: the classes, or the size of its features.
    """

    def __init__(
        self, folder: Path, keys: np.ndarray, parts: Sequence[str], done: np.ndarray, width: int
    ) -> None:
        self.folder: Path | None = folder
        self.done = done
        self._path = folder
        self._keys = keys
        self._found = list(parts)
        self._written: list[str] = []
        self._record = record_type(width)
        self._waiting: list[np.ndarray] = []
        self._last_save = time.monotonic()

    def add(self, index: np.ndarray, values: np.ndarray) -> None:
        """See `Results.add`."""
        records = np.empty(len(index), self._record)
        records["key"], records["values"] = self._keys[index], values
        self._waiting.append(records)
        num_bytes = sum(waiting.nbytes for waiting in self._waiting)
        if time.monotonic() - self._last_save >= SAVE_EVERY_S or num_bytes >= _MAX_WAITING_BYTES:
            self.save()

    def save(self) -> None:
        """Write the results that are only in memory."""
        if self._waiting:
            records = np.concatenate(self._waiting)
            self._written.append(write_part(self._path, len(records), self._record, [records]))
        self._waiting = []
        self._last_save = time.monotonic()

    def join(self, runtime: Runtime) -> tuple[np.ndarray, np.ndarray]:
        """See `Results.join`. The values are memory-mapped."""
        self.save()
        written = [name for names in runtime.gather(self._written) for name in names]
        joined: list[tuple[str, np.ndarray]] = []
        runtime.on_main(
            lambda: joined.append(_join_parts(self._path, {*self._found, *written}, self._keys, self._record))
        )
        name, index = runtime.gather(joined)[0][0]
        if not len(index):
            return index, np.empty((0, *self._record["values"].shape), dtype=np.float32)
        return index, np.load(self._path / name, mmap_mode="r")["values"][: len(index)]


@contextmanager
def stored_results(
    out: Path, asked: Mapping[str, Any], manifest: Manifest, width: int, runtime: Runtime
) -> Iterator[StoredResults]:
    """Keep the results of a test in a folder of `out`, which no other test uses until the end of the block.

    What is only in memory is written when the block ends, also by an error.

    Args:
        out: for this test and others.
        asked: all that the values depend on besides the video, as plain data.
        manifest: the videos.
        width: numbers K of a video: the classes, or the size of its features.
        runtime: the processes.

    Raises:
        UserError: the same test is running.
        OSError: the folder cannot be written.
    """
    folder = out / hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    begun: list[tuple[np.ndarray, list[str], np.ndarray]] = []
    with ExitStack() as stack:

        def begin() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(folder))
            discard_partials(folder)
            write_json(folder / "test.json", asked)
            of_videos, found = video_keys(manifest), _intact_parts(folder)
            rows, _ = _find(of_videos, _stored_keys(folder, found))
            begun.append((of_videos, found, rows >= 0))

        runtime.on_main(begin)
        keys, parts, done = runtime.gather(begun)[0][0]
        results = StoredResults(folder, keys, parts, done, width)
        try:
            yield results
        finally:
            results.save()


def weights_digest(model: nn.Module) -> str:
    """Return a hash of a model's weights: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def video_keys(manifest: Manifest) -> np.ndarray:
    """Return the key of each video, (N,) of 16 bytes."""
    keys = (_video_key(manifest, sample) for sample in manifest.samples)
    return np.fromiter(keys, dtype="S16", count=len(manifest))


def _video_key(manifest: Manifest, sample: Sample) -> bytes:
    listed = [getattr(sample, name) for name in _LISTED]
    path, stamp = manifest.locate(sample), None
    if isinstance(path, Path):
        with suppress(OSError):  # if it is missing, reading it says so
            stamp = size_and_version(path)
    return hashlib.blake2b(json.dumps([listed, stamp]).encode(), digest_size=16).digest()


def stored_labels(classes: Sequence[Sequence[int]], num_classes: int, folder: Path) -> np.ndarray:
    """Return the labels of multi-label videos, bool (N, K), in a file of a folder that has no name there."""
    parts = range(0, len(classes), _LABELS_TOGETHER)
    rows = (label_rows(classes[k : k + _LABELS_TOGETHER], num_classes).numpy() for k in parts)
    return mapped_array(np.dtype(bool), (len(classes), num_classes), rows, folder)


def record_type(width: int) -> np.dtype:
    """Return the type of a video's record, with `width` numbers."""
    return np.dtype([("key", "S16"), ("values", np.float32, (width,))])


def write_part(folder: Path, length: int, record: np.dtype, blocks: Iterable[np.ndarray]) -> str:
    """Write records, given in blocks, to a new file, and return its name."""
    temporary = folder / f".{uuid4().hex}.partial"
    try:
        with temporary.open("wb+") as file:
            write_array(file, record, (length,), blocks)
            file.flush()
            os.fsync(file.fileno())
            name = _part_name(file)
        temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    return name


def _part_name(file: Any) -> str:
    file.seek(0)
    return f"{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}.npy"


def _intact_parts(folder: Path) -> list[str]:
    """Return the names of the files of results, after removing those that are damaged."""
    names = []
    for path in sorted(folder.glob(_PART_NAME)):
        with path.open("rb") as file:
            is_intact = _part_name(file) == path.name
        if is_intact:
            names.append(path.name)
        else:
            _log.warning("%s is damaged or incomplete: the videos in it are tested again", path)
            path.unlink()
    return names


def _stored_keys(folder: Path, parts: Sequence[str]) -> np.ndarray:
    return np.concatenate([np.empty(0, "S16"), *(_keys_of(folder / name) for name in parts)])


def _keys_of(path: Path) -> np.ndarray:
    records = np.load(path, mmap_mode="r")
    keys = np.empty(len(records), "S16")
    for rows in row_blocks(records):
        keys[rows] = records["key"][rows]
    return keys


def _find(wanted: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find keys among those that are stored.

    Returns:
        The row of each wanted key in `stored`, -1 if it is not there; and a row of each other key in order.
    """
    known, first_rows = np.unique(stored, return_index=True)
    positions = np.searchsorted(known, wanted)
    positions[positions == len(known)] = 0
    is_found = known[positions] == wanted if len(known) else np.zeros(len(wanted), dtype=bool)
    is_other = np.ones(len(known), dtype=bool)
    is_other[positions[is_found]] = False
    rows = np.full(len(wanted), -1)
    rows[is_found] = first_rows[positions[is_found]]
    return rows, np.sort(first_rows[is_other])


def _join_parts(
    folder: Path, parts: Collection[str], keys: np.ndarray, record: np.dtype
) -> tuple[str, np.ndarray]:
    """Join files into one with the manifest's finished videos first, in its order, then those of no video.

    Returns:
        Its name, and the numbers of the finished videos. Without any, nothing is written.
    """
    names = sorted(parts)
    lengths = [len(np.load(folder / name, mmap_mode="r")) for name in names]
    stored = _stored_keys(folder, names)
    rows, others = _find(keys, stored)
    index = np.flatnonzero(rows >= 0)
    order = np.concatenate([rows[index], others])
    if len(index) == 0:
        return "", index
    if len(names) == 1 and np.array_equal(order, np.arange(len(stored))):
        return names[0], index
    starts = np.cumsum([0, *lengths])

    def blocks() -> Iterator[np.ndarray]:
        num_rows = max(1, _BLOCK_BYTES // record.itemsize)
        for first in range(0, len(order), num_rows):
            chosen = order[first : first + num_rows]
            block = np.empty(len(chosen), record)
            part_of = np.searchsorted(starts, chosen, side="right") - 1
            for part in np.unique(part_of):  # opened only while it is copied: there may be thousands
                here = part_of == part
                block[here] = np.load(folder / names[part], mmap_mode="r")[chosen[here] - starts[part]]
            yield block

    joined = write_part(folder, len(order), record, blocks())
    for name in {*parts} - {joined}:
        (folder / name).unlink()
    return joined, index
