"""What has been done already, line by line, so that a job that was stopped goes on where it was.

The folder belongs to what it was made from: the words of a command. Each line of `prepare.jsonl` holds one
finished piece of work and is written at once; the last line about a file counts, and a line that was cut off
by a crash is passed over. The file is held while it is written, so that two runs do not mix in one folder.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tubelet.errors import UserError
from tubelet.files import try_lock
from tubelet.prepare.check import Checked
from tubelet.prepare.encode import Encoded, EncodeJob
from tubelet.prepare.places import Stamp

_VERSION = 2  # of what checks and encodings find; what another one found is found again


class Record:
    """The checks and encodings in a folder's `prepare.jsonl`, and the lists that were written there.

    Entering it reads the file and keeps other processes out.

    Raises:
        UserError: another process is writing to the folder.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self.path = out / "prepare.jsonl"
        self._checks: dict[str, tuple[Stamp, Checked]] = {}
        self._encoded: dict[str, tuple[dict[str, Any], Encoded]] = {}
        self._wrote: set[str] = set()
        self._origin: list[str] = []

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            current = entry.get("version") == _VERSION
            if "check" in entry and current:
                stamp = Stamp(**entry["check"].pop("stamp"))
                check = Checked(**entry["check"])
                self._checks[check.path] = stamp, check
            elif "encode" in entry:
                target, result = entry["encode"]["target"], entry["result"]
                self._encoded[target] = (entry["encode"], Encoded(**result)) if current else ({}, Encoded())
            elif "wrote" in entry:
                self._wrote = set(entry["wrote"])
            elif "origin" in entry:
                self._origin = list(map(str, entry["origin"]))
        except (ValueError, TypeError, KeyError, AttributeError):
            pass  # cut off, or of another version: the work is done again

    def __enter__(self) -> Self:
        self._file = self.path.open("a+", encoding="utf-8", errors="surrogateescape")
        if not try_lock(self._file):
            self._file.close()
            raise UserError(
                f"{self._out} is being written by another `tubelet prepare`; "
                "wait for it to end, or choose another folder with --out"
            )
        self._file.seek(0)
        text = self._file.read()
        for line in text.split("\n"):
            self._read(line)
        if text and not text.endswith("\n"):
            self._file.write("\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        with suppress(OSError):  # the folder may have gone meanwhile
            if not self.path.stat().st_size:  # refused before anything was done: the folder is not ours
                self.path.unlink()

    def _append(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()

    def claim(self, names: Iterable[str], origin: Sequence[str]) -> None:
        """Raise a UserError where one of these files is there and not ours, or of another origin.

        Args:
            names: of the files.
            origin: the words of the command that they are to be made by; a folder that was made before words
                were kept goes on with these.
        """
        here = [name for name in names if (self._out / name).exists()]
        if foreign := [name for name in here if name not in self._wrote]:
            raise UserError(
                f"{self._out / foreign[0]} is there already and was not written by `tubelet prepare`; "
                "choose another folder with --out"
            )
        before, now = self._origin, self._portable(origin)
        if before and now and before != now and (self.copies or any(name.endswith(".csv") for name in here)):
            raise UserError(
                f"{self._out} was made by `tubelet prepare {shlex.join(before)}`, and this is "
                f"`tubelet prepare {shlex.join(now)}`: two data sets in one folder would mix. "
                f"Choose another folder with --out, or remove {self._out}"
            )

    def _portable(self, words: Sequence[str]) -> list[str]:
        """What lies in the folder counts from it, as that may be moved."""
        return [
            Path(word).relative_to(self._out).as_posix() if Path(word).is_relative_to(self._out) else word
            for word in words
        ]

    def made_by(self, origin: Sequence[str]) -> None:
        """The folder belongs to these words from now on."""
        words = self._portable(origin)
        if words and words != self._origin:
            self._origin = words
            self._append({"origin": words})

    def wrote(self, names: Iterable[str]) -> None:
        """These files are ours from now on."""
        if new := set(names) - self._wrote:
            self._wrote |= new
            self._append({"wrote": sorted(self._wrote)})

    def checked(self, path: str, stamp: Stamp) -> Checked | None:
        """What is known of a file, unless it has changed since."""
        known, check = self._checks.get(path, (None, None))
        return check if known == stamp else None

    def add_check(self, stamp: Stamp, check: Checked) -> None:
        """Write down what was found in a file."""
        self._checks[check.path] = stamp, check
        self._append({"check": {**asdict(check), "stamp": asdict(stamp)}, "version": _VERSION})

    @property
    def copies(self) -> dict[str, int]:
        """The sizes in bytes of all videos ever written that are there, by their paths in the folder."""
        sizes = {}
        for target in self._encoded:
            with suppress(OSError):
                sizes[target] = (self._out / target).stat().st_size
        return sizes

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
        self._append({"encode": entry, "result": asdict(result), "version": _VERSION})

    def _entry(self, job: EncodeJob) -> dict[str, Any]:
        """A job as JSON reads it back; the target counts from the folder, which may be moved."""
        target = Path(job.target).relative_to(self._out).as_posix()
        return {**asdict(job), "stamp": list(job.stamp), "target": target}
