"""Saving and resuming: complete files, in one format for any number of processes."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

from tubelet.errors import UserError, plural, require_at_least
from tubelet.files import replacing, write_json
from tubelet.train.ema import WeightAverage

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
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    saved = {name: tensor.shape for name, tensor in state["model"].items()}
    if differing := sorted(name for name in shapes | saved if shapes.get(name) != saved.get(name)):
        raise UserError(
            f"the checkpoint is of another model: {plural(len(differing), 'tensor')} with other names or "
            f"shapes, such as {differing[0]}; resume with the checkpoint's recipe, or start in another folder"
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
    """

    def __init__(self, folder: Path, export: Export | None = None) -> None:
        self.folder = folder
        self.export = export

    @property
    def last(self) -> Path:
        """The file to resume from."""
        return self.folder / "last.pt"

    def save_last(self, state: dict[str, Any]) -> None:
        """Write the shareable model, then `last.pt`; `state` contains that of `full_state`.

        Raises:
            UserError: the disk is full or the folder cannot be written; the previous `last.pt` is intact.
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
            UserError: the file is damaged.
        """
        if not self.last.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.last, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{self.last} is damaged and cannot be resumed ({type(error).__name__}): remove it to start "
                "again in this folder, or start in another folder"
            ) from error
        return state

    @contextmanager
    def _writing(self, folder: Path) -> Iterator[None]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise UserError(
                f"cannot write to {folder}: {error}. Files written before are intact: free space or repair "
                "the folder, then run the same command again"
            ) from error


def _save(value: Any, path: Path) -> None:
    with replacing(path) as temporary:
        try:
            with temporary.open("wb") as file:  # given a path, torch.save does not report the system's error
                torch.save(value, file)
        except RuntimeError as error:  # torch.save's error for a failed write
            raise (error.__context__ if isinstance(error.__context__, OSError) else OSError(error)) from error
