"""An exponential moving average of the weights (Polyak and Juditsky, 1992)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The average of a module's trainable parameters; an update makes it d * average + (1 - d) * weight.

    It is float32, on the parameters' devices; under FSDP2 each process averages its own shards. (PyTorch's
    `AveragedModel` copies the whole module, which is not possible with a sharded one.)

    Args:
        module: the module to average, on its device and already sharded if it is going to be.
        decay: d, 0 to 1; the average spans about the last 1 / (1 - d) steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._average = get_ema_multi_avg_fn(decay)
        self.weights = {name: weight.float().clone() for name, weight in _trainable(module).items()}

    def update(self, module: nn.Module) -> None:
        """Update the average with the current weights; call it after each optimizer step."""
        current = _trainable(module)
        averages = [_local(average) for average in self.weights.values()]
        self._average(averages, [_local(current[name]).float() for name in self.weights], 0)

    @contextmanager
    def swapped(self, module: nn.Module) -> Iterator[None]:
        """Give the module the averaged weights within the context, and its own ones back at the end."""
        parameters = _trainable(module)
        kept = {name: weight.clone() for name, weight in parameters.items()}
        try:
            _copy(self.weights, parameters)
            yield
        finally:
            _copy(kept, parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights on the CPU, not sharded; every process must call it."""
        return {
            name: (average.full_tensor() if isinstance(average, DTensor) else average).to("cpu", copy=True)
            for name, average in self.weights.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of `state_dict`, in every process, of any number of processes."""
        for name, average in self.weights.items():
            value = state[name].detach().to(average.device)
            if isinstance(average, DTensor):
                value = distribute_tensor(value, average.device_mesh, average.placements)
            average.copy_(value)


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}


def _local(tensor: Tensor) -> Tensor:
    """Return this process's shard, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        _local(tensor).copy_(_local(source[name]))
