"""Full disks: commands that write to a small tmpfs, which grows after they have failed."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fault_kinds.commands import Command, Results, WholeRun, commands, require_same, used_bytes, whole_run
from fault_kinds.trial import Case, LimitedProcesses, Once, Unavailable, require
from tubelet.train.checkpoint import CheckpointStore

_LARGE = "size=1g"


def cases(folder: Path, processes: LimitedProcesses) -> list[Case]:
    """Return a case for each command that writes.

    Raises:
        Unavailable: no tmpfs can be mounted here.
    """
    with TemporaryDirectory(dir=folder) as probe, _tmpfs(Path(probe)):
        pass
    (folder / "whole").mkdir()
    prepared = commands(folder)
    model = next(command.model for command in prepared if command.model)
    return [
        Case(command.name, partial(_fill, command, Once(partial(whole_run, command, folder / "whole"))))
        for command in (*prepared, *(_conversion(layout, model) for layout in ("tubelet", "huggingface")))
    ]


def _conversion(layout: str, model: Path) -> Command:
    def results(out: Path) -> Results:
        files = [path for path in (out / "converted").rglob("*") if path.is_file()]
        return {path.name: path.read_bytes() for path in files}

    return Command(
        f"convert --to {layout}",
        lambda out: ["convert", str(model), str(out / "converted"), "--to", layout],
        results,
    )


def _fill(command: Command, whole: Once[WholeRun], rng: np.random.Generator, folder: Path) -> None:
    """Run a command with less space, or fewer files, than it needs; then with enough.

    The first run ends with one message. What it had finished is intact, and the second run does not write
    it again.
    """
    uninterrupted, disk = whole(), folder / "disk"
    disk.mkdir()
    with _tmpfs(disk):
        out = disk / "out"
        command.set_up(out)
        space = used_bytes(out) + rng.uniform(0, 1) * uninterrupted.num_bytes
        _remount(disk, f"size={max(4096, int(space))}")
        first = command.process(out, folder / "full").result()
        if first.code != 0:
            first.require_one_message()
        before = _finished(command, out, uninterrupted)
        _require_checkpoint(out)
        _remount(disk, _LARGE)
        command.process(out, folder / "last").result().require_success()
        require_same(command.results(out), uninterrupted)
        again = [path for path, time in before.items() if path.stat().st_mtime_ns != time]
        require(not again, f"written again: {', '.join(path.name for path in again[:4])}")


def _finished(command: Command, out: Path, whole: WholeRun) -> dict[Path, int]:
    """Return the times of files of finished work; raise a Failure if one of them is not complete."""
    times = {}
    for path in out.rglob("*.*"):
        if not path.name.startswith(".") and (content := command.finished(path)) is not None:
            name = path.relative_to(out).as_posix()
            require(content == whole.results.get(name), f"{name} is incomplete")
            times[path] = path.stat().st_mtime_ns
    return times


def _require_checkpoint(out: Path) -> None:
    """Raise an error if there is a `last.pt` that cannot be read."""
    CheckpointStore(out).load_last()


@contextmanager
def _tmpfs(folder: Path) -> Iterator[None]:
    _mount("-t", "tmpfs", "-o", _LARGE, "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _remount(folder: Path, option: str) -> None:
    _mount("-o", f"remount,{option}", str(folder))


def _mount(*words: str) -> None:
    try:
        subprocess.run(["mount", *words], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        raise Unavailable(f"mounting a tmpfs needs root ({reason})") from None
