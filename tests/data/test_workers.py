"""A video that crashes or hangs its worker process is the only one to be lost."""

import faulthandler
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tubelet.clips import DenseClip, Views
from tubelet.data.augment import Augment
from tubelet.data.dataset import Batch, TrainDataset, ViewDataset
from tubelet.data.loader import TrainLoader
from tubelet.data.manifest import Manifest
from tubelet.data.workers import Workers
from tubelet.errors import UserError
from tubelet.video.reader import VideoError

MakeManifest = Callable[..., Manifest]
BAD = 3  # the number of the video that crashes or hangs
LENGTH = 8 + 3 * BAD  # its number of frames, by which a clip recognizes it


@dataclass(frozen=True, kw_only=True)
class DeadlyClip(DenseClip):
    """Crashes or hangs the process that samples it from the bad video."""

    frames: int = 2
    does: str = "raise"

    def sample(self, length: int, rng: np.random.Generator, fps: float | None = None) -> list[int]:
        self._fail(length)
        return super().sample(length, rng, fps)

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        self._fail(length)
        return super().view(length, clip, clips, fps)

    def _fail(self, length: int) -> None:
        if length != LENGTH:
            return
        match self.does:
            case "raise":
                raise VideoError("it is broken")
            case "hang":
                time.sleep(3600)
            case name:
                os.kill(os.getpid(), signal.Signals[name])
                time.sleep(3600)


def training(manifest: MakeManifest, does: str) -> TrainDataset:
    return TrainDataset(manifest(12), DeadlyClip(does=does), Augment(), size=32, seed=5)


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.video, other.video) and one.names == other.names


@pytest.mark.slow
@pytest.mark.parametrize("does", ["SIGSEGV", "hang"])
def test_a_video_that_crashes_or_hangs_is_replaced_like_one_that_cannot_be_read(
    manifest: MakeManifest, does: str
):
    order = [[(1, 2 * k), (1, 2 * k + 1)] for k in range(6)]
    broken = list(Workers(training(manifest, "raise"), 0).batches(order))
    # The limit is far above what the others take, however slow the machine.
    refused = list(Workers(training(manifest, does), 2, limit_s=10).batches(order))
    assert all(same(one, other) for one, other in zip(broken, refused, strict=True))
    named = {name: reason for batch in refused for name, reason in batch.failures.items()}
    assert named.keys() == {f"{BAD}.mp4"}
    assert named[f"{BAD}.mp4"].endswith("hung for 10 s" if does == "hang" else "crashed")


def test_a_daemonic_process_makes_the_batches_itself(manifest: MakeManifest, daemonic: None):
    order = [[(0, k)] for k in range(3)]
    wanted = Workers(training(manifest, "raise"), 2).batches(order)
    assert all(map(same, wanted, Workers(training(manifest, "raise"), 0).batches(order)))


def test_a_running_timer_of_faulthandler_does_not_stop_the_workers(manifest: MakeManifest):
    order = [[(0, k)] for k in range(3)]
    faulthandler.dump_traceback_later(3600)
    try:
        assert len(list(Workers(training(manifest, "raise"), 1).batches(order))) == 3
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.mark.slow
def test_it_is_refused_in_later_epochs_and_counts_as_unreadable(manifest: MakeManifest):
    loader = TrainLoader(training(manifest, "SIGSEGV"), batch=4, workers=2, max_failures=0.1)
    epochs = [[batch.names for batch in loader.batches(epoch)] for epoch in range(3)]
    assert all(len(names) == 4 for epoch in epochs for names in epoch)
    assert loader.failures.keys() == {f"{BAD}.mp4"}


@pytest.mark.slow
def test_an_evaluation_continues_without_it_and_names_it(manifest: MakeManifest):
    dataset = ViewDataset(manifest(6), DeadlyClip(does="SIGSEGV"), Views(), size=32)
    batches = list(Workers(dataset, 2).batches([[0, 1], [2, 3], [4, 5]]))
    assert [name for batch in batches for name in batch.names] == [f"{k}.mp4" for k in range(6) if k != BAD]
    assert [name for batch in batches for name in batch.failures] == [f"{BAD}.mp4"]


@pytest.mark.slow
def test_a_video_is_not_refused_when_the_system_ends_its_process(manifest: MakeManifest):
    with pytest.raises(UserError, match=r"SIGKILL.*data\.workers"):
        list(Workers(training(manifest, "SIGKILL"), 1).batches([[(0, BAD)], [(0, 1)]]))


@pytest.mark.slow
def test_an_error_of_the_data_set_is_raised(manifest: MakeManifest):
    with pytest.raises(IndexError):
        list(Workers(training(manifest, "raise"), 1).batches([[(0, 99)]]))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
def test_ended_processes_leave_no_files_open(manifest: MakeManifest):
    def read() -> int:
        list(Workers(training(manifest, "raise"), 2).batches([[(0, 0)], [(0, 1)]]))
        gc.collect()
        return open_files()

    first = read()
    assert min(read() for _ in range(4)) <= first  # some files are closed a moment later


class TinyClips(TrainDataset):
    """Items of a few bytes, without a file."""

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return Batch(
            video=torch.zeros(1, 1, 3, 2, 2, dtype=torch.uint8),
            label=torch.tensor([key[0]]),
            seed=torch.tensor([key[0]]),
            index=torch.tensor([key[1]]),
            names=["x.mp4"],
            failures={},
        )


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
def test_what_is_kept_of_a_batch_but_its_video_keeps_no_file_open(manifest: MakeManifest):
    dataset = TinyClips(manifest(12), DenseClip(), Augment(), size=32)
    order = [[(0, k % 12), (0, k)] for k in range(2000)]
    kept, counts = [], []
    for batch in Workers(dataset, 2).batches(order):
        kept.append((batch.label[:1], batch.seed[:1], batch.index[1:], batch.names, batch.failures))
        counts.append(open_files())
    assert [int(index) for *_, index, _, _ in kept] == list(range(2000))
    assert max(counts[1000:]) < max(counts[:100]) + 100  # the batches on their way differ


@pytest.mark.slow
def test_a_program_that_fails_while_workers_run_ends(manifest: MakeManifest, tmp_path: Path):
    root = manifest(12).root
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\n"
        "from tests.data.test_workers import DeadlyClip\n"
        "from tubelet.data.dataset import TrainDataset\n"
        "from tubelet.data.manifest import Manifest, Sample\n"
        "from tubelet.data.augment import Augment\n"
        "from tubelet.data.workers import Workers\n"
        "if __name__ == '__main__':\n"
        "    samples = tuple(Sample(f'{k}.mp4', label=0) for k in range(12))\n"
        f"    manifest = Manifest(Path({str(root)!r}), 'train', samples, ('a',))\n"
        "    dataset = TrainDataset(manifest, DeadlyClip(does='nothing'), Augment(), size=32, seed=5)\n"
        "    order = [[(0, k)] for k in range(12) if k != 3]\n"
        "    for batch in Workers(dataset, 2).batches(order):\n"
        "        raise ArithmeticError('something else')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=3600, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.endswith("ArithmeticError: something else\n")


def test_the_programs_own_signal_handler_stays_if_starting_processes_fails(
    manifest: MakeManifest, monkeypatch: pytest.MonkeyPatch
):
    def fail(loader: DataLoader[Batch]) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as PyTorch sets its own
        raise OSError("no processes left")

    before = signal.getsignal(signal.SIGCHLD)
    try:
        monkeypatch.setattr(DataLoader, "__iter__", fail)
        with pytest.raises(OSError, match="no processes left"):
            list(Workers(training(manifest, "raise"), 1).batches([[(0, 1)]]))
        assert signal.getsignal(signal.SIGCHLD) is before
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.slow
def test_a_signal_handler_that_python_did_not_set_is_accepted(
    manifest: MakeManifest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    (batch,) = Workers(training(manifest, "raise"), 0).batches([[(0, 1)]])
    assert len(batch) == 1
