"""The loop over a list of videos without training: each process computes the values of its share."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from tubelet.data.dataset import Batch, ViewDataset
from tubelet.data.loader import default_workers, view_order
from tubelet.data.manifest import Manifest
from tubelet.data.workers import Workers
from tubelet.results.stored import Results
from tubelet.run.inference import scored_batches
from tubelet.train.runtime import Runtime


@dataclass
class Share:
    """What one process notes besides the values: the time of its batches and the broken videos.

    Attributes:
        seconds_per_view: of each batch.
        broken: the videos that could not be read, with the reason.
        waited_s: seconds until the batches were there.
        elapsed_s: seconds in all.
    """

    seconds_per_view: list[float] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    waited_s: float = 0.0
    elapsed_s: float = 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, and count the time until each of them.

        The clock starts after the first batch, which waits for the worker processes to start.
        """
        started = asked = 0.0
        for number, batch in enumerate(batches):
            self.waited_s += time.perf_counter() - asked if number else 0
            yield batch
            asked = time.perf_counter()
            started = started or asked
            self.elapsed_s = asked - started


def compute_share(
    dataset: ViewDataset,
    results: Results,
    compute: Callable[[Batch], Tensor],
    runtime: Runtime,
    *,
    batch_size: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None = None,
    what: str = "probabilities",
) -> Share:
    """Add the values of this process's share of the videos to the results.

    Args:
        dataset: the videos with their views.
        results: those that are done are left out.
        compute: returns the values (videos, K) of a batch, on the CPU.
        runtime: the processes.
        batch_size: videos at a time in each process.
        workers: decoding processes of each process; None is one for each core, or half as many where the
            model computes on the CPU, too.
        progress: called with (finished videos, all videos) of this process in this call.
        what: the values are, for messages.

    Raises:
        UserError: values are not finite.
    """
    order = view_order(results.done, batch=batch_size, rank=runtime.rank, world=runtime.world)
    num_workers = default_workers(runtime.device.type) if workers is None else workers
    num_mine, num_finished, share = sum(map(len, order)), 0, Share()
    loader = Workers(dataset, num_workers, for_gpu=runtime.device.type == "cuda")
    for scored in scored_batches(share.timed(loader.batches(order)), compute, dataset.views.count, what):
        share.broken |= scored.failures
        if scored.num_views:
            share.seconds_per_view.append(scored.seconds / scored.num_views)
            results.add(scored.index.numpy(), scored.values.numpy())
        num_finished += len(scored.index) + len(scored.failures)
        if progress:
            progress(num_finished, num_mine)
    return share


def broken_videos(shares: Iterable[Share], manifest: Manifest) -> dict[str, str]:
    """Return the videos that could not be read in any share, with the reason, in the order of the list."""
    found = {name: reason for share in shares for name, reason in share.broken.items()}
    if not found:
        return {}
    return {sample.name: found[sample.name] for sample in manifest.samples if sample.name in found}
