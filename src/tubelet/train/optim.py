"""The optimizer, its parameter groups and the learning rate of every step."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tubelet.errors import UserError, require_above, require_at_least, require_below_1, require_between
from tubelet.train.task import Task


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the weights are updated, and for how long.

    Attributes:
        algorithm: `adamw`, or `sgd` with momentum for linear probes; SGD adds weight decay to the gradient.
        base_lr: peak learning rate for a batch of 256; the rate used is base_lr * batch_size / 256.
        batch_size: videos in one optimizer step, over all processes and micro-batches.
        epochs: passes over the training videos.
        warmup_epochs: epochs (may be a fraction) of linear warm-up from warmup_lr to the peak.
        min_lr: learning rate after the last step, scaled like base_lr.
        warmup_lr: learning rate of the first step of the warm-up, scaled like base_lr.
        schedule: how the rate falls after the warm-up: `cosine` is half a cosine over the steps after it;
            `cosine_from_start` is half a cosine over all steps, and the warm-up rises to its value at the end
            of the warm-up, below the peak (MAR).
        weight_decay: decoupled weight decay; not applied to biases, norms and other vectors.
        decay_tokens: whether weight decay also applies to learned tokens and positions, as in MAR (its mask
            token), in MAE-ST's pre-training and in PySlowFast's fine-tuning.
        betas: AdamW's two averaging factors in [0, 1), of the gradient and of its square.
        eps: AdamW's epsilon.
        momentum: SGD's factor on the earlier steps, in (0, 1).
        layer_decay: factor of the learning rate from each layer to the one below; 1 disables it and is
            required in pre-training.
        layer_decay_scope: what layer_decay applies to: `all`, or as in MAR only `matrices`, in which biases
            and norms train at the full rate, and learned tokens, other than the head's, at the rate of the
            embedding.
        clip_grad: largest L2 norm of the whole gradient; null does not clip.
        accumulate: micro-batches in one optimizer step.
        ema: decay per step of the moving average of the weights; null keeps none.
    """

    algorithm: Literal["adamw", "sgd"] = "adamw"
    base_lr: float
    batch_size: int = 64
    epochs: int = 1
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    warmup_lr: float = 0.0
    schedule: Literal["cosine", "cosine_from_start"] = "cosine"
    weight_decay: float = 0.05
    decay_tokens: bool = False
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    momentum: float = 0.9
    layer_decay: float = 1.0
    layer_decay_scope: Literal["all", "matrices"] = "all"
    clip_grad: float | None = None
    accumulate: int = 1
    ema: float | None = None

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size, epochs=self.epochs, accumulate=self.accumulate)
        require_at_least(0, base_lr=self.base_lr, min_lr=self.min_lr, warmup_lr=self.warmup_lr)
        if self.min_lr > self.base_lr:
            raise UserError(f"min_lr must be at most base_lr={self.base_lr:g}, found {self.min_lr:g}")
        require_at_least(0, weight_decay=self.weight_decay, eps=self.eps)
        require_above(0, layer_decay=self.layer_decay, clip_grad=self.clip_grad)
        require_between(0, 1, layer_decay=self.layer_decay)
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UserError(f"warmup_epochs must be in [0, epochs={self.epochs}], found {self.warmup_epochs}")
        if not 0 < self.momentum < 1:
            raise UserError(f"momentum must be in (0, 1), found {self.momentum}")
        for beta in self.betas:
            require_below_1(betas=beta)
        require_below_1(ema=self.ema)


def scaled_lr(base_lr: float, batch_size: int) -> float:
    """Return the rate for `batch_size` from one for 256, by the linear scaling rule (arXiv 1706.02677)."""
    return base_lr * batch_size / 256


def learning_rate(config: OptimConfig, step: int, total_steps: int, warmup_steps: int) -> float:
    """Return the rate of a step (from 0): linear warm-up, then half a cosine (arXiv 1608.03983).

    It is the scaled `warmup_lr` at step 0, that of `cosine` is the peak at step `warmup_steps`, and it would
    be the scaled `min_lr` at step `total_steps`.
    """
    peak, floor, start = (
        scaled_lr(lr, config.batch_size) for lr in (config.base_lr, config.min_lr, config.warmup_lr)
    )
    cosine_start = warmup_steps if config.schedule == "cosine" else 0

    def cosine(at: int) -> float:
        progress = min(1.0, (at - cosine_start) / max(1, total_steps - cosine_start))
        return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2

    if step < warmup_steps:
        return start + (cosine(warmup_steps) - start) * step / warmup_steps
    return cosine(step)


def parameter_groups(task: Task, config: OptimConfig) -> list[dict[str, Any]]:
    """Return the trainable parameters as the optimizer's groups, one per rate scale and weight decay.

    Vectors and scalars are not decayed, nor are the names in `task.learned_tokens()` unless `decay_tokens`.
    With `layer_decay` the rate of a parameter is scaled by layer_decay ** (num_layers - 1 - layer), as in
    BEiT (arXiv 2106.08254).

    Raises:
        ValueError: layer_decay is not 1 and the task has only one layer.
    """
    if config.layer_decay != 1 and task.num_layers == 1:
        raise ValueError(
            f"layer_decay={config.layer_decay} needs layers, {type(task).__name__}.num_layers is 1"
        )
    tokens = task.learned_tokens()
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in task.named_parameters():
        if not parameter.requires_grad:
            continue
        is_vector, is_token = parameter.ndim <= 1, name in tokens
        layer = task.layer_of(name)
        if config.layer_decay_scope == "matrices":
            below = is_token and ".head." not in name
            layer = task.num_layers - 1 if is_vector else 0 if below else layer
        scale = float(config.layer_decay ** (task.num_layers - 1 - layer))
        is_decayed = not is_vector and (config.decay_tokens or not is_token)
        decay = config.weight_decay if is_decayed else 0.0
        group = groups.setdefault((scale, decay), {"params": [], "lr_scale": scale, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def make_optimizer(task: Task, config: OptimConfig) -> torch.optim.Optimizer:
    """Return AdamW (arXiv 1711.05101) or SGD over the task's groups; every group keeps its `lr_scale`."""
    groups = parameter_groups(task, config)
    if not groups:
        raise UserError("nothing to train: every parameter of the model is frozen")
    optimizer: torch.optim.Optimizer
    if config.algorithm == "sgd":
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=config.momentum)
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)
    set_lr(optimizer, scaled_lr(config.base_lr, config.batch_size))
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every group to `lr` times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
