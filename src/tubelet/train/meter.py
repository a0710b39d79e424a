"""What a log line reports: means and speeds since the line before."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from tubelet.train.runtime import Runtime

T = TypeVar("T")


class Meter:
    """Sums values on the device, so that only a log line waits for it, and times the loader."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.restart()

    def restart(self) -> None:
        """Forget everything; the clock starts now."""
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._clips = 0
        self._waited = 0.0
        self._elapsed = 0.0
        self.resume()

    def pause(self) -> None:
        """Stop the clock, as between epochs; what was summed up stays."""
        self._elapsed += time.perf_counter() - self._started

    def resume(self) -> None:
        """The clock goes on."""
        self._started = time.perf_counter()

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with the time spent waiting for each counted as waiting for data."""
        iterator = iter(items)
        while True:
            asked = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - asked
            yield item

    def add(self, losses: dict[str, Tensor], clips: int) -> None:
        """Count one micro-batch of `clips` clips with its scalars."""
        for name, value in losses.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1
        self._clips += clips

    def read(self) -> dict[str, float]:
        """Means over micro-batches and processes, `clips_per_s` over all processes, `data_wait` (0 to 1).

        Starts anew; every process must call it.
        """
        self.pause()
        values = {name: total / self._count for name, total in self._sums.items()}
        speeds = {
            "clips_per_s": self._clips * self.runtime.world / self._elapsed,
            "data_wait": self._waited / self._elapsed,
        }
        device = self.runtime.device
        means = self.runtime.mean(values | {k: torch.tensor(v, device=device) for k, v in speeds.items()})
        self.restart()
        return means
