"""Hostile and odd inputs that no test can hold, for a bounded time: the table of docs/reliability.md.

    python benchmarks/faults.py [KIND ...] [--seconds 110] [--seed 0]

Each trial damages something in a way that follows from the seed and its number, and then runs what a user
would run. It is survived if the answer is right, or is one message that names the problem, within bounds of
time and memory. `--trial N` repeats a single trial and keeps its files.
"""

import argparse
import platform
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import av
import numpy as np
import torch

from fault_kinds import checkpoints, disks, kills, lists, videos
from fault_kinds.trial import Case, Failure, LimitedProcesses, Unavailable, first_line
from tubelet.machine import available_cores, processor

KINDS: dict[str, Callable[[Path, LimitedProcesses], list[Case]]] = {
    "kills": kills.cases,
    "videos": videos.cases,
    "checkpoints": checkpoints.cases,
    "disks": disks.cases,
    "lists": lists.cases,
}
_PROGRESS_EVERY_S = 10.0


@dataclass(frozen=True)
class Outcome:
    """The result of one trial; an empty `problem` means that it was survived."""

    kind: str
    number: int
    case: str
    problem: str

    def command(self, seed: int) -> str:
        """Return the command that repeats it."""
        return f"python benchmarks/faults.py {self.kind} --seed {seed} --trial {self.number}"


def run_kind(kind: str, *, seed: int, seconds: float, jobs: int) -> list[Outcome]:
    """Run trials of a kind for a time, in the order of their numbers, and return their outcomes.

    Raises:
        Unavailable: this machine cannot run it.
    """
    processes = LimitedProcesses(jobs)
    outcomes: list[Outcome] = []
    try:
        with TemporaryDirectory(prefix="faults-") as folder, ThreadPoolExecutor(jobs) as threads:
            cases = KINDS[kind](Path(folder), processes)
            running: set[Future[Outcome]] = set()
            number, reported = 0, time.monotonic()
            ends = reported + seconds
            while running or number == 0 or time.monotonic() < ends:
                while len(running) < jobs and (number == 0 or time.monotonic() < ends):
                    running.add(threads.submit(run_trial, kind, cases, seed, number, Path(folder)))
                    number += 1
                done, running = wait(running, return_when=FIRST_COMPLETED)
                outcomes += [future.result() for future in done]
                if time.monotonic() - reported > _PROGRESS_EVERY_S:
                    reported = time.monotonic()
                    print(_progress(kind, outcomes), file=sys.stderr, flush=True)
    finally:
        processes.close()
    print(_progress(kind, outcomes), file=sys.stderr, flush=True)
    return sorted(outcomes, key=lambda outcome: outcome.number)


def repeat_trial(kind: str, *, seed: int, number: int) -> Outcome:
    """Run a single trial and keep its files."""
    processes, folder = LimitedProcesses(1), Path(mkdtemp(prefix=f"faults-{kind}-{number}-"))
    try:
        outcome = run_trial(kind, KINDS[kind](folder, processes), seed, number, folder, keep=True)
    finally:
        processes.close()
    print(f"files: {folder}", file=sys.stderr)
    return outcome


def run_trial(
    kind: str, cases: Sequence[Case], seed: int, number: int, parent: Path, *, keep: bool = False
) -> Outcome:
    """Run a trial in a new folder in `parent`; seed and number determine all of its choices."""
    case, folder = cases[number % len(cases)], parent / f"trial-{number}"
    rng = np.random.default_rng((seed, zlib.crc32(kind.encode()), number))
    folder.mkdir()
    problem = ""
    try:
        case.run(rng, folder)
    except Failure as failure:
        problem = str(failure)
    except Exception as error:
        problem = f"{type(error).__name__}: {first_line(error)}"
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(kind, number, case.name, problem)


def _progress(kind: str, outcomes: Sequence[Outcome]) -> str:
    survived = sum(not outcome.problem for outcome in outcomes)
    return f"{kind}: {len(outcomes)} tried, {survived} survived"


def table(outcomes: Sequence[Outcome], unavailable: dict[str, str]) -> list[str]:
    """Return the lines of a Markdown table: one row for each case, and one for each kind that was skipped."""
    rows = [("kind", "case", "tried", "survived"), ("---", "---", "---:", "---:")]
    for kind in KINDS:
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        for case in dict.fromkeys(outcome.case for outcome in own):
            problems = [outcome.problem for outcome in own if outcome.case == case]
            rows.append((kind, case, f"{len(problems)}", f"{sum(not problem for problem in problems)}"))
        if kind in unavailable:
            rows.append((kind, f"skipped: {unavailable[kind]}", "0", "0"))
    return ["| " + " | ".join(row) + " |" for row in rows]


def examples(outcomes: Sequence[Outcome], seed: int, *, every: bool = False) -> list[str]:
    """Return the first failure of each case, or every failure, with the command that repeats it."""
    first: dict[tuple[str, str, int], Outcome] = {}
    for outcome in outcomes:
        if outcome.problem:
            first.setdefault((outcome.kind, outcome.case, outcome.number if every else 0), outcome)
    return [f"- {o.kind}, {o.case}: {o.problem}\n  `{o.command(seed)}`" for o in first.values()]


def machine() -> str:
    """Return the machine, the versions and the commit in one line."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return (
        f"commit {found or 'unknown'}, {available_cores()} cores of {processor()}, {platform.system()}, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, PyAV {av.__version__}"
    )


def main() -> int:
    """Run the kinds, print the table, and return the exit code: 1 if something was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seconds", type=float, default=110, help="time for each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=min(2, available_cores()), help="trials at a time")
    parser.add_argument("--trial", type=int, help="repeat only this trial of one kind")
    parser.add_argument("--all", action="store_true", help="print every failure, not the first of each case")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"there is no kind {min(unknown)}; there are: {', '.join(KINDS)}")
    if options.trial is not None:
        if len(options.kinds) != 1:
            parser.error("--trial needs one KIND")
        outcomes = [repeat_trial(options.kinds[0], seed=options.seed, number=options.trial)]
        unavailable: dict[str, str] = {}
    else:
        outcomes, unavailable = [], {}
        for kind in options.kinds or KINDS:
            try:
                outcomes += run_kind(kind, seed=options.seed, seconds=options.seconds, jobs=options.jobs)
            except Unavailable as error:
                unavailable[kind] = str(error)
    print(f"\n{machine()}, seed {options.seed}\n")
    print("\n".join(table(outcomes, unavailable)))
    if failed := examples(outcomes, options.seed, every=options.all):
        print("\nNot survived:\n" if options.all else "\nNot survived, the first example of each case:\n")
        print("\n".join(failed))
    return int(any(outcome.problem for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
