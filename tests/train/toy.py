"""A task and a loader small enough to check by hand, and a program that trains them in other processes.

`python -m tests.train.toy '[{"folder": "...", ...}, ...]'` does one run after another, in one process or
under torchrun.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.errors import UserError
from tubelet.machine import exit_process
from tubelet.train.checkpoint import CheckpointStore, SaveConfig
from tubelet.train.loggers import MEASURED, JsonLines, LogConfig, Logs
from tubelet.train.loop import TrainingInterrupted, fit
from tubelet.train.optim import OptimConfig
from tubelet.train.runtime import Runtime, RuntimeConfig
from tubelet.train.task import Task

ROOT = Path(__file__).parents[2]


@dataclass
class ToyBatch:
    x: Tensor
    y: Tensor
    names: list[str]

    def to(self, device: torch.device) -> "ToyBatch":
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def record_stream(self, stream: Any) -> None:
        for tensor in (self.x, self.y):
            tensor.record_stream(stream)

    def __len__(self) -> int:
        return len(self.names)


class Block(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(F.gelu(self.linear(x)))


class ToyTask(Task):
    """Regression of a number from four; the names of its parts are a transformer's."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.token = nn.Parameter(torch.randn(1, 6))
            self.embed = nn.Linear(4, 6)
            self.stack = nn.ModuleList(Block(dropout) for _ in range(3))
            self.norm = nn.LayerNorm(6)
            self.head = nn.Linear(6, 1)

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        error = self.predict(batch.x) - batch.y
        return {"loss": error.square().mean(), "error": error.abs().mean()}

    def predict(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.token
        for block in self.stack:
            x = block(x)
        out: Tensor = self.head(self.norm(x))[:, 0]
        return out

    def learned_tokens(self) -> set[str]:
        return {"token"}

    def layer_of(self, name: str) -> int:
        part = name.split(".")
        return {"token": 0, "embed": 0, "stack": int(part[1]) + 1 if part[0] == "stack" else 0}.get(
            part[0], 4
        )

    @property
    def num_layers(self) -> int:
        return 5

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.stack)


def item(index: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(4, generator=torch.Generator().manual_seed(index)) * (1 + index % 3)
    return x, x.square().mean() / 4


class ToyLoader:
    """Micro-batch m of rank r is the r-th slice of the m-th global batch, so that worlds can be compared.

    Args:
        poison: number of an item that is not finite.
        kill: (epoch, micro-batch, signal, rank) at which the process signals itself.
    """

    def __init__(
        self,
        videos: int = 26,
        micro: int = 4,
        rank: int = 0,
        world: int = 1,
        poison: int | None = None,
        kill: tuple[int, int, int, int] | None = None,
    ) -> None:
        self.videos, self.micro, self.rank, self.world = videos, micro, rank, world
        self.poison, self.kill = poison, kill
        self.asked: list[tuple[int, int]] = []
        self.resumed: dict[str, str] = {}

    def __len__(self) -> int:
        return self.videos // (self.micro * self.world)

    def batches(self, epoch: int, start: int = 0) -> Iterator[ToyBatch]:
        order = torch.randperm(self.videos, generator=torch.Generator().manual_seed(epoch)).tolist()
        for position in range(start, len(self)):
            if self.kill is not None and self.kill[:2] == (epoch, position) and self.kill[3] == self.rank:
                signal.raise_signal(self.kill[2])  # in this thread, so at this batch
            self.asked.append((epoch, position))
            first = (position * self.world + self.rank) * self.micro
            indices = order[first : first + self.micro]
            xs, ys = zip(*(item(index) for index in indices), strict=True)
            x = torch.stack(xs)
            x[[index == self.poison for index in indices]] = torch.nan
            yield ToyBatch(x, torch.stack(ys), [f"videos/{index}.mp4" for index in indices])

    def end_epoch(self, gather: Callable[[Any], list[Any]]) -> None:
        """Nothing to join."""

    def state(self, gather: Callable[[Any], list[Any]]) -> dict[str, str]:
        """What every process has asked for so far."""
        return {str(rank): repr(asked) for rank, asked in enumerate(gather(self.asked))}

    def resume(self, state: dict[str, str]) -> None:
        self.resumed = state


def validate(task: nn.Module) -> dict[str, float]:
    assert isinstance(task, ToyTask)
    assert not task.training
    xs, ys = zip(*(item(index) for index in range(100, 110)), strict=True)
    return {"top1": -float((task.predict(torch.stack(xs)) - torch.stack(ys)).square().mean())}


OPTIM = OptimConfig(base_lr=0.32, batch_size=8, epochs=3, warmup_epochs=0.5, clip_grad=1.0, ema=0.8)


def train(folder: Path, runtime: Runtime | None = None, **options: Any) -> dict[str, float]:
    """Run `fit`; options are those of OptimConfig, SaveConfig, ToyLoader, ToyTask and fit."""
    if runtime is None:
        precision = options.pop("precision", "fp32")
        with Runtime(RuntimeConfig(device="cpu", precision=precision)) as runtime:
            return train(folder, runtime, **options)

    def take(*names: str) -> dict[str, Any]:
        return {name: options.pop(name) for name in names if name in options}

    config = replace(OPTIM, **take(*OptimConfig.__dataclass_fields__))
    loader = ToyLoader(rank=runtime.rank, world=runtime.world, **take("videos", "micro", "poison", "kill"))
    task = ToyTask(**take("dropout"))
    with Logs(*[JsonLines(folder / "log.jsonl")] if runtime.is_main else []) as logs:
        save = SaveConfig(**take("every_epochs", "every_seconds"))
        settings: dict[str, Any] = {"seed": 7, "validate": validate} | options
        store, log = settings.pop("store", CheckpointStore(folder)), LogConfig(every_steps=1)
        return fit(task, loader, config, runtime, store, logs=logs, save=save, log=log, **settings)


def log_lines(folder: Path) -> list[dict[str, float]]:
    """The log without what depends on the clock and the machine."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in lines]


def launch(runs: list[dict[str, Any]], processes: int = 1) -> "subprocess.CompletedProcess[str]":
    """Do the runs in another process, or in more than one under torchrun."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with TemporaryDirectory() as logs:  # else torchrun leaves its own log folder
        launcher = [*torchrun, "--log-dir", logs] if processes > 1 else []
        command = [sys.executable, *launcher, "-m", "tests.train.toy", json.dumps(runs)]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600, check=False
        )


def main(runs: list[dict[str, Any]]) -> None:
    with Runtime(RuntimeConfig(device="cpu", precision="fp32", threads=1)) as runtime:
        for options in runs:
            runtime.config = RuntimeConfig(
                device="cpu", precision="fp32", parallel=options.pop("parallel", "ddp")
            )
            options["kill"] = tuple(options["kill"]) if "kill" in options else None
            try:
                train(Path(options.pop("folder")), runtime, **options)
            except (
                TrainingInterrupted,
                UserError,
            ) as stopped:  # one write each, or the lines of two processes mix
                sys.stdout.write(f"rank {runtime.rank}: {stopped}\n")
                sys.stdout.flush()
            runtime.barrier()


SIGTERM, SIGKILL = int(signal.SIGTERM), int(signal.SIGKILL)

if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    exit_process(0)
