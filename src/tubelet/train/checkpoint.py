"""Saving and resuming: files that are whole or not there, in one format for any number of processes."""

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

from tubelet.errors import UserError
from tubelet.files import replacing
from tubelet.train.ema import WeightAverage

Weights = dict[str, Tensor]
Export = Callable[[Path, Weights], None]

_WHOLE_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)


def full_weights(module: nn.Module) -> Weights:
    """The weights and buffers by their plain names, whole and on the CPU; empty in all but the main process.

    Every process must call it. On the CPU they share the module's memory: write them before they change.
    """
    return cast(Weights, get_model_state_dict(module, options=_WHOLE_ON_CPU))


def full_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, ema: WeightAverage | None = None
) -> dict[str, Any]:
    """`{"model", "optimizer"[, "ema"]}` as plain tensors, the same whether one process or many trained it.

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
    """Put back what `full_state` gave; every process calls it with the whole state.

    The optimizer gets back its moments; its settings stay those of the present configuration. An average that
    the state does not have starts from the restored weights.

    Raises:
        UserError: when the state is of another model.
    """
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    saved = {name: tensor.shape for name, tensor in state["model"].items()}
    if differing := sorted(name for name in shapes | saved if shapes.get(name) != saved.get(name)):
        raise UserError(
            f"the checkpoint is of another model: {len(differing)} tensors differ in name or shape, "
            f"{differing[0]} among them; resume with the recipe it was made with, or start in another folder"
        )
    set_model_state_dict(module, state["model"], options=StateDictOptions(full_state_dict=True))
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    # Not strict: a trainable parameter that no loss reaches has no moments, and needs none.
    options = StateDictOptions(full_state_dict=True, strict=False)
    set_optimizer_state_dict(module, optimizer, state["optimizer"], options=options)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    if ema is not None:
        ema.load_state_dict(dict(module.named_parameters()) | state.get("ema", {}))


class CheckpointStore:
    """The files of a run: `last.pt` to resume from, the shareable last model, and the best one in `best/`.

    Only the main process may write. A file appears under its name only once it is complete on the disk.

    Args:
        folder: the run's folder, made when missing.
        export: `export(folder, weights)` writes the shareable model into a folder. It gets the averaged
            weights where the run keeps them, and should replace files through `replacing`. Without it there
            is no shareable last model, and the best is `best/weights.pt`.
    """

    def __init__(self, folder: Path, export: Export | None = None) -> None:
        self.folder = folder
        self.export = export

    @property
    def last(self) -> Path:
        """The file to resume from."""
        return self.folder / "last.pt"

    def save_last(self, state: dict[str, Any]) -> None:
        """Write the shareable model, then `last.pt`; `state` is that of `full_state` and more.

        Raises:
            UserError: when the disk is full or the folder cannot be written; the former `last.pt` is intact.
        """
        with self._writing(self.folder):
            if self.export is not None:  # first: what last.pt says is done is there
                self.export(self.folder, {**state["model"], **state.get("ema", {})})
            _save(state, self.last)

    def save_best(self, weights: Weights, metrics: dict[str, float]) -> None:
        """Write the shareable model and its `metrics.json` into `best/`; raises as `save_last` does."""
        folder = self.folder / "best"
        with self._writing(folder):
            if self.export is not None:
                self.export(folder, weights)
            else:
                _save(weights, folder / "weights.pt")
            with replacing(folder / "metrics.json") as path:
                path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")

    def load_last(self) -> dict[str, Any] | None:
        """What `save_last` wrote, on the CPU, or None when nothing was; every process reads it for itself.

        Raises:
            UserError: when the file is damaged.
        """
        if not self.last.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.last, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{self.last} is damaged and cannot be resumed from ({type(error).__name__}); remove it to "
                "start again in this folder, or start in another folder"
            ) from error
        return state

    @contextmanager
    def _writing(self, folder: Path) -> Iterator[None]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise UserError(
                f"cannot write to {folder}: {error}; files written before are intact: make room or mend the "
                "folder, then give the same command again to resume"
            ) from error


def _save(value: Any, path: Path) -> None:
    with replacing(path) as temporary:
        try:
            with temporary.open("wb") as file:  # of a path it would tell less of what went wrong
                torch.save(value, file)
        except RuntimeError as error:  # as it reports a failed write
            raise (error.__context__ if isinstance(error.__context__, OSError) else OSError(error)) from error
