"""What the loop trains: a task, and what it declares to the optimizer and to the parallel engine."""

from collections.abc import Sequence

from torch import nn


class Task(nn.Module):
    """A module whose forward(batch) returns scalar tensors by name; the one to minimize is "loss".

    What it declares has defaults: no blocks, weight decay on all matrices, one layer.
    """

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The modules that are compiled one by one and are FSDP2's shards."""
        return ()

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Prepare for an epoch, 0 to epochs - 1; the loop calls it before the epoch's first batch."""

    @property
    def num_layers(self) -> int:
        """The number of layers of layer-wise learning-rate decay."""
        return 1

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter, 0 (input) to num_layers - 1."""
        return 0

    def learned_tokens(self) -> set[str]:
        """Return the names of learned tokens and positions, for which the optimizer has other rules."""
        return set()
