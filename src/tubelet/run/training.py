"""From a recipe to a trained model: the one place where models, data and the loop are joined."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tubelet.checkpoints.load import CONFIG, Model, load_model, read_architecture, write_model
from tubelet.clips import Views
from tubelet.data.dataset import TrainDataset
from tubelet.data.loader import TrainLoader, default_workers
from tubelet.data.manifest import Manifest, read_manifest
from tubelet.errors import UserError, plural
from tubelet.files import exclusive, replacing
from tubelet.machine import version
from tubelet.masking import AnyMasking
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import LinearHeadConfig
from tubelet.models.layers import checkpoint_activations
from tubelet.models.resize import resize_model
from tubelet.models.target import PixelTarget
from tubelet.patches import Size3
from tubelet.recipe.loading import load_recipe, to_yaml
from tubelet.recipe.schema import FinetuneRecipe, PretrainRecipe, Recipe
from tubelet.run.evaluation import evaluate, require_frames
from tubelet.settings import difference, to_plain
from tubelet.tasks.classify import ClassifyTask
from tubelet.tasks.pretrain import PretrainTask
from tubelet.train.checkpoint import CheckpointStore, Weights
from tubelet.train.loggers import Console, JsonLines, Logs, TensorBoard
from tubelet.train.loop import fit
from tubelet.train.runtime import Runtime


def run_recipe(recipe: Recipe, out: Path | str) -> dict[str, float]:
    """Run a recipe to its end, from where it stopped if it was begun in `out` before.

    Writes into `out`: `recipe.yaml`, `log.jsonl`, `last.pt` to resume from, the model (`model.safetensors`,
    `config.json`) and, where there is validation, the best one in `best/`.

    Returns:
        The newest value of everything logged.

    Raises:
        UserError: something the user can mend, such as a folder that holds another recipe's run.
    """
    out = Path(out)
    with Runtime(recipe.runtime) as runtime, ExitStack() as stack:
        runtime.on_main(lambda: check_folder(out, recipe))
        torch.manual_seed(recipe.seed)
        manifest = read_manifest(recipe.data.root, recipe.data.train)
        validation = None
        if isinstance(recipe, FinetuneRecipe) and recipe.data.val:
            try:
                validation = read_manifest(recipe.data.root, recipe.data.val)
            except UserError as error:
                reason = str(error).rstrip(".")
                raise UserError(f"{reason}. To fine-tune without validation: data.val=null") from None
            validation.require_labels()
            if validation.multi_label and not manifest.multi_label:
                raise UserError(
                    f"{validation.root}: videos of {validation.split}.csv show several classes, those of "
                    f"{manifest.split}.csv one each: the lists must be of one kind"
                )
        model = make_model(recipe, manifest, begun=out if (out / "last.pt").is_file() else None)
        loader = make_loader(recipe, manifest, model.config.encoder, runtime)
        task = make_task(recipe, model)
        runtime.on_main(lambda: stack.enter_context(claim(out, recipe)))
        store = CheckpointStore(out, export=lambda folder, weights: export_model(folder, model, weights))

        def validate(task: nn.Module) -> dict[str, float]:
            assert isinstance(recipe, FinetuneRecipe)
            assert isinstance(task, ClassifyTask)
            assert validation
            outcome = evaluate(
                task.model,
                validation,
                clip=recipe.data.clip,
                views=Views(),
                runtime=runtime,
                workers=recipe.data.workers,
            )
            broken = {"broken": float(len(outcome.broken))} if outcome.broken else {}
            return outcome.metrics() | broken

        try:
            with Logs(*make_loggers(recipe, out, runtime)) as logs:
                metrics = fit(
                    task,
                    loader,
                    recipe.optim,
                    runtime,
                    store,
                    logs=logs,
                    seed=recipe.seed,
                    validate=validate if validation else None,
                    validate_every=recipe.save.every_epochs,
                    save_every=recipe.save.every_epochs,
                    save_seconds=recipe.save.every_seconds,
                    log_every=recipe.save.log_steps,
                    score="mAP" if manifest.multi_label else "top1",
                )
        finally:  # a run that stops for them, too
            if runtime.is_main and loader.failures:
                write_failures(loader.failures, out)
        if runtime.is_main and loader.failures:
            videos = plural(len(loader.failures), "video")
            were = "was" if len(loader.failures) == 1 else "were"
            print(f"{videos} could not be read and {were} replaced: see {out / 'failures.json'}")
        elif runtime.is_main:
            (out / "failures.json").unlink(missing_ok=True)
    return metrics


def make_model(recipe: Recipe, manifest: Manifest, begun: Path | None = None) -> Model:
    """The model that a recipe trains, with its first weights: from `init`, else random.

    Args:
        recipe: what to train.
        manifest: what to train on.
        begun: folder of this recipe's run, where it goes on from a checkpoint: the architecture is that of
            the model there, and `init` is not needed again.

    Raises:
        UserError: the settings of the model do not fit each other, the data set or `init`.
    """
    own = read_architecture(begun) if begun and (begun / CONFIG).is_file() else None
    start = load_model(recipe.init) if recipe.init and own is None else None
    try:
        model = _make_model(recipe, start, manifest, own)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"the model's settings do not fit each other: {error}") from error
    model.card = make_card(recipe, manifest)
    if recipe.runtime.recompute:
        checkpoint_activations(model)
    return model


def _make_model(
    recipe: Recipe, start: Model | None, manifest: Manifest, own: AutoencoderConfig | ClassifierConfig | None
) -> Model:
    model: Model
    if isinstance(recipe, PretrainRecipe):
        model = MaskedAutoencoder(recipe.model)
        if start is not None:
            if not isinstance(start, MaskedAutoencoder) or start.config != recipe.model:
                changed = "\n  ".join(difference(to_plain(start.config), to_plain(recipe.model)))
                raise UserError(f"init={recipe.init} is another architecture than the recipe's:\n  {changed}")
            model.load_state_dict(start.state_dict())
    else:
        if not manifest.classes:
            raise UserError(f"{manifest.root} has no classes.txt: fine-tuning needs class names and labels")
        if isinstance(own, ClassifierConfig):
            model = VideoClassifier(own, drop_path=recipe.drop_path)
        else:
            model = make_classifier(recipe, start, len(manifest.classes))
    if recipe.masking:
        _check_masking(recipe.masking, model.grid)
    return model


def _check_masking(masking: AnyMasking, grid: Size3) -> None:
    """Fail here rather than in the first step, or with a loss over nothing."""
    mask = masking.from_noise(grid, torch.zeros(1, masking.noise_size(grid)))
    visible = mask.visible.shape[1]
    if visible in (0, grid.volume):
        left = "all" if visible else "none"
        raise UserError(
            f"masking.ratio={masking.ratio:g} leaves {left} of the clip's {grid.t} x {grid.h} x {grid.w} "
            "tokens visible, as it rounds to whole slots: give another"
        )


def make_classifier(recipe: FinetuneRecipe, start: Model | None, classes: int) -> VideoClassifier:
    """A classifier with a new head on the encoder of `start`, or on a new one where there is none.

    Raises:
        UserError: the settings do not fit each other or `start`, or it cannot be resized as they say.
    """
    if (start is None) == (recipe.encoder is None):
        raise UserError(
            "give either init=MODEL, to start from a pre-trained model, or the settings of encoder, to start "
            "from random weights"
            + ("; found both: with an init, set encoder=null" if start else "; found neither")
        )
    sizes = {"frames": recipe.frames, "image_size": recipe.image_size}
    if start and any(sizes.values()):
        try:
            start = resize_model(start, **sizes)
        except ValueError as error:
            wanted = ", ".join(f"{name}={size}" for name, size in sizes.items() if size)
            raise UserError(f"the model of init cannot be resized to {wanted}: {error}") from None
    encoder = start.config.encoder if start else recipe.encoder
    assert encoder is not None
    painting = recipe.reconstruction
    decoder = painting.decoder if painting else None
    target = painting.target if painting else None
    donor = start.decoder if start else None
    if painting and decoder is None:
        if start is None or donor is None:
            raise UserError(
                "reconstruction.decoder is null, but there is no pre-trained decoder to take; give its "
                "settings"
            )
        decoder, learned = donor.config, start.config.target
        if target not in (None, learned):
            changed = "\n  ".join(difference(to_plain(learned), to_plain(target)))
            raise UserError(
                "reconstruction.decoder is null, but the pre-trained decoder paints another target than "
                "reconstruction.target says; leave that out, or give a decoder's settings (init -> recipe):"
                f"\n  {changed}"
            )
        target = learned
    bridging = recipe.head.kind == "bridging"  # the head that works on normalised tokens
    keep_norm = isinstance(recipe.head, LinearHeadConfig) and recipe.head.keep_norm
    if (keep_norm or (bridging and start)) and not (start and start.config.encoder.final_norm):
        raise UserError(
            f"head.{'kind=bridging' if bridging else 'keep_norm=true'} needs an init whose encoder ends in a "
            "LayerNorm: give a pre-trained model, as a classifier with a linear head has lost it"
        )
    config = ClassifierConfig(
        encoder=replace(encoder, final_norm=bridging),
        classes=classes,
        head=recipe.head,
        masking=recipe.masking,
        decoder=decoder,
        target=target or PixelTarget(),
    )
    model = VideoClassifier(config, drop_path=recipe.drop_path)
    if start:
        weights = {
            name: value
            for name, value in start.encoder.state_dict().items()
            if bridging or not name.startswith("norm.")
        }
        model.encoder.load_state_dict(weights)
        if keep_norm:
            model.head.norm.load_state_dict(start.encoder.norm.state_dict())
        if model.decoder and donor and painting and painting.decoder is None:
            model.decoder.load_state_dict(donor.state_dict())
    return model


def make_card(recipe: Recipe, manifest: Manifest) -> ModelCard:
    """What the trained model will say of itself."""
    provenance = {"tubelet": version(), "torch": torch.__version__, "recipe": to_plain(recipe)}
    if isinstance(recipe, PretrainRecipe):
        return ModelCard(clip=asdict(recipe.data.clip), provenance=provenance)
    return ModelCard(
        classes=manifest.classes,
        multi_label=manifest.multi_label,
        clip=asdict(recipe.data.clip),
        views=asdict(recipe.views),
        provenance=provenance,
    )


def make_loader(recipe: Recipe, manifest: Manifest, encoder: EncoderConfig, runtime: Runtime) -> TrainLoader:
    """The training clips of this process.

    Raises:
        UserError: the batch does not divide among processes, is larger than the data set, or the clip does
            not fit the model.
    """
    data, optim = recipe.data, recipe.optim
    if isinstance(recipe, PretrainRecipe):
        frames = "model.encoder.frames"
    else:
        frames = "frames" if recipe.init else "encoder.frames"
    require_frames(data.clip, encoder, f" or {frames}={data.clip.frames}")
    shares = runtime.world * optim.accumulate
    if optim.batch_size % shares:
        raise UserError(
            f"optim.batch_size={optim.batch_size} does not divide among {runtime.world} processes x "
            f"{optim.accumulate} micro-batches; use a multiple of {shares}"
        )
    if optim.batch_size > len(manifest):
        raise UserError(
            f"optim.batch_size={optim.batch_size} is more than the {len(manifest)} videos of "
            f"{manifest.root / manifest.split}.csv; lower it"
        )
    if isinstance(recipe, FinetuneRecipe) or data.balanced:
        manifest.require_labels()
    dataset = TrainDataset(
        manifest,
        data.clip,
        data.augment,
        size=encoder.image_size,
        repeats=data.repeats,
        augmented_copies=data.crops,
        seed=recipe.seed,
    )
    return TrainLoader(
        dataset,
        batch=optim.batch_size // shares,
        rank=runtime.rank,
        world=runtime.world,
        workers=default_workers(runtime.device.type) if data.workers is None else data.workers,
        pin=runtime.device.type == "cuda",
        max_failures=data.max_failures,
        balanced=data.balanced,
    )


def make_task(recipe: Recipe, model: Model) -> PretrainTask | ClassifyTask:
    """What a recipe does with a batch."""
    if isinstance(recipe, PretrainRecipe):
        assert isinstance(model, MaskedAutoencoder)
        return PretrainTask(model, recipe.masking)
    assert isinstance(model, VideoClassifier)
    return ClassifyTask(
        model,
        label_smoothing=recipe.label_smoothing,
        mixing=recipe.mixing,
        reconstruction_weight=recipe.reconstruction.weight if recipe.reconstruction else 0.0,
    )


def make_loggers(recipe: Recipe, out: Path, runtime: Runtime) -> list[Any]:
    """Console and file; TensorBoard where it is installed."""
    if not runtime.is_main:
        return []
    loggers: list[Any] = [Console(recipe.optim.epochs), JsonLines(out / "log.jsonl")]
    with suppress(UserError):  # an extra: without it there is the file
        loggers.append(TensorBoard(out / "tensorboard"))
    return loggers


def export_model(folder: Path, model: Model, weights: Weights) -> None:
    """Write the shareable model out of a task's weights."""
    prefix = "model."
    plain = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    write_model(folder, model, plain)


def check_folder(out: Path, recipe: Recipe) -> None:
    """Fail where a run cannot begin in a folder, nor go on there.

    Raises:
        UserError: it holds the run of another recipe; the message shows the difference.
    """
    path = out / "recipe.yaml"
    if path.exists():
        try:
            there = _identity(to_plain(load_recipe(str(path))))
        except UserError as error:
            raise UserError(
                f"the run in {out} cannot go on: {error}\nChoose another folder with --out"
            ) from None
        changed = difference(there, _identity(to_plain(recipe)))
        if changed:
            listed = "\n  ".join(changed)
            raise UserError(
                f"{out} holds the run of another recipe; choose another folder with --out, or remove it. "
                f"What differs (there -> now):\n  {listed}"
            )
    elif (out / "last.pt").exists():
        raise UserError(f"{out} holds a run without its recipe.yaml; choose another folder with --out")


@contextmanager
def claim(out: Path, recipe: Recipe) -> Iterator[None]:
    """Within it the folder is this recipe's and no other process trains in it.

    Raises:
        UserError: another one does, or did so meanwhile with another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out):
        check_folder(out, recipe)
        path = out / "recipe.yaml"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_text(to_yaml(recipe), encoding="utf-8")
        yield


def write_failures(failures: Mapping[str, str], out: Path) -> None:
    """Write down which videos could not be read, and why."""
    with replacing(out / "failures.json") as temporary:
        temporary.write_text(json.dumps(failures, indent=2) + "\n", encoding="utf-8")


def _identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two runs the same: all but where they compute and what they only note, however spelt."""
    init = settings["init"]
    return {
        **settings,
        "init": str(Path(init).resolve()) if init and Path(init).exists() else init,
        "data": {k: v for k, v in settings["data"].items() if k != "workers"}
        | {"root": str(Path(settings["data"]["root"]).resolve())},
        "save": {"every_epochs": settings["save"]["every_epochs"]},
        "runtime": {"precision": settings["runtime"]["precision"]},
    }
