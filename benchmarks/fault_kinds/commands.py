"""Commands that write results to a folder and can be repeated in it, and what is compared of the results."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from fault_kinds.data import TASKS, motion_data, tensors_digest, tiny_models, tiny_recipe
from fault_kinds.trial import COMMAND_LIMIT_S, Failure, TubeletProcess, require
from tubelet.checkpoints.save import save_model
from tubelet.train.loggers import MEASURED

Results = dict[str, Any]
_UNCOMPARED = (".lock", "prepare.jsonl")  # the second has times, and the order in which work ended
# Writes the results of a test after each batch, not every ten seconds, if this version keeps them at all.
_EVALUATE = """
from tubelet.cli.main import main
try:
    from tubelet.results import stored
    stored.SAVE_EVERY_S = 0
except ImportError:
    pass
main()
"""


@dataclass(frozen=True)
class Command:
    """A command and its results.

    Attributes:
        name: what it does.
        words: its words for a folder to write to.
        results: of a folder, what every run must have in the end.
        finished: of a file of finished work, which no later run may write again, the same; None of others.
        model: a model that is copied to the folder before the command starts.
        start: Python code that runs it, by default the command itself.
    """

    name: str
    words: Callable[[Path], list[str]]
    results: Callable[[Path], Results]
    finished: Callable[[Path], Any] = lambda path: None
    model: Path | None = None
    start: str = ""

    def set_up(self, out: Path) -> None:
        """Make the folder with what the command needs in it."""
        out.mkdir(parents=True, exist_ok=True)
        if self.model:
            shutil.copytree(self.model, out / "model")

    def process(self, out: Path, log: Path) -> "RunningCommand":
        """Start it; what it prints is written to files that are named after `log`."""
        return RunningCommand(self, out, log)


class RunningCommand(TubeletProcess):
    """A command that has been started.

    Args:
        command: the command.
        out: the folder that it writes to.
        log: see TubeletProcess.
    """

    def __init__(self, command: Command, out: Path, log: Path) -> None:
        self._folder, self._before = out, _changes(out)
        self._started = time.monotonic()
        super().__init__(command.words(out), log, command.start)

    def wait_for_work(self) -> float:
        """Wait until something changes in the folder, or until the end, and return the seconds so far.

        Raises:
            Failure: neither happens.
        """
        while _changes(self._folder) == self._before and not self.ended(0.02):
            if time.monotonic() - self._started > COMMAND_LIMIT_S:
                self.kill(with_children=True)
                raise Failure(f"no work within {COMMAND_LIMIT_S:.0f} s")
        return time.monotonic() - self._started


def _changes(folder: Path) -> dict[Path, int]:
    """Return the times of change of everything in a folder."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        with suppress(OSError):  # a temporary file
            found[path] = path.stat().st_mtime_ns
    return found


@dataclass(frozen=True)
class WholeRun:
    """An uninterrupted run of a command: its results, how long its work took, and the folder's size."""

    results: Results
    seconds: float
    num_bytes: int


def whole_run(command: Command, folder: Path) -> WholeRun:
    """Run a command to its end without a fault."""
    out = folder / command.name.replace(" ", "-")
    command.set_up(out)
    size_before = used_bytes(out)
    running = command.process(out, out.with_suffix(".log"))
    running.wait_for_work()
    begun = time.monotonic()
    running.result().require_success()
    seconds = time.monotonic() - begun
    return WholeRun(command.results(out), seconds, used_bytes(out) - size_before)


def used_bytes(folder: Path) -> int:
    """Return how many bytes the files of a folder take in pages of 4 kB."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def require_same(found: Results, whole: WholeRun) -> None:
    """Raise a Failure unless the results equal those of an uninterrupted run."""
    names = sorted(whole.results.keys() | found.keys())
    wrong = [name for name in names if not _equal(whole.results.get(name), found.get(name))]
    require(not wrong, f"other results than an uninterrupted run: {', '.join(wrong[:4])}")


def _equal(a: Any, b: Any) -> bool:
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def commands(folder: Path) -> list[Command]:
    """Return the commands; their sources are written to a folder."""
    data = motion_data(folder / "data")
    model = folder / "model"
    save_model(tiny_models()["classifier"], model)
    synthetic = ["--size", "32", "--train", "160", "--val", "20", "--test", "20", "--workers", "0"]
    encode = ["--encode", "--workers", "1"]
    evaluate = [f"data.root={data}", "data.workers=0", "batch_size=1", "views.clips=4", "views.crops=3"]
    return [
        *(_training(task, tiny_recipe(task, data, folder)) for task in TASKS),
        Command(
            "prepare --encode",
            lambda out: ["prepare", "folder", str(data / "videos"), "--out", str(out), *encode],
            partial(_all_files, content=_num_frames),  # x264 does not always write the same bytes
            finished=_num_frames,
        ),
        Command(
            "prepare synthetic",
            lambda out: ["prepare", "synthetic", str(out), *synthetic],
            partial(_all_files, content=_bytes_of_video),
            finished=_bytes_of_video,
        ),
        Command(
            "evaluate",
            lambda out: ["evaluate", str(out / "model"), "--dump", str(out / "results.npz"), *evaluate],
            _probabilities,
            model=model,
            start=_EVALUATE,
        ),
    ]


def _training(task: str, recipe: Path) -> Command:
    return Command(task, lambda out: [task, str(recipe), "--out", str(out)], _models_and_log)


def _all_files(out: Path, content: Callable[[Path], Any]) -> Results:
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in _UNCOMPARED]
    return {path.relative_to(out).as_posix(): content(path) or path.read_bytes() for path in files}


def _bytes_of_video(path: Path) -> bytes | None:
    return path.read_bytes() if path.suffix == ".mp4" else None


def _num_frames(path: Path) -> int | None:
    """Return how many frames of a video decode."""
    if path.suffix != ".mp4":
        return None
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _models_and_log(out: Path) -> Results:
    """The models, the losses and scores of every step, and temporary files that should not be there."""
    models = {path.relative_to(out).as_posix(): tensors_digest(path) for path in out.rglob("*.safetensors")}
    partials = {path.relative_to(out).as_posix(): "" for path in out.rglob("*.partial")}
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    values = [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]
    return {**models, **partials, "log.jsonl": values}


def _probabilities(out: Path) -> Results:
    with np.load(out / "results.npz") as found:
        return {name: found[name] for name in ("names", "labels", "probabilities", "broken")}
