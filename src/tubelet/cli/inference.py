"""`tubelet evaluate` and `tubelet visualize`: what a trained model is used for."""

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
    settings_argument,
    with_hints,
    with_runtime,
)
from tubelet.errors import plural
from tubelet.machine import is_main_process


@with_hints
def evaluate(
    model: ModelSource,
    hints: Hints,
    settings: Annotated[list[str] | None, settings_argument("evaluate", "views.clips=5")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    dump: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the probabilities of all videos (.npz).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where finished videos are kept (default: MODEL/evaluations).",
        ),
    ] = None,
) -> None:
    """Test a classifier on labeled videos, averaged over clips x crops.

    A run is tested on its own data (list test, else val). An interrupted test is resumed.

    Examples:
        tubelet evaluate runs/demo/finetune_mar
        tubelet evaluate runs/demo/finetune_mar data.split=val --dump out.npz
    """
    from tubelet.checkpoints.load import load_model
    from tubelet.files import require_writable
    from tubelet.progress import Bar
    from tubelet.recipe.loading import evaluate_recipe
    from tubelet.run.evaluation import choose_manifest, run_test
    from tubelet.run.inference import require_classifier

    recipe = evaluate_recipe(*with_runtime(settings, device, precision))
    if dump and is_main_process():
        require_writable(dump)
    classifier = require_classifier(load_model(model, **hints), model)
    manifest = choose_manifest(classifier, model, root=recipe.data.root, split=recipe.data.split)
    folder = out or _results_folder(model, dump)
    if is_main_process():
        listed = manifest.root / f"{manifest.split}.csv"
        print(f"testing on {listed}, {plural(len(manifest), 'video')}", file=sys.stderr)
    with _say_what_is_kept(folder), Bar("testing") as bar:
        progress = bar.show if is_main_process() else None
        result = run_test(recipe, classifier, manifest, out=folder, progress=progress)
    if is_main_process():
        print(result.summary())
        if details := result.details():
            print(f"\n{details}")
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
def visualize(
    model: ModelSource,
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file.")],
    hints: Hints,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FILE", help=".gif, .webp, .mp4 or .png."),
    ] = Path("reconstruction.gif"),
    ratio: Annotated[
        float | None,
        typer.Option(metavar="X", help="Fraction to mask (default: 0.9; MAR: as in training)."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Show a video, its visible tokens and their reconstruction side by side.

    The model is a masked autoencoder, or MAR's classifier.

    Examples:
        tubelet visualize runs/demo/pretrain runs/demo/data/videos/test/00000.mp4
        tubelet visualize runs/demo/pretrain cat.mp4 --ratio 0.75 -o cat.webp
    """
    from tubelet.checkpoints.load import load_model
    from tubelet.data.dataset import read_clip
    from tubelet.files import require_writable
    from tubelet.run.prediction import clip_of
    from tubelet.run.visualize import draw_mask, reconstruction, require_decoder

    require_writable(out)
    loaded = load_model(model, **hints)
    require_decoder(loaded, model)
    clip = read_clip(video, clip_of(loaded), size=loaded.config.encoder.image_size)
    mask = draw_mask(loaded, ratio, seed=seed)
    reconstruction(loaded, clip, mask, device=device, precision=precision).save(out)
    print(out)
