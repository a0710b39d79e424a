import json
import resource
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.toy import OPTIM, ToyBatch, ToyTask
from tubelet.errors import UserError
from tubelet.train.checkpoint import CheckpointStore, Progress, full_state, full_weights, restore
from tubelet.train.ema import WeightAverage
from tubelet.train.optim import make_optimizer


def trained(seed: int) -> tuple[ToyTask, torch.optim.Optimizer, WeightAverage]:
    task = ToyTask()
    optimizer, average = make_optimizer(task, OPTIM), WeightAverage(task, 0.5)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        x = torch.randn(3, 4, generator=generator)
        task(ToyBatch(x, x[:, 0], [])).pop("loss").backward()
        optimizer.step()
        average.update(task)
        optimizer.zero_grad()
    return task, optimizer, average


def equal(first: object, second: object) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return first == second


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    """Writes that would make a file larger than `size` bytes fail, as those on a full disk do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_state_goes_through_a_file_bit_for_bit(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "new" / "run")
    assert store.load_last() is None
    task, optimizer, average = trained(0)
    store.save_last(full_state(task, optimizer, average) | {"progress": {"step": 2}})
    loaded = store.load_last()
    assert loaded is not None
    assert loaded["progress"] == {"step": 2}

    other, other_optimizer, other_average = trained(1)
    restore(loaded, other, other_optimizer, other_average)
    expected, actual = full_state(task, optimizer, average), full_state(other, other_optimizer, other_average)
    assert equal(actual, expected)
    assert [group["lr_scale"] for group in other_optimizer.param_groups] == [1.0, 1.0]


def test_a_fresh_optimizer_takes_a_state() -> None:
    task, optimizer, average = trained(0)
    state = full_state(task, optimizer, average)
    fresh = ToyTask()
    fresh_optimizer = make_optimizer(fresh, OPTIM)
    restore(state, fresh, fresh_optimizer)
    assert equal(full_state(fresh, fresh_optimizer)["optimizer"], state["optimizer"])


def test_an_average_that_was_not_saved_starts_from_the_weights() -> None:
    task, optimizer, _ = trained(0)
    state = full_state(task, optimizer)
    _, _, average = trained(1)
    restore(state, task, optimizer, average)
    assert torch.equal(average.weights["head.weight"], task.head.weight)
    assert not any(weight.requires_grad for weight in average.weights.values())


def test_a_parameter_without_gradient_does_not_stop_a_resume() -> None:
    task = ToyTask()
    optimizer = make_optimizer(task, OPTIM)
    task.head.weight.grad = torch.ones_like(task.head.weight)
    optimizer.step()
    state = full_state(task, optimizer)
    fresh = ToyTask()
    restore(state, fresh, make_optimizer(fresh, OPTIM))
    assert torch.equal(fresh.head.weight, task.head.weight)


def test_another_model_is_refused() -> None:
    task, optimizer, _ = trained(0)
    state = full_state(task, optimizer)
    del state["model"]["head.weight"]
    with pytest.raises(UserError, match=r"another model: 1 tensor .*head\.weight"):
        restore(state, task, optimizer)


def test_weights_of_another_type_are_refused() -> None:
    task, optimizer, average = trained(0)
    state = full_state(task, optimizer, average)
    state["model"]["head.weight"] = state["model"]["head.weight"].half()
    with pytest.raises(UserError, match=r"another model: 1 tensor .* such as head\.weight"):
        restore(state, *trained(1))


def test_the_export_gets_averaged_weights(tmp_path: Path) -> None:
    exported: dict[Path, dict[str, Tensor]] = {}
    store = CheckpointStore(tmp_path, export=exported.__setitem__)
    task, optimizer, average = trained(0)
    store.save_last(full_state(task, optimizer, average))
    assert exported[tmp_path].keys() == task.state_dict().keys()
    assert torch.equal(exported[tmp_path]["head.weight"], average.weights["head.weight"])
    with average.swapped(task):
        store.save_best(full_weights(task), {"top1": 0.5})
        assert equal(exported[tmp_path / "best"], exported[tmp_path])
    assert json.loads((tmp_path / "best" / "metrics.json").read_text()) == {"top1": 0.5}


def test_the_best_without_an_export(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save_best(full_weights(ToyTask()), {"top1": 0.5})
    loaded = torch.load(tmp_path / "best" / "weights.pt", weights_only=True)
    assert equal(dict(loaded), dict(ToyTask().state_dict()))


@pytest.mark.parametrize("size", [100, 50_000])
def test_a_full_disk_leaves_the_former_checkpoint(tmp_path: Path, size: int) -> None:
    store = CheckpointStore(tmp_path)
    store.save_last({"model": {"x": torch.ones(3)}})
    with (
        disk_full_after(size),
        pytest.raises(UserError, match=r"cannot write to .*File too large.*intact"),
    ):
        store.save_last({"model": {"x": torch.ones(100_000)}})
    loaded = store.load_last()
    assert loaded is not None
    assert torch.equal(loaded["model"]["x"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="cannot write to"):
        CheckpointStore(tmp_path / "run").save_last({"model": {}})


def test_an_error_of_the_export_is_not_a_full_disk(tmp_path: Path) -> None:
    def export(folder: Path, weights: dict[str, Tensor]) -> None:
        raise RuntimeError("a shape that does not fit")

    store = CheckpointStore(tmp_path, export)
    with pytest.raises(RuntimeError, match=r"^a shape that does not fit$"):
        store.save_last({"model": {}})
    with pytest.raises(RuntimeError, match=r"^a shape that does not fit$"):
        store.save_best({}, {"top1": 0.5})


def test_a_file_with_one_flipped_bit_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save_last(run_state())
    whole = store.last.read_bytes()
    rng = np.random.default_rng(0)
    positions = [*rng.integers(8 * len(whole), size=200), *range(8 * len(whole) - 128, 8 * len(whole))]
    for position in positions:
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        store.last.write_bytes(damaged)
        with pytest.raises(UserError, match=r"last\.pt is damaged .*remove it to start again"):
            store.load_last()
    store.last.write_bytes(whole)
    assert equal(store.load_last(), run_state())


def test_a_file_cut_short_or_with_more_behind_it_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save_last(run_state())
    whole = store.last.read_bytes()
    for content in (b"", whole[:7], whole[:200], whole[: len(whole) // 2], whole[:-1], whole + b"\n"):
        store.last.write_bytes(content)
        with pytest.raises(UserError, match=r"last\.pt is damaged"):
            store.load_last()
    store.last.unlink()
    store.last.mkdir()
    with pytest.raises(UserError, match=r"last\.pt cannot be read"):
        store.load_last()


def test_other_programs_read_the_file(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save_last(run_state())
    assert equal(torch.load(store.last, weights_only=True), run_state())
    assert zipfile.ZipFile(store.last).testzip() is None


def run_state() -> dict[str, Any]:
    """All that a run with averaged weights saves."""
    progress = asdict(Progress(steps_per_epoch=1, step=2, epoch=2, metrics={"loss": 0.5}))
    return full_state(*trained(0)) | {"loader": {"manifest": "abc"}, "progress": progress}


@pytest.mark.slow
def test_a_file_without_a_part_or_with_another_one_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    x = torch.ones(3)
    weight = ("optimizer", "state", "head.weight")
    for reason, path, value in (
        *((part, (part,), None) for part in ("model", "optimizer", "loader", "progress", "ema")),
        *((part, (part,), 3) for part in ("model", "optimizer", "loader", "progress", "ema")),
        *((part, (part,), [x]) for part in ("model", "optimizer", "loader", "progress", "ema")),
        ("more", ("more",), 3),
        ("model", ("model", "head.weight"), "x"),
        ("optimizer", ("model", "head.weight"), None),
        ("head.weight", ("model", "head.weight"), x),
        ("ema", ("ema",), {}),
        ("ema", ("ema", "head.weight"), x),
        ("ema", ("ema", "head.weight"), None),
        ("state", ("optimizer", "state"), None),
        ("moments", ("optimizer", "state"), {}),
        ("param_groups", ("optimizer", "param_groups"), None),
        ("optimizer", ("optimizer", "param_groups"), []),
        ("params", ("optimizer", "param_groups"), [{"lr": 1.0}]),
        ("optimizer", ("optimizer", "param_groups"), [{"params": [3]}]),
        ("maximize", ("optimizer", "param_groups", 0, "maximize"), {"x": 1}),
        ("betas", ("optimizer", "param_groups", 1, "betas"), [1, "x"]),
        ("lr_scale", ("optimizer", "param_groups", 0, "lr_scale"), "x"),
        ("head.weight", weight, 3),
        ("exp_avg", (*weight, "exp_avg"), None),
        ("exp_avg_sq", (*weight, "exp_avg_sq"), x),
        ("step", (*weight, "step"), 2),
        ("optimizer", ("optimizer", "state", "other"), {"step": x[0], "exp_avg": x, "exp_avg_sq": x}),
        ("progress.step", ("progress", "step"), "two"),
        ("progress.steps_per_epoch", ("progress", "steps_per_epoch"), None),
        ("progress.metrics", ("progress", "metrics"), [1]),
        ("progress.other", ("progress", "other"), 1),
        ("step", ("progress", "step"), -1),
        ("step", ("progress", "step"), 1),  # less than the finished epochs have
        ("step", ("progress", "step"), 4),
        ("epoch", ("progress", "epoch"), -1),
        ("steps_per_epoch", ("progress", "steps_per_epoch"), 0),
        ("validated_on", ("progress", "validated_on"), "x"),  # or best/ would be selected again
        ("exp_avg", (*weight, "exp_avg"), torch.ones(1, 6, dtype=torch.int8)),
    ):
        state = deepcopy(run_state())
        inner: Any = state
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        if value is None:
            del inner[path[-1]]
        store.save_last(state)
        with pytest.raises(UserError, match=r"last\.pt is damaged or is not a Tubelet checkpoint") as error:
            store.load_run(averaged=True)
        assert reason in str(error.value), (path, value)
    contents: list[Any] = [[], {}, x, None, "text", {"model": run_state()["model"]}]
    for content in contents:
        torch.save(content, store.last)
        with pytest.raises(UserError, match=r"last\.pt is damaged or is not a Tubelet checkpoint"):
            store.load_run(averaged=True)


def test_a_whole_state_is_loaded_with_its_progress(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.load_run(averaged=True) is None
    store.save_last(run_state())
    loaded = store.load_run(averaged=True)
    assert loaded is not None
    assert loaded["progress"] == Progress(steps_per_epoch=1, step=2, epoch=2, metrics={"loss": 0.5})
    assert equal(loaded["optimizer"], run_state()["optimizer"])


def test_nothing_is_written_once_the_folder_is_another_one(tmp_path: Path) -> None:
    in_place = [True]
    store = CheckpointStore(tmp_path / "run", is_in_place=lambda: in_place[0])
    store.save_last(run_state())
    shutil.rmtree(store.folder)
    in_place[0] = False
    for write in (
        lambda: store.save_last(run_state()),
        lambda: store.save_best({}, {}),
        store.require_in_place,
    ):
        with pytest.raises(UserError, match=r"run was deleted, moved or replaced during the run"):
            write()
    assert not store.folder.exists()
