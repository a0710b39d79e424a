"""Building a pre-training run from its recipe."""

from pathlib import Path

from tubelet.checkpoints.load import load_model
from tubelet.data.manifest import read_manifest
from tubelet.errors import UserError
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.layers import checkpoint_activations
from tubelet.recipe.schema import PretrainRecipe
from tubelet.run.building import Training, make_loader, model_errors, provenance, require_useful_masking
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
    manifest = read_manifest(recipe.data.root, recipe.data.train)
    with model_errors():
        model = MaskedAutoencoder(recipe.model)
        require_useful_masking(recipe.masking, model.grid)
    if recipe.init and not begun:
        _load_init(model, recipe.init)
    model.card = ModelCard(clip=recipe.data.clip, provenance=provenance(recipe))
    if recipe.runtime.recompute:
        checkpoint_activations(model)
    loader = make_loader(recipe, manifest, model.config.encoder, runtime, "model.encoder.frames")
    return Training(task=PretrainTask(model, recipe.masking), loader=loader)


def _load_init(model: MaskedAutoencoder, init: str) -> None:
    """Copy the weights of another autoencoder of the same architecture."""
    start = load_model(init)
    if not isinstance(start, MaskedAutoencoder) or start.config != model.config:
        changed = "\n  ".join(difference(to_plain(start.config), to_plain(model.config)))
        raise UserError(
            f"init={init} has another architecture than the recipe (init -> recipe):\n  {changed}"
        )
    model.load_state_dict(start.state_dict())
