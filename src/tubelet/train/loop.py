"""The training loop, the same for every task and number of processes; start reading at `fit`."""

import hashlib
import math
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from itertools import islice
from types import FrameType
from typing import Any, NoReturn, Protocol, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tubelet.errors import UserError
from tubelet.train.checkpoint import (
    CheckpointStore,
    Progress,
    SaveConfig,
    full_state,
    full_weights,
    restore,
)
from tubelet.train.ema import WeightAverage
from tubelet.train.loggers import LogConfig, Logs, Meter
from tubelet.train.optim import OptimConfig, learning_rate, make_optimizer, set_lr
from tubelet.train.runtime import Movable, Runtime
from tubelet.train.task import Task

Validate = Callable[[Task], dict[str, float]]
Gather = Callable[[Any], list[Any]]


class Batch(Movable, Protocol):
    """A batch of a loader; only the task knows its content."""

    @property
    def names(self) -> list[str]:
        """The file of each clip, for error messages."""

    def __len__(self) -> int:
        """Return the number of clips."""


class Loader(Protocol):
    """The micro-batches of this process."""

    def __len__(self) -> int:
        """Return the number of micro-batches in an epoch, the same in every process."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from index `start` on; the earlier ones are not decoded."""

    def end_epoch(self, gather: Gather) -> None:
        """Finish an epoch, in every process; `gather` returns the values of all processes, by rank."""

    def state(self, gather: Gather) -> dict[str, Any]:
        """Return what a resumed run needs beside the position; every process calls it."""

    def resume(self, state: dict[str, Any]) -> None:
        """Restore such a state or raise a UserError; every process calls it before the first batch."""


def fit(
    task: Task,
    loader: Loader,
    optim: OptimConfig,
    runtime: Runtime,
    store: CheckpointStore,
    *,
    logs: Logs,
    save: SaveConfig | None = None,
    log: LogConfig | None = None,
    seed: int = 0,
    validate: Validate | None = None,
    score: str = "top1",
    validated_on: str = "",
) -> dict[str, float]:
    """Train `task` to the end of the schedule, from `store`'s last checkpoint if there is one.

    A resumed run takes exactly the steps of an uninterrupted one; a finished run returns at once.

    Args:
        task: what to train. It is moved and changed in place and ends with the last weights, not the averaged
            ones.
        loader: the micro-batches; `optim.accumulate` of them are a step, the remainder of an epoch is
            dropped.
        optim: optimizer and schedule.
        runtime: processes and device, entered.
        store: where checkpoints are saved.
        logs: where numbers are logged, by the main process only. The caller closes it.
        save: when to save; there is a validation after each `every_epochs` and after the last epoch.
        log: when to log.
        seed: of the randomness inside the task.
        validate: is called with the task in evaluation mode, without gradients, under autocast, with averaged
            weights if there are any; returns metrics, the same in every process.
        score: the validation metric that selects the best weights; higher is better.
        validated_on: the fingerprint of the validation's videos and labels (`Progress.validated_on`); after
            a change of it scores cannot be compared, so the selection of the best weights starts again.

    Returns:
        The newest value of everything logged; validation metrics are `val/NAME`, the best score `best/SCORE`.

    Raises:
        UserError: the loss is not finite, the disk is full, the checkpoint does not fit, the run's folder is
            gone, or there are too few videos.
        TrainingInterrupted: after SIGTERM or Ctrl-C, once the current step is finished and saved.
    """
    save, log = save or SaveConfig(), log or LogConfig()
    # --- Model, optimizer, schedule ------------------------------------------------------------------------
    steps_per_epoch = _steps_per_epoch(loader, optim)
    total_steps = optim.epochs * steps_per_epoch
    warmup_steps = round(optim.warmup_epochs * steps_per_epoch)
    model = runtime.prepare(task)  # only called for training; parameters and their names are the task's
    optimizer = make_optimizer(task, optim)
    average = WeightAverage(task, optim.ema) if optim.ema is not None else None

    # --- Resume --------------------------------------------------------------------------------------------
    progress = Progress(steps_per_epoch=steps_per_epoch)
    if (state := store.load_run(averaged=average is not None)) is not None:
        progress = state["progress"]
        _require_same_steps(progress, steps_per_epoch, total_steps)
        restore(state, task, optimizer, average)
        loader.resume(state["loader"])
        del state
        if progress.validated_on != validated_on and progress.best > -math.inf:
            runtime.on_main(_report_other_validation)
            progress.best = -math.inf
    progress.validated_on = validated_on
    if progress.epoch >= optim.epochs:
        return progress.metrics
    if progress.step:
        runtime.on_main(partial(_report_resume, store, progress))
    runtime.on_main(partial(logs.resume, progress.step))

    def save_state(metrics: dict[str, float] | None = None) -> None:
        _require_finite(task, runtime, progress.step)
        state = full_state(task, optimizer, average) | {"loader": loader.state(runtime.gather)}
        runtime.on_main(lambda: store.save_last(state | {"progress": asdict(progress)}, metrics))

    def log_values(values: dict[str, float]) -> None:
        def write() -> None:
            store.require_in_place()
            logs.log(progress.step, values)

        progress.metrics |= values
        runtime.on_main(write)

    # --- Train ---------------------------------------------------------------------------------------------
    meter = Meter(runtime)
    saved_at = time.monotonic()
    with CatchSignals() as signals:
        for epoch in range(progress.epoch, optim.epochs):
            position = progress.step - epoch * steps_per_epoch  # above 0 only after an interruption
            task.train()
            task.start_epoch(epoch, optim.epochs)
            meter.resume()
            batches = meter.waiting(runtime.prefetch(loader.batches(epoch, position * optim.accumulate)))
            for _ in range(position, steps_per_epoch):
                # Gradients
                micro_batches = islice(batches, optim.accumulate)
                scale = progress.loss_scale.value if runtime.scales_loss else 1.0
                names, losses = _backward(
                    model, micro_batches, optim, runtime, meter, (seed, progress.step), scale
                )
                gradients = [p.grad for p in task.parameters() if p.grad is not None]
                if runtime.scales_loss:
                    for gradient in gradients:
                        gradient.div_(scale)
                grad_norm = _whole(nn.utils.get_total_norm(gradients))

                # The only device synchronization of a step: an exchange of flags, before any weight changes
                bad_loss, bad_gradient, stop, due = runtime.any_of(
                    ~torch.stack(losses).isfinite().all(),
                    ~grad_norm.isfinite(),
                    signals.caught is not None,
                    time.monotonic() - saved_at > save.every_seconds,
                )
                overflowed = bad_gradient and not bad_loss and runtime.scales_loss
                if bad_loss or (bad_gradient and not overflowed):
                    _refuse(runtime, progress.step, names, losses, grad_norm)

                # Update
                lr = learning_rate(optim, progress.step, total_steps, warmup_steps)
                if not overflowed:
                    if optim.clip_grad is not None:
                        nn.utils.clip_grads_with_norm_(task.parameters(), optim.clip_grad, grad_norm)
                    set_lr(optimizer, lr)
                    optimizer.step()
                    if average is not None:
                        average.update(task)
                optimizer.zero_grad()
                progress.step += 1
                if runtime.scales_loss:
                    progress.loss_scale.update(overflowed)

                # Log and save
                logs.advance(progress.step / steps_per_epoch)
                if progress.step % log.every_steps == 0 or progress.step == total_steps:
                    passed = {"epoch": progress.step / steps_per_epoch}
                    values = passed | meter.read() | {"lr": lr}
                    if not overflowed:
                        values["grad_norm"] = float(grad_norm)
                    if runtime.scales_loss:
                        values["loss_scale"] = progress.loss_scale.value
                    log_values(values | {"memory_gb": runtime.peak_memory_gb()})
                if stop:
                    save_state()
                    _stop(runtime, progress.step, signals.caught)
                if due and progress.step < (epoch + 1) * steps_per_epoch:  # else it is saved after validation
                    save_state()
                    saved_at = time.monotonic()
            del batches  # ends the loader's workers
            meter.pause()
            loader.end_epoch(runtime.gather)

            # Validate
            last_epoch, metrics = epoch + 1 == optim.epochs, None
            if validate is not None and ((epoch + 1) % save.every_epochs == 0 or last_epoch):
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
                log_values({"epoch": epoch + 1.0} | {f"val/{name}": value for name, value in metrics.items()})
                progress.metrics[f"best/{score}"] = progress.best
            progress.epoch = epoch + 1

            # Save
            due, stop = runtime.any_of(
                progress.epoch % save.every_epochs == 0
                or last_epoch
                or time.monotonic() - saved_at > save.every_seconds,
                signals.caught is not None,
            )
            if due or stop:
                save_state(metrics)
                saved_at = time.monotonic()
            if stop:
                _stop(runtime, progress.step, signals.caught)
    return progress.metrics


def _backward(
    model: nn.Module,
    batches: Iterator[Batch],
    optim: OptimConfig,
    runtime: Runtime,
    meter: Meter,
    seed_and_step: tuple[int, int],
    scale: float,
) -> tuple[list[list[str]], list[Tensor]]:
    """Compute the gradients of one step, times `scale`; returns each micro-batch's clips and loss."""
    names, losses = [], []
    for micro, batch in enumerate(batches):
        seed_step(*seed_and_step, micro, runtime.rank)
        with runtime.no_sync(model, skip=micro < optim.accumulate - 1):
            with runtime.autocast():
                output = model(batch)
            (output["loss"] / optim.accumulate * scale).backward()
        meter.add(output, clips=len(batch))
        names.append(batch.names)
        losses.append(output["loss"].detach().float())
    if len(losses) < optim.accumulate:
        raise RuntimeError(f"step {seed_and_step[1]}: the loader has fewer batches than its length")
    return names, losses


def _stop(runtime: Runtime, step: int, caught: int | None) -> NoReturn:
    """Raise `TrainingInterrupted` in every process, after a signal to any of them."""
    interrupted = TrainingInterrupted(step, max(number or 0 for number in runtime.gather(caught)))
    if runtime.is_main:
        print(interrupted, file=sys.stderr, flush=True)
    raise interrupted


def _steps_per_epoch(loader: Loader, optim: OptimConfig) -> int:
    steps = len(loader) // optim.accumulate
    if steps == 0:
        raise UserError(
            f"too few videos for one step: each process has {len(loader)} micro-batches in an epoch, a "
            f"step of batch_size={optim.batch_size} takes {optim.accumulate}; add videos or lower it"
        )
    return steps


def _report_resume(store: CheckpointStore, progress: Progress) -> None:
    epoch = progress.step / progress.steps_per_epoch
    print(f"resuming from {store.last} after step {progress.step} (epoch {epoch:.2f})", file=sys.stderr)


def _report_other_validation() -> None:
    print(
        "the validation list has other videos or labels than before, so its scores cannot be compared: the "
        "next validation starts best/ again",
        file=sys.stderr,
        flush=True,
    )


def _require_same_steps(progress: Progress, steps_per_epoch: int, total_steps: int) -> None:
    if progress.steps_per_epoch != steps_per_epoch:
        raise UserError(
            f"the checkpoint is of a run with {progress.steps_per_epoch} steps in an epoch, now there are "
            f"{steps_per_epoch}: resume with the same videos and batch_size, or start in another folder"
        )
    if progress.step > total_steps:
        raise UserError(
            f"the checkpoint is after step {progress.step} of a run with {total_steps} steps: it is "
            "damaged or of a longer run; resume with the same optim.epochs, or start in another folder"
        )


def _whole(value: Tensor) -> Tensor:
    """Return a scalar that FSDP2 may have left sharded over the processes."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _require_finite(task: nn.Module, runtime: Runtime, step: int) -> None:
    """Raise in every process if the last step made a weight infinite or NaN, which no loss has shown yet."""
    shards = [p.to_local() if isinstance(p, DTensor) else p for p in task.parameters()]
    if runtime.any(not all(bool(shard.isfinite().all()) for shard in shards)):
        raise UserError(
            f"after step {step} some weights are not finite. They were not saved and the last checkpoint is "
            "intact. Lower base_lr or set clip_grad"
        )


def _refuse(
    runtime: Runtime, step: int, names: list[list[str]], losses: list[Tensor], grad_norm: Tensor
) -> None:
    """Raise the error of a step that is not finite, in every process, with the files that may cause it."""
    own = [(float(loss), batch) for loss, batch in zip(losses, names, strict=True)]
    everyone = [pair for pairs in runtime.gather(own) for pair in pairs]
    bad = [(loss, batch) for loss, batch in everyone if not math.isfinite(loss)]
    if bad:
        problem = f"the loss is {bad[0][0]}"
    else:
        problem = f"the loss is finite but the norm of its gradient is {float(grad_norm)}"
    files = ", ".join(name for _, batch in bad or everyone for name in batch)
    raise UserError(
        f"step {step}: {problem}, in a batch of {files}. The weights were not changed and the last "
        "checkpoint is intact. Check these files, lower base_lr or set clip_grad"
    )


class TrainingInterrupted(SystemExit):
    """The exit of a run that was saved and stopped after a signal; the code is the shell's, 128 + signal.

    Attributes:
        step: finished and saved optimizer steps.
        name: the signal, such as SIGTERM.
    """

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)
        self.step = step
        self.name = signal.Signals(number).name

    def __str__(self) -> str:
        return f"stopped by {self.name} after step {self.step}; saved: run the same command again to resume"


class CatchSignals:
    """A context in which SIGTERM and the first SIGINT only set `caught`; it restores the handlers on exit.

    A second SIGINT acts at once. Outside the main thread, where Python allows no handlers, it does nothing.

    Attributes:
        caught: number of the received signal, or None.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._former[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.caught = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._former[signal.SIGINT])


def mixed_seed(*numbers: int) -> int:
    """Return a 63-bit seed: the same for the same numbers, unrelated for all others.

    Neighboring seeds must not give related streams, so it is a hash (BLAKE2b) and not a sum.
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(numbers)}q", *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(seed: int, step: int, micro_batch: int, rank: int) -> None:
    """Seed the global generators of all devices for one forward pass.

    Drop path and dropout then depend only on these four numbers, so neither on validation nor on
    interruptions. Masks and mixing follow from the clips' own seeds.
    """
    torch.manual_seed(mixed_seed(seed, step, micro_batch, rank))
