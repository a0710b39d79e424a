"""`tubelet evaluate`, `tubelet predict` and `tubelet visualize`: what a trained model is used for."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tubelet.cli.options import (
    Device,
    Hints,
    ModelSource,
    Precision,
    Seed,
    Settings,
    with_hints,
    with_runtime,
)
from tubelet.errors import UserError
from tubelet.machine import is_main_process


@with_hints
def evaluate(
    model: ModelSource,
    hints: Hints,
    settings: Settings = None,
    device: Device = "auto",
    precision: Precision = "auto",
    dump: Annotated[Path | None, typer.Option(help="Write the probabilities of all videos (.npz).")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps the results of finished videos (default: evaluations in the model's "
            "folder; if MODEL is not a folder that can be written, beside the file of --dump)."
        ),
    ] = None,
) -> None:
    """Test a classifier on a list of labeled videos, with multi-view (clips x crops) testing.

    A test that was interrupted resumes when the command is repeated, on any number of processes.

    tubelet evaluate runs/demo-finetune_mar data.root=data/motion views.clips=5 views.crops=3

    tubelet evaluate runs/mar data.root=data/k400 protocol=mar_k400
    """
    from tubelet.checkpoints.load import load_model
    from tubelet.files import require_writable
    from tubelet.progress import Bar
    from tubelet.recipe.loading import evaluate_recipe
    from tubelet.run.evaluation import evaluate
    from tubelet.run.inference import require_classifier
    from tubelet.run.prediction import clip_and_views, precision_of_test

    recipe = evaluate_recipe(*with_runtime(settings, device, precision))
    if dump and is_main_process():
        require_writable(dump)
    classifier = require_classifier(load_model(model, **hints), model)
    clip, views = clip_and_views(classifier, protocol=recipe.protocol, clip=recipe.data.clip)
    folder = out or _results_folder(model, dump)
    with _say_what_is_kept(folder), Bar("testing") as bar:
        result = evaluate(
            classifier,
            recipe.data.root,
            split=recipe.data.split,
            clip=clip,
            views=recipe.views.over(views),
            masking=recipe.masking,
            complementary=recipe.complementary,
            batch_size=recipe.batch_size,
            workers=recipe.data.workers,
            device=recipe.runtime.device,
            precision=precision_of_test(recipe.runtime.precision, recipe.protocol),
            threads=recipe.runtime.threads,
            out=folder,
            progress=bar.show if is_main_process() else None,
        )
    if is_main_process():
        print(result.summary())
        if dump:
            result.save(dump)


@contextmanager
def _say_what_is_kept(folder: Path | None) -> Iterator[None]:
    """On Ctrl-C, print where the results of finished videos are."""
    try:
        yield
    except KeyboardInterrupt:
        if folder and is_main_process():
            print(
                f"tubelet: {folder} has the results of the finished videos: repeat the command to resume",
                file=sys.stderr,
            )
        raise


def _results_folder(model: str, dump: Path | None) -> Path | None:
    """Return where the results of a test are kept by default."""
    if Path(model).is_dir() and os.access(model, os.W_OK):
        return Path(model) / "evaluations"
    return dump.with_name(f"{dump.name}.evaluations") if dump else None


@with_hints
def predict(
    model: ModelSource,
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    hints: Hints,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Print the most probable actions of videos.

    Videos that cannot be read are reported, and the others are still predicted.

    tubelet predict runs/demo-finetune_mar data/motion/videos/test/*.mp4 --json
    """
    from json import dumps

    from tubelet.checkpoints.load import load_model
    from tubelet.run.inference import require_classifier
    from tubelet.run.prediction import predict
    from tubelet.video.reader import VideoError

    classifier = require_classifier(load_model(model, **hints), model)
    num_broken = 0
    for video in videos:
        try:
            best = predict(classifier, video, device=device, precision=precision).top(top)
        except VideoError as error:
            num_broken += 1
            print(f"tubelet: {error}", file=sys.stderr)
            continue
        if json:
            entries = [{"class": name, "probability": probability} for name, probability in best]
            print(dumps({"video": str(video), "top": entries}, allow_nan=False), flush=True)
        else:
            print(f"{video}\n" + "\n".join(f"  {p:6.1%}  {c}" for c, p in best), flush=True)
    if num_broken:
        raise UserError(f"{num_broken} of {len(videos)} videos could not be read")


@with_hints
def visualize(
    model: ModelSource,
    video: Annotated[Path, typer.Argument(help="A video file.")],
    hints: Hints,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file to write: .gif, .webp, .mp4 or .png.")
    ] = Path("reconstruction.gif"),
    ratio: Annotated[float, typer.Option(help="Fraction of the tokens to mask.")] = 0.9,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Show what a masked autoencoder reconstructs: original, masked and reconstructed side by side.

    tubelet visualize runs/demo-pretrain data/motion/videos/test/00000.mp4 -o reconstruction.gif
    """
    import torch

    from tubelet.checkpoints.load import load_model
    from tubelet.data.dataset import read_clip
    from tubelet.files import require_writable
    from tubelet.masking import TubeMasking
    from tubelet.models.autoencoder import MaskedAutoencoder
    from tubelet.run.prediction import clip_of
    from tubelet.run.visualize import reconstruction

    require_writable(out)
    loaded = load_model(model, **hints)
    if not isinstance(loaded, MaskedAutoencoder):
        raise UserError(
            f"{model} is a classifier, which has no reconstruction: use the pre-trained autoencoder"
        )
    clip = read_clip(video, clip_of(loaded), size=loaded.config.encoder.image_size)
    mask = TubeMasking(ratio=ratio).sample(loaded.grid, 1, torch.Generator().manual_seed(seed))
    reconstruction(loaded, clip, mask, device=device, precision=precision).save(out)
    print(out)
