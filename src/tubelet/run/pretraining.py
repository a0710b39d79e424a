"""Building a pre-training run from its recipe."""

from functools import partial
from pathlib import Path

from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.model_folder import Model
from tubelet.errors import Problems, UserError
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.layers import checkpoint_activations
from tubelet.recipe.schema import PretrainRecipe
from tubelet.run.building import (
    Training,
    make_loader,
    model_errors,
    provenance,
    read_training_list,
    require_useful_masking,
)
from tubelet.settings import difference, to_plain
from tubelet.tasks.pretrain import PretrainTask
from tubelet.train.runtime import Runtime


def build_pretraining(recipe: PretrainRecipe, runtime: Runtime, begun: Path | None = None) -> Training:
    """Build the model, its clips and its task.

    Args:
        recipe: what to train.
        runtime: the processes and the device.
        begun: the folder of this run if it resumes from a checkpoint, so `init` is not needed.

    Raises:
        UserError: the settings do not fit each other, the data set or `init`.
    """
    problems = Problems()
    manifest = problems.attempt(partial(read_training_list, recipe.data, labeled=recipe.data.balanced))
    start = problems.attempt(partial(load_model, recipe.init)) if recipe.init and not begun else None
    problems.raise_any()
    assert manifest is not None
    with model_errors():
        model = MaskedAutoencoder(recipe.model)
        require_useful_masking(recipe.masking, model.grid)
    if start is not None:
        _load_init(model, start, recipe)
    model.card = ModelCard(clip=recipe.data.clip, provenance=provenance(recipe))
    if recipe.runtime.recompute:
        checkpoint_activations(model)
    loader = make_loader(recipe, manifest, model.config.encoder, runtime, "model.encoder.frames")
    return Training(task=PretrainTask(model, recipe.masking), loader=loader)


def _load_init(model: MaskedAutoencoder, start: Model, recipe: PretrainRecipe) -> None:
    """Copy the weights of another autoencoder of the same architecture."""
    if not isinstance(start, MaskedAutoencoder):
        raise UserError(f"init={recipe.init} is a classifier: pre-training starts from an autoencoder")
    if start.config != model.config:
        changed = "\n  ".join(difference(to_plain(start.config), to_plain(model.config)))
        raise UserError(
            f"init={recipe.init} has another architecture than the recipe (init -> recipe):\n  {changed}"
        )
    model.load_state_dict(start.state_dict())
