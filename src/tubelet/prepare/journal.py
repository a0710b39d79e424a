"""The journal of a data set's folder: finished work, so that an interrupted preparation resumes.

Each line of `prepare.jsonl` is one check, the segments of one file, or one encoding, and is written at once.
The last line about a file counts; a line that a crash cut off is ignored. A folder is tied to the command
that created it.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tubelet.errors import UserError
from tubelet.files import exclusive
from tubelet.prepare.check import CheckResult
from tubelet.prepare.encode import EncodeJob, EncodeResult
from tubelet.prepare.segments import Segments, SegmentsJob
from tubelet.prepare.stamps import Stamp

_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}  # file names may not be text
_VERSION = 1  # of the results of checking and encoding; those of another version are discarded


@contextmanager
def open_journal(out: Path, names: Iterable[str], origin: Sequence[str]) -> Iterator["Journal"]:
    """Lock a folder, read its journal and claim the folder for a command.

    Args:
        out: the folder.
        names: the files that the command writes.
        origin: the words of the command; empty for that of the folder.

    Raises:
        UserError: another process writes to the folder, one of the files is there and was not written by
            `tubelet prepare`, or the folder belongs to another command.
    """
    with exclusive(out):
        journal = Journal(out)
        journal.claim(set(names), origin)
        yield journal


class Journal:
    """The checks and encodings in a folder's `prepare.jsonl`; `open_journal` makes it."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._path = out / "prepare.jsonl"
        self._checks: dict[str, tuple[Stamp, CheckResult]] = {}
        self._encoded: dict[str, tuple[dict[str, Any], EncodeResult | None]] = {}
        self._segments: dict[SegmentsJob, tuple[Stamp, Segments]] = {}
        self._files: set[str] = set()
        self._origin: list[str] = []
        text = self._path.read_text(**_TEXT) if self._path.is_file() else ""
        self._cut_off = bool(text) and not text.endswith("\n")
        for line in text.split("\n"):
            with suppress(ValueError, TypeError, KeyError, AttributeError):  # cut off: the work is repeated
                self._read(json.loads(line))

    def _read(self, entry: dict[str, Any]) -> None:
        current = entry.get("version") == _VERSION
        if "check" in entry and current:
            check = CheckResult(**entry["check"])
            self._checks[check.path] = Stamp(**entry["stamp"]), check
        elif "segments" in entry and current:
            job, result = entry["segments"], entry["result"]
            spans = tuple((start, end) for start, end in job["spans"])
            self._segments[SegmentsJob(job["path"], spans, job["num_frames"])] = (
                Stamp(**entry["stamp"]),
                Segments(tuple(result["frames"]), tuple(result["errors"]), result["duration_s"]),
            )
        elif "encode" in entry:
            encoded = EncodeResult(**entry["result"]) if current else None
            self._encoded[entry["encode"]["target"]] = entry["encode"], encoded
        elif "files" in entry:
            self._files, self._origin = set(entry["files"]), entry["origin"]

    def _append(self, entry: dict[str, Any]) -> None:
        with self._path.open("a", **_TEXT) as file:
            file.write("\n" * self._cut_off + json.dumps(entry, ensure_ascii=False) + "\n")
        self._cut_off = False

    def claim(self, names: set[str], origin: Sequence[str]) -> None:
        """Tie the folder to a command; paths inside the folder are relative to it, so it can be moved."""
        present = sorted(name for name in names if (self._out / name).exists())
        if foreign := [name for name in present if name not in self._files]:
            raise UserError(
                f"{self._out / foreign[0]} already exists and was not written by `tubelet prepare`; "
                "choose another folder with --out"
            )
        words = [
            Path(word).relative_to(self._out).as_posix() if Path(word).is_relative_to(self._out) else word
            for word in origin
        ]
        used = self.copies or any(name.endswith(".csv") for name in present)
        if used and words and self._origin and words != self._origin:
            raise UserError(
                f"{self._out} was made by `tubelet prepare {shlex.join(self._origin)}`, and this is "
                f"`tubelet prepare {shlex.join(words)}`: two data sets in one folder would mix. "
                f"Choose another folder with --out, or remove {self._out}"
            )
        words = words or self._origin
        if (names, words) != (self._files, self._origin):
            self._append({"files": sorted(names), "origin": words})

    def check_of(self, path: str, stamp: Stamp) -> CheckResult | None:
        """Return the check of a file unless it has changed since."""
        known, check = self._checks.get(path, (None, None))
        return check if known == stamp else None

    def add_check(self, check: CheckResult, stamp: Stamp) -> None:
        """Record the check of a file."""
        self._append({"check": asdict(check), "stamp": asdict(stamp), "version": _VERSION})

    def segments_of(self, job: SegmentsJob, stamp: Stamp) -> Segments | None:
        """Return the measured segments of a file unless it has changed since."""
        known, segments = self._segments.get(job, (None, None))
        return segments if known == stamp else None

    def add_segments(self, job: SegmentsJob, stamp: Stamp, segments: Segments) -> None:
        """Record the measured segments of a file."""
        entry = {"segments": asdict(job), "result": asdict(segments), "stamp": asdict(stamp)}
        self._append({**entry, "version": _VERSION})

    @property
    def copies(self) -> dict[str, int]:
        """The sizes in bytes of all encoded videos that exist, by their paths in the folder."""
        sizes = {}
        for target in self._encoded:
            with suppress(OSError):
                sizes[target] = (self._out / target).stat().st_size
        return sizes

    def encoding_of(self, job: EncodeJob, stamp: Stamp) -> EncodeResult | None:
        """Return the result of the same job if what it wrote is still there."""
        entry = self._entry(job, stamp)
        known, result = self._encoded.get(entry["target"], ({}, None))
        if result is None or known != entry:
            return None
        try:
            valid = Path(job.target).stat().st_size == result.size
        except OSError:
            valid = bool(result.error)
        return result if valid else None

    def add_encoding(self, job: EncodeJob, stamp: Stamp, result: EncodeResult) -> None:
        """Record the result of an encoding."""
        entry = self._entry(job, stamp)
        self._encoded[entry["target"]] = entry, result
        self._append({"encode": entry, "result": asdict(result), "version": _VERSION})

    def _entry(self, job: EncodeJob, stamp: Stamp) -> dict[str, Any]:
        """Return a job as JSON reads it; the target is relative to the folder, which may be moved."""
        target = Path(job.target).relative_to(self._out).as_posix()
        part = job.part and list(job.part)
        return {**asdict(job), "part": part, "stamp": asdict(stamp), "target": target}
