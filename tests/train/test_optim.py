import math

import pytest
import torch
from torch import nn

from tests.train.toy import ToyTask
from tubelet.errors import UserError
from tubelet.train.optim import (
    OptimConfig,
    learning_rate,
    make_optimizer,
    parameter_groups,
    scaled_lr,
    set_lr,
)
from tubelet.train.task import Task


class Linear(Task):
    """One matrix, which declares nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)


def test_linear_scaling() -> None:
    assert scaled_lr(1.5e-4, 1024) == pytest.approx(6e-4)
    assert scaled_lr(1e-3, 64) == pytest.approx(2.5e-4)


def test_learning_rate_by_hand() -> None:
    # 10 steps, 4 of them warm-up from 0.2 to 1; the cosine takes the 6 others from 1 towards 0.1
    config = OptimConfig(base_lr=1.0, min_lr=0.1, warmup_lr=0.2, batch_size=256)
    rates = [learning_rate(config, step, 10, 4) for step in range(11)]
    half = math.sqrt(3) / 2
    cosine = [
        1.0,
        0.1 + 0.45 * (1 + half),
        0.1 + 0.45 * 1.5,
        0.55,
        0.1 + 0.45 * 0.5,
        0.1 + 0.45 * (1 - half),
        0.1,
    ]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, *cosine])


def test_learning_rate_without_warmup_and_with_nothing_else() -> None:
    config = OptimConfig(base_lr=1.0, batch_size=256)
    assert learning_rate(config, 0, 10, 0) == 1.0
    assert [learning_rate(config, step, 4, 4) for step in range(4)] == [0.0, 0.25, 0.5, 0.75]


def test_a_cosine_from_the_start_by_hand() -> None:
    # 6 steps of one half cosine from 1 towards 0; at step 2 it is 0.75, to which the warm-up rises from 0.25
    config = OptimConfig(base_lr=2.0, warmup_lr=0.5, batch_size=128, schedule="cosine_from_start")
    rates = [learning_rate(config, step, 6, 2) for step in range(7)]
    half = math.sqrt(3) / 2
    assert rates == pytest.approx([0.25, 0.5, 0.75, 0.5, 0.25, 0.5 - half / 2, 0.0])


def test_vectors_and_listed_names_are_not_decayed() -> None:
    task = ToyTask()
    decayed, undecayed = sorted(
        parameter_groups(task, OptimConfig(base_lr=1.0, weight_decay=0.1)),
        key=lambda group: -group["weight_decay"],
    )
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {
        "embed.weight",
        "stack.0.linear.weight",
        "stack.1.linear.weight",
        "stack.2.linear.weight",
        "head.weight",
    }
    assert len(decayed["params"]) + len(undecayed["params"]) == len(names)


def test_layer_decay_scales_from_the_head_down() -> None:
    task = ToyTask()
    config = OptimConfig(base_lr=1.0, weight_decay=0.1, layer_decay=0.5)
    groups = parameter_groups(task, config)
    assert len(groups) == 10  # five layers, decayed and not
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    expected = {"embed": 0.5**4, "stack.0.linear": 0.5**3, "stack.2.linear": 0.5, "norm": 1.0, "head": 1.0}
    for name, value in expected.items():
        assert scale[id(task.get_parameter(f"{name}.weight"))] == value
    with pytest.raises(ValueError, match="num_layers"):
        parameter_groups(Linear(), config)


def test_layer_decay_may_be_for_matrices_only_and_decay_for_tokens_too() -> None:
    task = ToyTask()
    config = OptimConfig(
        base_lr=1.0, weight_decay=0.1, layer_decay=0.5, layer_decay_scope="matrices", decay_tokens=True
    )
    rules = {
        id(p): (group["lr_scale"], group["weight_decay"])
        for group in parameter_groups(task, config)
        for p in group["params"]
    }
    expected = {
        "token": (0.5**4, 0.1), "embed.weight": (0.5**4, 0.1), "stack.2.linear.weight": (0.5, 0.1),
        "head.weight": (1, 0.1), "embed.bias": (1, 0), "stack.0.linear.bias": (1, 0), "norm.weight": (1, 0),
    }  # fmt: skip
    for name, rule in expected.items():
        assert rules[id(task.get_parameter(name))] == rule, name


def test_frozen_parameters_are_left_out() -> None:
    task = ToyTask().requires_grad_(False)
    with pytest.raises(UserError, match="nothing to train"):
        make_optimizer(task, OptimConfig(base_lr=1.0))
    task.head.requires_grad_(True)
    assert (
        sum(
            len(group["params"])
            for group in parameter_groups(task, OptimConfig(base_lr=1.0, weight_decay=0.1))
        )
        == 2
    )


def test_set_lr_applies_the_scale() -> None:
    config = OptimConfig(base_lr=1.0, batch_size=128, layer_decay=0.5, betas=(0.9, 0.999))
    optimizer = make_optimizer(ToyTask(), config)
    assert max(group["lr"] for group in optimizer.param_groups) == 0.5
    set_lr(optimizer, 2.0)
    assert {group["lr"] for group in optimizer.param_groups} == {2.0 * 0.5**i for i in range(5)}
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_two_steps_are_sgd_with_momentum_by_hand() -> None:
    task = Linear()
    nn.init.constant_(task.linear.weight, 2.0)
    config = OptimConfig(base_lr=0.1, batch_size=256, weight_decay=0.5, algorithm="sgd", momentum=0.9)
    optimizer = make_optimizer(task, config)
    weight, average = 2.0, 0.0
    for _ in range(2):
        optimizer.zero_grad()
        task.linear(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        gradient = 1 + 0.5 * weight
        average = gradient if not average else 0.9 * average + gradient
        weight -= 0.1 * average
    assert task.linear.weight.item() == pytest.approx(weight)


def test_a_step_is_adamw_by_hand() -> None:
    task = Linear()
    linear = task.linear
    nn.init.constant_(linear.weight, 2.0)
    optimizer = make_optimizer(task, OptimConfig(base_lr=0.1, batch_size=256, weight_decay=0.5))
    linear(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert linear.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1)  # decay, then one unit of sign


@pytest.mark.parametrize(
    "wrong",
    [
        {"accumulate": 0},
        {"epochs": 0},
        {"warmup_epochs": 2.0},
        {"ema": 1.0},
        {"clip_grad": 0.0},
        {"min_lr": -1e-6},
        {"min_lr": 1.1},
        {"warmup_lr": -1e-6},
        {"weight_decay": -1.0},
        {"betas": (0.9, 1.5)},
        {"betas": (-0.1, 0.9)},
        {"eps": -1.0},
        {"layer_decay": 0.0},
        {"momentum": 1.0},
    ],
)
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        OptimConfig(base_lr=1.0, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="base_lr must be at least 0, found -1"):
        OptimConfig(base_lr=-1)
