"""What has been done already, line by line, so that a job that was stopped goes on where it was.

Each line of `prepare.jsonl` holds one finished piece of work and is written at once; the last line about a
file counts, and a line that was cut off by a crash is passed over.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tubelet.errors import UserError
from tubelet.prepare.check import Checked, Stamp, stamp_of
from tubelet.prepare.encode import Encoded, EncodeJob


class Record:
    """The checks and encodings in a folder's `prepare.jsonl`, and the lists that were written there."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.path = out / "prepare.jsonl"
        self._checks: dict[str, Checked] = {}
        self._encoded: dict[str, tuple[dict[str, Any], Encoded]] = {}
        self._wrote: set[str] = set()
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            if "check" in entry:
                check = entry["check"]
                self._checks[check["path"]] = Checked(**{**check, "stamp": Stamp(**check["stamp"])})
            elif "encode" in entry:
                self._encoded[entry["encode"]["target"]] = entry["encode"], Encoded(**entry["result"])
            elif "wrote" in entry:
                self._wrote = set(entry["wrote"])
        except (ValueError, TypeError, KeyError, AttributeError):
            pass  # cut off, or of another version: the work is done again

    def __enter__(self) -> Self:
        torn = self.path.is_file() and not self.path.read_bytes().endswith(b"\n")
        self._file = self.path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _append(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()

    def claim(self, out: Path, names: Iterable[str]) -> None:
        """Raise a UserError where one of these files is there and not ours."""
        for name in names:
            if name not in self._wrote and (out / name).exists():
                raise UserError(
                    f"{out / name} is there already and was not written by `tubelet prepare`; "
                    "choose another folder with --out"
                )

    def wrote(self, names: Iterable[str]) -> None:
        """These files are ours from now on."""
        if new := set(names) - self._wrote:
            self._wrote |= new
            self._append({"wrote": sorted(self._wrote)})

    def checked(self, path: str) -> Checked | None:
        """What is known of a file, unless it has changed since."""
        known = self._checks.get(path)
        try:
            return known if known and known.stamp == stamp_of(path) else None
        except OSError:
            return None

    def add_check(self, check: Checked) -> None:
        """Write down what was found in a file."""
        self._checks[check.path] = check
        self._append({"check": asdict(check)})

    def encoded(self, job: EncodeJob) -> Encoded | None:
        """The result of the same job, where what it wrote is still there."""
        mine = self._entry(job)
        entry, result = self._encoded.get(mine["target"], ({}, None))
        if result is None or entry != mine:
            return None
        try:
            there = Path(job.target).stat().st_size == result.size
        except OSError:
            there = bool(result.error)
        return result if there else None

    def add_encoded(self, job: EncodeJob, result: Encoded) -> None:
        """Write down what became of a video."""
        entry = self._entry(job)
        self._encoded[entry["target"]] = entry, result
        self._append({"encode": entry, "result": asdict(result)})

    def _entry(self, job: EncodeJob) -> dict[str, Any]:
        """A job as JSON reads it back; the target counts from the folder, which may be moved."""
        target = Path(job.target).relative_to(self._out).as_posix()
        return {**asdict(job), "stamp": list(job.stamp), "target": target}
