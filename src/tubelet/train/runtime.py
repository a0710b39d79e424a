"""Devices, processes and precision: the only file that depends on the number of processes.

The same program runs as one process, under `torchrun` and under SLURM's `srun`.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from tubelet.errors import UserError, plural, require_between
from tubelet.machine import MAX_PROCESSES, cores_per_process, process_rank
from tubelet.train.task import Task


class Movable(Protocol):
    """Something that can be copied to a device while the device computes."""

    def to(self, device: torch.device) -> Self:
        """Return a copy on the device."""

    def record_stream(self, stream: Any) -> None:
        """Mark the memory as used by a CUDA stream."""


MovableT = TypeVar("MovableT", bound=Movable)
_groups = itertools.count()  # process groups that this process has joined


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Where and in what precision a model computes.

    Attributes:
        device: kind of device; `auto` is CUDA, else MPS (one process only), else the CPU.
        precision: type of the matrix products; `auto` is that of the protocol, else of the model's recipe
            (bf16 only on GPUs and CPUs that have it in hardware, fp16 only on GPUs), and fp32 if the model
            has no recipe.
        threads: CPU threads of each process; null is one for each core, or OMP_NUM_THREADS if that is less.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        require_between(1, MAX_PROCESSES, threads=self.threads)


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig(ComputeConfig):
    """Where and how training runs.

    Attributes:
        precision: type of the matrix products; `auto` is bf16 on GPUs and CPUs that have it in hardware, else
            fp32. With `fp16`, for GPUs without bf16, the loss is scaled so that gradients do not vanish.
            Weights, their averages and the optimizer's state are always fp32.
        parallel: how processes share the work: `ddp` copies the weights to each, `fsdp` shards them (FSDP2).
        compile: whether to compile the transformer blocks with `torch.compile`.
        recompute: whether to keep only the blocks' inputs for the backward pass and recompute the rest
            (activation checkpointing): a third more computing, a fraction of the memory.
    """

    parallel: Literal["ddp", "fsdp"] = "ddp"
    compile: bool = False
    recompute: bool = False


class Runtime:
    """The processes of a run and the device of this one, as a context manager.

    Entering it joins the process group of two or more processes (gloo on the CPU, NCCL on CUDA), leaving it
    destroys the group; a group that the program has joined before is used and kept. Methods that combine
    processes must be called by all of them.

    Args:
        config: where and how to compute.
        device: the device of this process; None is as `config` says.

    Attributes:
        rank: index of this process, 0 to world - 1.
        world: number of processes.
        local_rank: index of this process on its machine.
        device: the device of this process.
        is_main: whether this is rank 0, the process that writes and prints.

    Raises:
        UserError: the configured device or precision is not available.
    """

    def __init__(self, config: RuntimeConfig | None = None, device: torch.device | None = None) -> None:
        self.config = config or RuntimeConfig()
        self.rank, self.world, self.local_rank = process_rank()
        self.is_main = self.rank == 0
        self.device = device or choose_device(self.config.device)
        self.dtype = _dtype(self.config.precision, self.device)

    def __enter__(self) -> Self:
        self._threads = torch.get_num_threads()
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        elif self.device.type == "cpu":
            torch.set_num_threads(min(torch.get_num_threads(), cores_per_process()))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self._joined = self.world > 1 and not dist.is_initialized()
        if self._joined:
            os.environ.setdefault("MASTER_PORT", "29500")
            cuda = self.device.type == "cuda"
            store, _, _ = next(rendezvous("env://", self.rank, self.world))
            # Processes that torchrun restarts, and a second group of the same processes, must not read the
            # addresses that an earlier group left in the store.
            attempt = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}_{next(_groups)}"
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                store=PrefixStore(f"attempt_{attempt}", store),
                rank=self.rank,
                world_size=self.world,
                device_id=self.device if cuda else None,
            )
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._threads)
        if self._joined:
            dist.destroy_process_group()

    def prepare(self, task: Task) -> nn.Module:
        """Return the module to call in training: `task` on the device, compiled and parallel as configured.

        `task` itself stays usable: its parameters are trained, under their names without a wrapper's prefix.
        Its `blocks` are compiled one by one and are FSDP2's shards.
        All processes start from rank 0's weights.
        """
        task.to(self.device)
        if self.config.compile:
            for module in task.blocks or [task]:  # in place; blocks of the same shape share one compilation
                module.compile()
        if self.world == 1:
            return task
        if self.config.parallel == "ddp":
            return DistributedDataParallel(task, gradient_as_bucket_view=True)
        for tensor in [*task.parameters(), *task.buffers()]:
            dist.broadcast(tensor.data, src=0)
        mesh = init_device_mesh(self.device.type, (self.world,))
        for module in [*task.blocks, task]:
            fully_shard(module, mesh=mesh)
        return task

    def prefetch(self, batches: Iterator[MovableT]) -> Iterator[MovableT]:
        """Yield the batches on this process's device; on a GPU each is copied while the previous one is used.

        The copies run on a separate stream and need pinned memory to overlap with computation.
        """
        if self.device.type != "cuda":
            yield from (batch.to(self.device) for batch in batches)
            return
        copying, computing = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        ready: MovableT | None = None
        for batch in batches:
            with torch.cuda.stream(copying):
                copied = batch.to(self.device)
            if ready is not None:
                yield ready
            computing.wait_stream(copying)  # the copy must be complete before its first use
            copied.record_stream(computing)  # else `copying` could reuse its memory too early
            ready = copied
        if ready is not None:
            yield ready

    def autocast(self) -> torch.autocast:
        """Return the context of forward passes: bf16 or fp16 if configured, else without effect."""
        half = torch.float16 if self.dtype is torch.float16 else torch.bfloat16
        return torch.autocast(self.device.type, dtype=half, enabled=self.dtype is half)

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled in training, as in fp16."""
        return self.dtype is torch.float16

    @contextmanager
    def no_sync(self, model: nn.Module, skip: bool) -> Iterator[None]:
        """If `skip`, only add up gradients locally in this context; the next backward pass exchanges them."""
        if skip and isinstance(model, DistributedDataParallel):
            with model.no_sync():
                yield
        elif skip and isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(False)
            try:
                yield
            finally:
                model.set_requires_gradient_sync(True)
        else:
            yield

    @contextmanager
    def unsharded(self, model: nn.Module) -> Iterator[None]:
        """Hold all weights in each process within this context, so that any part of the model can be called.

        Only FSDP2 needs it, for validation: sharded parts can otherwise only be called through the root, and
        equally often in every process.
        """
        shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
        if isinstance(model, FSDPModule):
            # Private, as FSDP2 has no public way to choose the root before the first forward pass, which is
            # validation in a run that resumes after the last step of an epoch: a block would become the root.
            model._get_fsdp_state()._lazy_init()
        for shard in shards:
            shard.set_reshard_after_forward(False, recurse=False)
            shard.unshard()
        try:
            yield
        finally:
            for shard in shards:
                shard.reshard()
                shard.set_reshard_after_forward(shard is not model, recurse=False)

    def mean(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Return the means of scalars over processes, in one exchange; every process has the same names."""
        total = self.sum(torch.stack([value.detach().float().reshape(()) for value in values.values()]))
        return dict(zip(values, (total / self.world).tolist(), strict=True))

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over processes, on this process's device."""
        total = tensor.detach().to(self.device, copy=True)
        if self.world > 1:
            dist.all_reduce(total)
        return total

    def any(self, flag: bool | Tensor) -> bool:
        """Return whether the flag is set in any process."""
        return self.any_of(flag)[0]

    def any_of(self, *flags: bool | Tensor) -> list[bool]:
        """Return for each flag whether it is set in any process; one exchange, one device synchronization."""
        values = [torch.as_tensor(flag, device=self.device).reshape(()).to(torch.int32) for flag in flags]
        return [count > 0 for count in self.sum(torch.stack(values)).tolist()]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes (anything that can be pickled), by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def on_main(self, do: Callable[[], None]) -> None:
        """Call `do` in the main process while the others wait.

        Raises:
            UserError: `do` raised it; all processes raise it.
            OSError: `do` raised it; all processes raise it.
        """
        failure = None
        if self.is_main:
            try:
                do()
            except (UserError, OSError) as error:
                failure = error
        reported = self.gather(failure)[0]
        if reported is not None:
            raise failure or reported

    def peak_memory_gb(self) -> float:
        """Return the most memory that this process has used, in 10^9 bytes: of its GPU, else in all."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device) / 1e9
        if self.device.type == "mps":
            return torch.mps.driver_allocated_memory() / 1e9
        if sys.platform == "win32":
            return 0.0  # Python cannot ask Windows
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device that this process computes on.

    Args:
        device: a kind of device as in `RuntimeConfig`, or a certain GPU such as "cuda:1".

    Raises:
        UserError: this machine has no such device, or fewer GPUs than processes.
    """
    _, world, local_rank = process_rank()
    kind, _, number = str(device).partition(":")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = {"cuda": gpus > 0, "mps": torch.backends.mps.is_available() and world == 1, "cpu": True}
    if kind == "auto":
        kind = next(name for name, is_available in available.items() if is_available)
    is_certain = kind == "cuda" and number != ""
    if not available.get(kind) or (is_certain and number not in map(str, range(gpus))):
        found = ", ".join(name for name, is_available in available.items() if is_available)
        together = f" for {world} processes" if world > 1 else ""
        gpus_found = f" ({plural(gpus, 'GPU')})" if is_certain else ""
        raise UserError(f"device {device} is not available{together}: this machine has {found}{gpus_found}")
    if kind != "cuda":
        return torch.device(kind)
    if is_certain:
        return torch.device(kind, int(number))
    if gpus == 1 and "SLURM_GPUS_PER_TASK" in os.environ:
        local_rank = 0  # each task sees only its own GPU
    if local_rank >= gpus:
        raise UserError(
            f"more processes than GPUs on this machine: process {local_rank + 1} finds {gpus} GPU(s); "
            f"start with --nproc-per-node {gpus}, or use device=cpu"
        )
    return torch.device(kind, local_rank)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    fast = _has_bf16(device)
    if precision == "bf16" and not fast and device.type == "cuda":
        raise UserError(
            f"precision=bf16 is not available on {torch.cuda.get_device_name(device)}; use precision=fp16 or "
            "precision=fp32"
        )
    if precision == "fp16":
        return torch.float16
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and fast) else torch.float32


def _has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
