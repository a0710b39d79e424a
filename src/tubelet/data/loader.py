"""Batches out of data sets, in worker processes, resumable at any batch."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from tubelet.data.dataset import Batch, TrainDataset, ViewDataset
from tubelet.data.workers import Workers
from tubelet.errors import UserError
from tubelet.machine import cores_per_process

_log = logging.getLogger("tubelet")


class TrainLoader:
    """Shuffled batches of a training set, this process's share of them.

    Batch b of an epoch is the same set of videos however many processes share it: with more processes each
    takes its slice. It counts the videos that could not be read and stops past a limit: within an epoch each
    process counts for itself, at its end all together.

    Args:
        dataset: the items.
        batch: videos of a batch in this process.
        rank: this process, from 0.
        world: number of processes.
        workers: worker processes that decode; 0 decodes in this one.
        pin: use page-locked memory, for copies to a GPU.
        max_failures: the share of the videos that may fail to be read, in [0, 1]; unless 0, one may always.
        balanced: draw every class equally often, rare ones more than once an epoch, each time as one of the
            videos that show it; those that show none are never drawn. Else each video once.
    """

    def __init__(
        self,
        dataset: TrainDataset,
        *,
        batch: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pin: bool = False,
        max_failures: float = 0.05,
        balanced: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch = batch
        self.rank = rank
        self.world = world
        self.max_failures = max_failures
        self.balanced = balanced
        self.failures: dict[str, str] = {}
        self._before: set[str] = set()  # failures of an earlier start, not met again so far
        self._workers = Workers(dataset, workers, pin=pin)

    def __len__(self) -> int:
        """Batches of an epoch; the remainder of the videos waits for the next shuffle."""
        return len(self.dataset) // (self.batch * self.world)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on; those before it are not decoded.

        Raises:
            UserError: more videos than `max_failures` allows cannot be read, or ten drawn in a row.
        """
        shuffled = self._shuffled(np.random.default_rng((self.dataset.seed, 0, epoch)))
        per_batch = self.batch * self.world
        order = [
            [(epoch, int(i)) for i in shuffled[b * per_batch + self.rank * self.batch :][: self.batch]]
            for b in range(start, len(self))
        ]
        for batch in self._workers.batches(order):
            self._check(batch)
            yield batch

    def end_epoch(self, gather: Callable[[Any], list[Any]]) -> None:
        """Join the failures of all processes, each of which calls it after an epoch; they stop together.

        Args:
            gather: gives every process's value, by rank.

        Raises:
            UserError: as `batches`, the same in every process.
        """
        self.failures = self._joined(gather)
        self._before &= self.failures.keys()
        self._check_limit()

    def state(self, gather: Callable[[Any], list[Any]]) -> dict[str, Any]:
        """What `resume` needs: each process calls it, with `gather` as in `end_epoch`."""
        return {"manifest": self.dataset.manifest.fingerprint, "failures": self._joined(gather)}

    def resume(self, state: dict[str, Any]) -> None:
        """Count the failures of the run so far, too, unless they are mended.

        Raises:
            UserError: the run so far was on other videos or classes.
        """
        manifest = self.dataset.manifest
        if state["manifest"] != manifest.fingerprint:
            raise UserError(
                f"{manifest.root / manifest.split}.csv or classes.txt lists other videos or classes than when"
                " the run began, or in another order: put them back, or start in another folder"
            )
        self.failures = dict(state["failures"])
        self._before = set(self.failures)

    def _joined(self, gather: Callable[[Any], list[Any]]) -> dict[str, str]:
        """The failures of all processes."""
        parts = gather((self.failures, self._before))
        nowhere_met = set.intersection(*(before for _, before in parts))
        return {
            name: why
            for failures, before in parts
            for name, why in failures.items()
            if name not in before or name in nowhere_met  # else another process knows better
        }

    def _shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """As many videos as there are, in the order of an epoch."""
        count = len(self.dataset)
        if not self.balanced:
            return rng.permutation(count)
        shown = [
            (number, place)
            for place, sample in enumerate(self.dataset.manifest.samples)
            for number in set(sample.classes)
        ]
        classes, places = np.array(shown).T
        of_class = [places[classes == number] for number in np.unique(classes)]
        drawn = np.resize(rng.permutation(len(of_class)), count)  # class after class, round and round
        order = np.empty(count, dtype=np.int64)
        for number, videos in enumerate(of_class):
            turns = np.flatnonzero(drawn == number)
            rounds = -(-len(turns) // len(videos))
            order[turns] = np.concatenate([rng.permutation(videos) for _ in range(rounds)])[: len(turns)]
        return rng.permutation(order)

    def _check(self, batch: Batch) -> None:
        for name in self._before.intersection(batch.names):
            self._before.discard(name)
            self.failures.pop(name, None)
        self._before -= batch.failures.keys()
        for name in batch.failures.keys() - self.failures.keys():
            _log.warning("%s; another video takes its place", batch.failures[name])
        self.failures.update(batch.failures)
        self._check_limit()
        if len(batch) < self.batch * self.dataset.num_clips:
            self._stop("with none between them that can")

    def _check_limit(self) -> None:
        share = self.max_failures * len(self.dataset)
        if len(self.failures) > (max(1, share) if share else 0):
            self._stop(f"more than data.max_failures={self.max_failures:g} allows; mend them or raise it")

    def _stop(self, why: str) -> NoReturn:
        failed = f"{len(self.failures)} of {len(self.dataset)} videos cannot be read"
        raise UserError("\n  ".join([f"{failed}, {why}; the first:", *list(self.failures.values())[:5]]))


def view_batches(
    dataset: ViewDataset, *, batch: int, rank: int = 0, world: int = 1, workers: int = 0, pin: bool = False
) -> Iterator[Batch]:
    """Every video of a test set once, in order: this process gets videos rank, rank + world, …"""
    mine = range(rank, len(dataset), world)
    order = [mine[first : first + batch] for first in range(0, len(mine), batch)]
    yield from Workers(dataset, workers, pin=pin).batches(order)


def default_workers(device: str) -> int:
    """Decoding processes for this process: one a core beside a GPU, beside a CPU half as many.

    On a CPU the network computes on the other half: threads that share a core with a decoder wait for each
    other and halve the speed.
    """
    cores = cores_per_process()
    return max(1, cores // 2 if device == "cpu" else cores)
