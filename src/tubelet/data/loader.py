"""Make batches of data sets in worker processes, resumable at any batch."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from tubelet.data.dataset import Batch, TrainDataset
from tubelet.data.workers import Workers
from tubelet.errors import UserError
from tubelet.machine import cores_per_process

_log = logging.getLogger("tubelet")


class TrainLoader:
    """Shuffled batches of a training set: this process's part of them.

    Batch b of an epoch is the same set of videos for any number of processes; each process has its slice of
    it. Videos that could not be read are counted, and too many of them stop the run: within an epoch each
    process counts its own, and at its end all are counted together.

    Args:
        dataset: the items.
        batch: videos of a batch in this process.
        rank: this process, from 0.
        world: number of processes.
        workers: worker processes that decode; 0 decodes in this process.
        for_gpu: whether the model computes on a GPU; see `Workers`.
        max_failures: fraction of the videos that may fail to be read, in [0, 1]; unless 0, one always may.
        balanced: draw every class equally often, rare classes more than once an epoch, each time as one of
            the videos that show it; videos without a class are never drawn. By default each video is drawn
            once.
    """

    def __init__(
        self,
        dataset: TrainDataset,
        *,
        batch: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        for_gpu: bool = False,
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
        self._unconfirmed: set[str] = set()  # failures before a resume that were not met again so far
        self._workers = Workers(dataset, workers, for_gpu=for_gpu)

    def __len__(self) -> int:
        """Batches of an epoch; the remainder of the videos is left out."""
        return len(self.dataset) // (self.batch * self.world)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on; those before it are not decoded.

        Raises:
            UserError: more videos than `max_failures` allows cannot be read, or ten for one item.
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
        """Share failures between all processes, each of which calls this after an epoch.

        Args:
            gather: returns every process's value, by rank.

        Raises:
            UserError: more videos than `max_failures` allows cannot be read; raised in every process.
        """
        self.failures = self._joined(gather)
        self._unconfirmed &= self.failures.keys()
        self._check_limit()

    def state(self, gather: Callable[[Any], list[Any]]) -> dict[str, Any]:
        """Return what `resume` needs; each process calls it, with `gather` as in `end_epoch`."""
        return {"manifest": self.dataset.manifest.fingerprint, "failures": self._joined(gather)}

    def resume(self, state: dict[str, Any]) -> None:
        """Also count the failures of the run so far, until the videos can be read again.

        Raises:
            UserError: the run so far used other videos or classes, or it is not such a state.
        """
        manifest = self.dataset.manifest
        if not isinstance(state.get("manifest"), str) or not isinstance(state.get("failures"), dict):
            raise UserError(
                "the last checkpoint is damaged: its part loader does not identify the training list. "
                "Restore it from a copy, or start in another folder"
            )
        if state["manifest"] != manifest.fingerprint:
            raise UserError(
                f"{manifest.root / manifest.split}.csv or classes.txt lists other videos or classes than when"
                " the run began, or in another order: restore them, or start in another folder"
            )
        self.failures = dict(state["failures"])
        self._unconfirmed = set(self.failures)

    def _joined(self, gather: Callable[[Any], list[Any]]) -> dict[str, str]:
        """The failures of all processes."""
        parts = gather((self.failures, self._unconfirmed))
        unconfirmed_by_all = set.intersection(*(unconfirmed for _, unconfirmed in parts))
        return {
            name: reason
            for failures, unconfirmed in parts
            for name, reason in failures.items()
            if name not in unconfirmed or name in unconfirmed_by_all  # else another process has read it
        }

    def _shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """Return `len(dataset)` video numbers in the order of an epoch."""
        count = len(self.dataset)
        if not self.balanced:
            return rng.permutation(count)
        pairs = [
            (number, video)
            for video, sample in enumerate(self.dataset.manifest.samples)
            for number in set(sample.classes)
        ]
        classes, videos = np.array(pairs).T
        videos_of = [videos[classes == number] for number in np.unique(classes)]
        drawn = np.resize(rng.permutation(len(videos_of)), count)  # classes in turns
        order = np.empty(count, dtype=np.int64)
        for number, candidates in enumerate(videos_of):
            turns = np.flatnonzero(drawn == number)
            rounds = -(-len(turns) // len(candidates))
            order[turns] = np.concatenate([rng.permutation(candidates) for _ in range(rounds)])[: len(turns)]
        return rng.permutation(order)

    def _check(self, batch: Batch) -> None:
        for name in self._unconfirmed.intersection(batch.names):
            self._unconfirmed.discard(name)
            self.failures.pop(name, None)
        self._unconfirmed -= batch.failures.keys()
        for name in batch.failures.keys() - self.failures.keys():
            _log.warning("%s; another video replaces it", batch.failures[name])
        self.failures.update(batch.failures)
        self._check_limit()
        if len(batch) < self.batch * self.dataset.num_clips:
            self._stop("and no video between them can")

    def _check_limit(self) -> None:
        limit = self.max_failures * len(self.dataset)
        if len(self.failures) > (max(1, limit) if limit else 0):
            self._stop(f"more than data.max_failures={self.max_failures:g} allows: repair them or raise it")

    def _stop(self, reason: str) -> NoReturn:
        failed = f"{len(self.failures)} of {len(self.dataset)} videos cannot be read"
        raise UserError("\n  ".join([f"{failed}, {reason}. The first:", *list(self.failures.values())[:5]]))


def view_order(done: np.ndarray, *, batch: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """Return the numbers of the videos in each batch of a test, of this process.

    A batch has neighbors in the list. It does not depend on the number of processes or on which other batches
    are done, because results may depend on a batch's size in their last digits.

    Args:
        done: (N,) bool, the videos to leave out.
        batch: largest number of videos in a batch.
        rank: this process, from 0.
        world: number of processes.
    """
    blocks = [
        (first + np.flatnonzero(~done[first : first + batch])).tolist()
        for first in range(0, len(done), batch)
    ]
    return [block for block in blocks if block][rank::world]


def default_workers(device: str) -> int:
    """Return how many decoding processes to use: one for each core; without a GPU half of them, at least two.

    Without a GPU they run while the model's threads wait, so fewer are enough.
    """
    cores = cores_per_process()
    return min(cores, max(2, cores // 2)) if device == "cpu" else cores
