"""The training loop: one for every task, method and number of processes; read it from `fit` downwards."""

import hashlib
import math
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from types import FrameType, TracebackType
from typing import Any, NoReturn, Protocol, Self

import torch
from torch import Tensor, nn

from tubelet.errors import UserError
from tubelet.train.checkpoint import CheckpointStore, full_state, full_weights, restore
from tubelet.train.ema import WeightAverage
from tubelet.train.loggers import Logs, Meter
from tubelet.train.optim import OptimConfig, learning_rate, make_optimizer, scaled_lr, set_lr
from tubelet.train.runtime import Runtime

Validate = Callable[[nn.Module], dict[str, float]]


class Batch(Protocol):
    """What a loader yields; the task knows what is inside."""

    @property
    def names(self) -> list[str]:
        """The file of each clip, for error messages."""

    def to(self, device: torch.device) -> Self:
        """The batch on the device."""

    def record_stream(self, stream: Any) -> None:
        """Say that a CUDA stream uses its memory too."""

    def __len__(self) -> int:
        """Number of clips."""


class Loader(Protocol):
    """The micro-batches of this process."""

    def __len__(self) -> int:
        """Micro-batches in an epoch, equally many in every process."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Those of an epoch from position `start` on, always the same; the ones before are not decoded."""

    def end_epoch(self, gather: Callable[[Any], list[Any]]) -> None:
        """Called in every process after an epoch's steps; `gather` gives every process's value, by rank."""

    def state(self, gather: Callable[[Any], list[Any]]) -> dict[str, Any]:
        """What has to be known to go on from here beside the position; called in every process."""

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from such a state, or raise a UserError; called in every process, before any batch."""


@dataclass(kw_only=True)
class Progress:
    """How far a run has come; it is saved with the weights.

    Attributes:
        steps_per_epoch: optimizer steps in an epoch.
        step: optimizer steps done.
        epoch: epochs done, validation included.
        best: best validation score so far.
        metrics: the newest value of everything logged.
    """

    steps_per_epoch: int
    step: int = 0
    epoch: int = 0
    best: float = -math.inf
    metrics: dict[str, float] = field(default_factory=dict)


def fit(
    task: nn.Module,
    loader: Loader,
    config: OptimConfig,
    runtime: Runtime,
    store: CheckpointStore,
    *,
    logs: Logs,
    seed: int = 0,
    validate: Validate | None = None,
    validate_every: int = 1,
    save_every: int = 1,
    save_seconds: float = 300.0,
    log_every: int = 10,
    score: str = "top1",
) -> dict[str, float]:
    """Train `task` to the end of the schedule, from `store`'s last checkpoint if there is one.

    A resumed run takes exactly the steps an uninterrupted one would have; a finished one returns at once.

    Args:
        task: its forward(batch) returns scalar tensors by name, the one to minimise as "loss". It may offer
            `no_weight_decay`, `layer_of` and `layer_count` (see `parameter_groups`). It is moved and changed
            in place and holds the last weights, not the averaged ones, in the end.
        loader: the micro-batches; `config.accumulate` of them make a step, the rest of an epoch is dropped.
        config: optimizer and schedule.
        runtime: processes and device, entered.
        store: where checkpoints go.
        logs: where numbers go; only the main process uses it. The caller closes it.
        seed: of the randomness inside the task.
        validate: gets the task in evaluation mode, without gradients, under autocast, with the averaged
            weights if there are any; returns metrics, the same in every process.
        validate_every: epochs between validations; the last epoch always has one.
        save_every: epochs between checkpoints; the last epoch always has one.
        save_seconds: longest time between checkpoints, in seconds.
        log_every: optimizer steps between log lines.
        score: the validation metric that says which weights are best; higher is better.

    Returns:
        The newest value of everything logged; validation metrics are `val/NAME`, the best score `best/SCORE`.

    Raises:
        UserError: for a loss that is not finite, a full disk, a checkpoint that does not fit, too few videos.
        Interrupted: after SIGTERM or Ctrl-C, once the step in progress is done and saved.
    """
    # --- Model, optimizer, schedule ------------------------------------------------------------------------
    steps_per_epoch = _steps_per_epoch(loader, config)
    total_steps = config.epochs * steps_per_epoch
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    peak, floor, start = (
        scaled_lr(lr, config.batch_size) for lr in (config.base_lr, config.min_lr, config.warmup_lr)
    )
    model = runtime.prepare(task)  # called for training alone; parameters and names are the task's
    optimizer = make_optimizer(task, config)
    average = WeightAverage(task, config.ema) if config.ema is not None else None

    # --- Resume --------------------------------------------------------------------------------------------
    progress = Progress(steps_per_epoch=steps_per_epoch)
    if (state := store.load_last()) is not None:
        progress = _progress_of(state, steps_per_epoch)
        restore(state, task, optimizer, average)
        loader.resume(state["loader"])
        del state
    if progress.epoch >= config.epochs:
        return progress.metrics
    runtime.on_main(partial(logs.resume, progress.step))

    def save() -> None:
        _require_finite(task, runtime, progress.step)
        state = full_state(task, optimizer, average) | {"loader": loader.state(runtime.gather)}
        runtime.on_main(lambda: store.save_last(state | {"progress": asdict(progress)}))

    def log(values: dict[str, float]) -> None:
        progress.metrics |= values
        runtime.on_main(partial(logs.log, progress.step, values))

    # --- Train ---------------------------------------------------------------------------------------------
    meter = Meter(runtime)
    saved_at = time.monotonic()
    with CatchSignals() as signals:
        for epoch in range(progress.epoch, config.epochs):
            position = progress.step - epoch * steps_per_epoch  # above 0 only after an interruption
            task.train()
            meter.resume()
            batches = meter.waiting(runtime.prefetch(loader.batches(epoch, position * config.accumulate)))
            for _ in range(position, steps_per_epoch):
                # Gradients of one step
                lr = learning_rate(progress.step, total_steps, warmup_steps, peak, floor, start)
                names, losses = [], []
                for micro, batch in enumerate(islice(batches, config.accumulate)):
                    seed_step(seed, progress.step, micro, runtime.rank)
                    with runtime.no_sync(model, skip=micro < config.accumulate - 1):
                        with runtime.autocast():
                            output = model(batch)
                        (output["loss"] / config.accumulate).backward()
                    meter.add(output, clips=len(batch))
                    names.append(batch.names)
                    losses.append(output["loss"].detach().float())
                if len(losses) < config.accumulate:
                    raise RuntimeError(
                        f"the loader has fewer than its {len(loader)} batches in epoch {epoch}"
                    )
                gradients = [p.grad for p in task.parameters() if p.grad is not None]
                grad_norm = _whole(nn.utils.get_total_norm(gradients))

                # The only device synchronisation of a step: one exchange of flags, before any weight changes
                refused, stop, due = runtime.any_of(
                    ~torch.stack([*losses, grad_norm]).isfinite().all(),
                    signals.caught is not None,
                    time.monotonic() - saved_at > save_seconds,
                )
                if refused:
                    _refuse(runtime, progress.step, names, losses, grad_norm)

                # Update
                if config.clip_grad is not None:
                    nn.utils.clip_grads_with_norm_(task.parameters(), config.clip_grad, grad_norm)
                set_lr(optimizer, lr)
                optimizer.step()
                optimizer.zero_grad()
                if average is not None:
                    average.update(task)
                progress.step += 1

                if progress.step % log_every == 0 or progress.step == total_steps:
                    place = {"epoch": progress.step / steps_per_epoch}
                    log(place | meter.read() | {"lr": lr, "grad_norm": float(grad_norm)})
                if stop:
                    save()
                    _stop(runtime, progress.step, signals.caught)
                if due and progress.step < (epoch + 1) * steps_per_epoch:  # the end is saved after validation
                    save()
                    saved_at = time.monotonic()
            del batches  # lets the loader's workers go
            meter.pause()
            loader.end_epoch(runtime.gather)

            # Validate
            last_epoch = epoch + 1 == config.epochs
            if validate is not None and ((epoch + 1) % validate_every == 0 or last_epoch):
                task.eval()
                with average.swapped(task) if average is not None else nullcontext():
                    with runtime.unsharded(task), torch.no_grad(), runtime.autocast():
                        metrics = validate(task)
                    if score not in metrics:
                        raise UserError(
                            f"score={score} is not a validation metric; there are: {', '.join(metrics)}"
                        )
                    if runtime.any(metrics[score] > progress.best):
                        _require_finite(task, runtime, progress.step)
                        progress.best = metrics[score]
                        runtime.on_main(partial(store.save_best, full_weights(task), metrics))
                log({"epoch": epoch + 1.0} | {f"val/{name}": value for name, value in metrics.items()})
                progress.metrics[f"best/{score}"] = progress.best
            progress.epoch = epoch + 1

            # Save
            due, stop = runtime.any_of(
                progress.epoch % save_every == 0 or last_epoch or time.monotonic() - saved_at > save_seconds,
                signals.caught is not None,
            )
            if due or stop:
                save()
                saved_at = time.monotonic()
            if stop:
                _stop(runtime, progress.step, signals.caught)
    return progress.metrics


def _stop(runtime: Runtime, step: int, caught: int | None) -> NoReturn:
    """Leave the loop, in every process, after a signal to any of them."""
    interrupted = Interrupted(step, max(number or 0 for number in runtime.gather(caught)))
    if runtime.is_main:
        print(interrupted, file=sys.stderr, flush=True)
    raise interrupted


def _steps_per_epoch(loader: Loader, config: OptimConfig) -> int:
    steps = len(loader) // config.accumulate
    if steps == 0:
        raise UserError(
            f"too few videos for one step: each process has {len(loader)} micro-batches in an epoch, a "
            f"step of batch_size={config.batch_size} takes {config.accumulate}; add videos or lower it"
        )
    return steps


def _progress_of(state: dict[str, Any], steps_per_epoch: int) -> Progress:
    progress = Progress(**state["progress"])
    if progress.steps_per_epoch != steps_per_epoch:
        raise UserError(
            f"the checkpoint is of a run with {progress.steps_per_epoch} steps in an epoch, now there are "
            f"{steps_per_epoch}; resume with the same videos and batch_size, or start in another folder"
        )
    return progress


def _whole(value: Tensor) -> Tensor:
    """A scalar that FSDP2 left spread over the processes."""
    whole: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return whole


def _require_finite(task: nn.Module, runtime: Runtime, step: int) -> None:
    """Raise, in every process, where the last step has spoilt the weights; before the next, no loss tells."""
    mine = [p.to_local() if hasattr(p, "to_local") else p for p in task.parameters()]  # of FSDP2's shards
    if runtime.any(not all(bool(weight.isfinite().all()) for weight in mine)):
        raise UserError(
            f"after step {step} there are weights that are not finite. They were not saved and the last "
            "checkpoint is intact. Lower base_lr or set clip_grad"
        )


def _refuse(
    runtime: Runtime, step: int, names: list[list[str]], losses: list[Tensor], grad_norm: Tensor
) -> None:
    """Raise the error of a step that is not finite, in every process, naming the files that may cause it."""
    mine = [(float(loss), batch) for loss, batch in zip(losses, names, strict=True)]
    everyone = [pair for pairs in runtime.gather(mine) for pair in pairs]
    bad = [(loss, batch) for loss, batch in everyone if not math.isfinite(loss)]
    if bad:
        what = f"the loss is {bad[0][0]}"
    else:
        what = f"the loss is finite but its gradient has the norm {float(grad_norm)}"
    files = ", ".join(name for _, batch in bad or everyone for name in batch)
    raise UserError(
        f"step {step}: {what}, in a batch of {files}. The weights were not touched and the last checkpoint "
        "is intact. Look at these files, lower base_lr or set clip_grad"
    )


class Interrupted(SystemExit):
    """A run stopped by a signal after saving; the exit code is the shell's, 128 + signal.

    Attributes:
        step: optimizer steps done and saved.
    """

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)
        self.step = step
        self.name = signal.Signals(number).name

    def __str__(self) -> str:
        return f"stopped by {self.name} after step {self.step}; saved: give the same command again to go on"


class CatchSignals:
    """Within it SIGTERM and the first SIGINT only set `caught`; the former handlers come back at the end.

    A second SIGINT acts at once, as without it. Outside the main thread, where Python allows no handlers,
    it does nothing.

    Attributes:
        caught: number of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._former[number] = signal.signal(number, self._catch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.caught = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._former[signal.SIGINT])


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from whole numbers: equal for equal numbers, unrelated for any others.

    Neighbouring seeds must not give related streams, hence a hash (BLAKE2b) and not a sum.
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(numbers)}q", *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(seed: int, step: int, micro_batch: int, rank: int) -> None:
    """Seed the global generators of all devices for one forward pass.

    Drop path and dropout then depend on these four numbers alone: not on what was drawn before, so neither on
    validation nor on interruptions. Masks and mixes follow from the clips' own seeds.
    """
    torch.manual_seed(mixed_seed(seed, step, micro_batch, rank))
