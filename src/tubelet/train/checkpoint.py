"""Saving and resuming: complete files, in one format for any number of processes."""

import math
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from tubelet.errors import UserError, excerpt, plural, require_at_least
from tubelet.files import ChecksumWriter, checksum_matches, replacing, write_errors, write_json
from tubelet.settings import parse
from tubelet.train.ema import WeightAverage
from tubelet.train.loss_scale import LossScale

Weights = dict[str, Tensor]
Export = Callable[[Path, Weights], None]

_WHOLE_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When to save.

    Attributes:
        every_epochs: epochs between checkpoints, which are also the epochs between validations.
        every_seconds: longest time between checkpoints within an epoch, in seconds.
    """

    every_epochs: int = 1
    every_seconds: float = 300.0

    def __post_init__(self) -> None:
        require_at_least(1, every_epochs=self.every_epochs)
        require_at_least(0, every_seconds=self.every_seconds)


@dataclass(kw_only=True)
class Progress:
    """How far a run is; saved with the weights.

    Attributes:
        steps_per_epoch: optimizer steps in an epoch.
        step: finished optimizer steps.
        epoch: finished epochs, validation included.
        best: best validation score so far.
        validated_on: identifies the videos of the validation that `best` is from: a fingerprint of 64
            hexadecimal digits, or nothing.
        metrics: the newest value of everything logged.
        loss_scale: the factor on the loss, in fp16.
    """

    steps_per_epoch: int
    step: int = 0
    epoch: int = 0
    best: float = -math.inf
    validated_on: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    loss_scale: LossScale = field(default_factory=LossScale)

    def __post_init__(self) -> None:
        require_at_least(1, steps_per_epoch=self.steps_per_epoch)
        require_at_least(0, step=self.step, epoch=self.epoch)
        # All steps of an epoch may be finished, and its validation not.
        first, last = (number * self.steps_per_epoch for number in (self.epoch, self.epoch + 1))
        if not first <= self.step <= last:
            raise UserError(
                f"step must be between {first} and {last} after {self.epoch} epochs, found {self.step}"
            )
        if not re.fullmatch(r"([0-9a-f]{64})?", self.validated_on):
            raise UserError("validated_on is not a fingerprint of 64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """The optimizer's part of a checkpoint.

    Attributes:
        state: the moments and the step count of each parameter that had a gradient, by name.
        param_groups: the settings of each group and, as `params`, the names of its parameters.
    """

    state: dict[str, dict[str, Tensor]]
    param_groups: list[dict[str, Any]]

    def __post_init__(self) -> None:
        if not all(isinstance(group.get("params"), list) for group in self.param_groups):
            raise UserError("a group has no list params")
        for group in self.param_groups:
            for name, setting in group.items():
                values = setting if isinstance(setting, list | tuple) and setting else (setting,)
                if name != "params" and not all(isinstance(value, float | int | None) for value in values):
                    raise UserError(f"a group has a setting {excerpt(str(name))} that is not a number")

    @property
    def trained(self) -> set[str]:
        """The names of all parameters."""
        return {str(name) for group in self.param_groups for name in group["params"]}


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The content of `last.pt`; its parts must belong to the same model.

    Attributes:
        model: all weights and buffers.
        optimizer: its moments.
        ema: the averaged weights, if the run averages them.
        loader: what the loader needs to resume.
        progress: how far the run is.
    """

    model: Weights
    optimizer: OptimizerState
    ema: Weights | None = None
    loader: dict[str, Any]
    progress: Progress

    def __post_init__(self) -> None:
        moments, trained = self.optimizer.state, self.optimizer.trained
        shapes = _shapes(self.model)
        if not trained or not trained <= shapes.keys() or not moments.keys() <= trained:
            raise UserError("optimizer has other parameters than model")
        if self.progress.step and not moments:
            raise UserError("optimizer.state has no moments")
        for name, tensors in moments.items():
            if "momentum_buffer" in tensors:  # SGD
                expected = {"momentum_buffer": shapes[name]}
            else:
                expected = {"step": torch.Size(), "exp_avg": shapes[name], "exp_avg_sq": shapes[name]}
            _require_numbers(f"optimizer.state.{name}", tensors, expected)
        if self.ema is not None:
            _require_numbers("ema", self.ema, {name: shapes[name] for name in trained})


def _require_numbers(part: str, tensors: Weights, expected: Mapping[str, torch.Size]) -> None:
    """Raise an error unless these are the tensors, and of floating-point numbers."""
    differing = _differing(_shapes(tensors), expected)
    if differing := differing or [name for name in tensors if not tensors[name].is_floating_point()]:
        raise UserError(f"{part} has other tensors than expected: {differing[0]}")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _differing(first: Mapping[str, torch.Size], second: Mapping[str, torch.Size]) -> list[str]:
    """Return the names of the tensors that only one side has or that have different shapes."""
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


def full_weights(module: nn.Module) -> Weights:
    """Return all weights and buffers on the CPU, by name; in other processes than the main one, nothing.

    Every process must call it. On the CPU they share the module's memory: write them before they change.
    """
    return cast(Weights, get_model_state_dict(module, options=_WHOLE_ON_CPU))


def full_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, ema: WeightAverage | None = None
) -> dict[str, Any]:
    """Return `{"model", "optimizer"[, "ema"]}` as plain tensors, the same for any number of processes.

    Every process must call it; only the main one gets model and optimizer.
    """
    model, optim = get_state_dict(module, optimizer, options=_WHOLE_ON_CPU)
    state: dict[str, Any] = {"model": model, "optimizer": optim}
    return state if ema is None else state | {"ema": ema.state_dict()}


def restore(
    state: dict[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: WeightAverage | None = None,
) -> None:
    """Restore the result of `full_state`; every process calls it with the whole state.

    The optimizer's moments are restored, its settings stay those of the current configuration. An average
    that is not in the state starts from the restored weights.

    Raises:
        UserError: the state is of another model.
    """
    own: dict[str, Tensor] = module.state_dict()
    differing = _differing(_shapes(own), _shapes(state["model"]))
    differing = differing or [name for name in own if own[name].dtype != state["model"][name].dtype]
    if differing:
        raise UserError(
            f"the checkpoint is of another model: {plural(len(differing), 'tensor')} with other names, "
            f"shapes or types, such as {differing[0]}; resume with the checkpoint's recipe, or start in "
            "another folder"
        )
    set_model_state_dict(module, state["model"], options=StateDictOptions(full_state_dict=True))
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    # Not strict, as a trainable parameter without a gradient has no moments.
    options = StateDictOptions(full_state_dict=True, strict=False)
    set_optimizer_state_dict(module, optimizer, state["optimizer"], options=options)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    if ema is not None:
        ema.load_state_dict(dict(module.named_parameters()) | state.get("ema", {}))


class CheckpointStore:
    """The files of a run: `last.pt` to resume from, the shareable last model, and the best one in `best/`.

    Only the main process may write. A file has its name only once it is complete on the disk.

    Args:
        folder: the run's folder, created if it does not exist.
        export: `export(folder, weights)` writes the shareable model into a folder. Its weights are the
            averaged ones if the run has them, and it should replace files through `replacing`. Without it
            there is no shareable last model, and the best is `best/weights.pt`.
        is_in_place: returns whether the folder is still that of the run; once it is not, nothing is written.
    """

    def __init__(
        self,
        folder: Path,
        export: Export | None = None,
        is_in_place: Callable[[], bool] = lambda: True,
    ) -> None:
        self.folder = folder
        self.export = export
        self._is_in_place = is_in_place

    @property
    def last(self) -> Path:
        """The file to resume from."""
        return self.folder / "last.pt"

    def require_in_place(self) -> None:
        """Raise a UserError if the folder was deleted, moved or replaced by another one."""
        if not self._is_in_place():
            raise UserError(
                f"{self.folder} was deleted, moved or replaced during the run, which has stopped. Put it "
                "back and run the same command again to resume from its last checkpoint; without it the "
                "same command starts from the beginning"
            )

    def save_last(self, state: dict[str, Any]) -> None:
        """Write the shareable model, then `last.pt`; `state` contains that of `full_state`.

        Raises:
            UserError: the disk is full, or the folder cannot be written or was deleted; the previous
                `last.pt`, if it is still there, is intact.
        """
        with self._writing(self.folder):
            if self.export is not None:  # first, so that the model is never older than last.pt
                self.export(self.folder, {**state["model"], **state.get("ema", {})})
            _save(state, self.last)

    def save_best(self, weights: Weights, metrics: dict[str, float]) -> None:
        """Write the shareable model and its `metrics.json` into `best/`; errors are those of `save_last`."""
        folder = self.folder / "best"
        with self._writing(folder):
            if self.export is not None:
                self.export(folder, weights)
            else:
                _save(weights, folder / "weights.pt")
            write_json(folder / "metrics.json", metrics)

    def load_last(self) -> dict[str, Any] | None:
        """Return the state of `save_last`, on the CPU, or None without a checkpoint; every process reads it.

        Raises:
            UserError: the file cannot be read, or it is not as it was written.
        """
        if not self.last.exists():
            return None
        try:
            if not checksum_matches(self.last):
                raise self._damaged("its checksum does not match")
            state: dict[str, Any] = torch.load(self.last, map_location="cpu", weights_only=True)
        except OSError as error:
            raise UserError(f"{self.last} cannot be read: {error.strerror or error}") from error
        except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise self._damaged(type(error).__name__) from error
        return state

    def load_run(self, *, averaged: bool) -> dict[str, Any] | None:
        """Return the result of `load_last` if it is a `RunState`, with its progress as `Progress`.

        Args:
            averaged: whether the run averages its weights, so that its state has `ema`.

        Raises:
            UserError: the file cannot be read, is not as it was written or is not the state of such a run.
        """
        state = self.load_last()
        if state is None:
            return None
        try:
            run = parse(RunState, state, str(self.last))
        except UserError as error:
            raise self._damaged(excerpt(str(error).splitlines()[1].strip())) from None
        if averaged and run.ema is None:
            raise self._damaged("ema is missing")
        return state | {"progress": run.progress}

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"{self.last} is damaged or is not a Tubelet checkpoint, so the run cannot be resumed "
            f"({reason}): restore it from a copy, remove it to start again in this folder, or start in "
            "another folder"
        )

    @contextmanager
    def _writing(self, folder: Path) -> Iterator[None]:
        self.require_in_place()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            self.require_in_place()
            raise UserError(
                f"cannot write to {folder}: {error}. Files written before are intact: free space or repair "
                "the folder, then run the same command again"
            ) from error


def _save(value: Any, path: Path) -> None:
    with replacing(path) as temporary, write_errors(), ChecksumWriter(temporary) as file:
        torch.save(value, file)
        file.finish()
