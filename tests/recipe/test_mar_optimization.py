"""MAR's recipes train every parameter at the rate of MAR's code, computed here from its description.

In its code the rule of a parameter follows from its name, the first match wins; rates are a function of the
fractional epoch. The names are those of its checkpoints.
"""

import math
from dataclasses import replace

import pytest

from tubelet.checkpoints.families.mar import MAR
from tubelet.checkpoints.tables import Constant
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig
from tubelet.recipe.loading import load_recipe
from tubelet.recipe.schema import FinetuneRecipe
from tubelet.run.finetuning import make_task
from tubelet.run.new_classifier import make_classifier
from tubelet.tasks.classify import ClassifyTask
from tubelet.train.optim import learning_rate, make_optimizer, set_lr

STEPS = 7  # of an epoch

# Absolute peak rate, epochs and layer decay of MAR's configurations; floor and start are 1e-6, the warm-up
# takes 5 epochs and the weight decay is 0.05.
CONFIGURATIONS = {
    "mar/finetune_k400_base_50": (1e-3, 100, 0.65),
    "mar/finetune_ssv2_base_50": (1e-3, 40, 0.75),
}


def rate(peak: float, epochs: int, epoch: float) -> float:
    """Rate of a fractional epoch: a cosine over all epochs, and until epoch 5 a line to its value there."""

    def cosine(at: float) -> float:
        return 1e-6 + (peak - 1e-6) * 0.5 * (1 + math.cos(math.pi * at / epochs))

    return 1e-6 + (cosine(5) - 1e-6) * epoch / 5 if epoch < 5 else cosine(epoch)


def rule(name: str, decay: float, depth: int) -> tuple[float, float]:
    """Factor of the rate and weight decay of a parameter."""
    is_bias = name.endswith("bias")
    if "norm" in name:
        return 1.0, 0.0
    if "head" in name:
        return 1.0, 0.0 if is_bias else 0.05
    if name.startswith("backbone.blocks.") and not is_bias:
        return decay ** (depth - int(name.split(".")[2])), 0.05
    if name in ("backbone.patch_embed.proj.weight", "mask_token"):
        return decay ** (depth + 1), 0.05
    return 1.0, 0.0 if is_bias else 0.05


def narrow(recipe: FinetuneRecipe) -> tuple[FinetuneRecipe, ClassifyTask]:
    """The recipe's task with a model of the true depth, but narrow."""
    encoder = EncoderConfig(frames=4, image_size=32, dim=16, heads=2, mlp_dim=16)
    decoder = DecoderConfig(dim=16, depth=4, heads=2, mlp_dim=16)
    start = MaskedAutoencoder(AutoencoderConfig(encoder=encoder, decoder=decoder))
    assert isinstance(recipe.head, BridgingHeadConfig)
    recipe = replace(recipe, head=replace(recipe.head, dim=16, heads=2, mlp_dim=16))
    return recipe, make_task(recipe, make_classifier(recipe, start, 5))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_parameter_has_mars_rate_and_decay_at_every_stage(name: str):
    peak, epochs, decay = CONFIGURATIONS[name]
    loaded = load_recipe(name)
    assert isinstance(loaded, FinetuneRecipe)
    recipe, task = narrow(loaded)
    optimizer = make_optimizer(task, recipe.optim)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(task.model.named_parameters())
    entries = [entry for entry in MAR().table(task.model.config) if not isinstance(entry, Constant)]
    assert {entry.ours for entry in entries} == parameters.keys()
    total = epochs * STEPS
    for step in (0, 5 * STEPS, total // 2, 3 * total // 4, total - 1):
        set_lr(optimizer, learning_rate(recipe.optim, step, total, 5 * STEPS))
        for entry in entries:
            theirs = entry.theirs[0] if isinstance(entry.theirs, tuple) else entry.theirs
            assert isinstance(entry.ours, str)
            parameter = parameters[entry.ours]
            factor, weight_decay = rule(theirs, decay, depth=12)
            group = groups[id(parameter)]
            assert group["lr"] == pytest.approx(factor * rate(peak, epochs, step / STEPS), rel=1e-9), theirs
            assert group["weight_decay"] == weight_decay, theirs


def test_the_peak_is_below_the_configured_rate():
    # As measured with MAR's code on Something-Something: 0.9620 of the rate at the end of the warm-up.
    recipe = load_recipe("mar/finetune_ssv2_base_50")
    assert learning_rate(recipe.optim, 5 * STEPS, 40 * STEPS, 5 * STEPS) == pytest.approx(9.6198e-4, rel=1e-4)
