"""`tubelet evaluate` and `tubelet visualize`: what a trained model is used for."""

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from tubelet.cli.stopping import say_if_stopped
from tubelet.errors import UserError, plural
from tubelet.machine import is_main_process

if TYPE_CHECKING:
    from tubelet.results.accuracy import Evaluation


@with_hints
def evaluate(
    hints: Hints,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A run, a file, a Hugging Face id, or a name of `tubelet zoo`.",
        ),
    ] = None,
    settings: Annotated[list[str] | None, settings_argument("evaluate", "views.clips=5")] = None,
    dumps: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="DUMP...",
            help="Score .npz dumps instead; more than one are averaged, with --weights 1,2.",
        ),
    ] = None,
    dump: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all probabilities: .npz, .csv, or MMAction2's .pkl."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one page about the result (.html).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where finished videos are kept (default: MODEL/evaluations).",
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Test a classifier on labeled videos, averaged over clips x crops.

    A run is tested on its own data (list test, else val). An interrupted test is resumed.

    Examples:
        tubelet evaluate runs/demo/finetune_mar data.split=val --dump mar.npz
        tubelet evaluate --from mar.npz full.npz --weights 1,2
    """
    _check_outputs(dump, report)
    if dumps:
        words = [*dumps, *([model] if model else []), *(settings or ())]
        result, advice = _fuse(words, hints | {"out": out, "device": device, "precision": precision}), ""
        title = " + ".join(Path(word).name for word in words)
    elif model is None:
        raise UserError("MODEL is missing: give a model to test, or dumps of tests with --from")
    else:
        settings = with_runtime(settings, device, precision)
        result, advice = _test(model, hints, settings, out or _results_folder(model, dump))
        title = f"Test of {model}"
    if is_main_process():
        if dump:  # files first, as printing ends where nobody reads it: `| head -1`
            result.save(dump)
        if report:
            _write_page(result, title, report)
        print("\n\n".join(part for part in (result.summary(), result.details(), advice) if part))


def _check_outputs(dump: Path | None, report: Path | None) -> None:
    """Raise a UserError, before work starts, if a file cannot be written."""
    from tubelet.files import require_writable
    from tubelet.results.dumps import require_dump_suffix

    if dump:
        require_dump_suffix(dump)
    if report and report.suffix.lower() != ".html":
        raise UserError(f"{report}: the page of --report is HTML, so its name must end in .html")
    for path in (dump, report):
        if path and is_main_process():
            require_writable(path)


def _write_page(result: "Evaluation", title: str, path: Path) -> None:
    from tubelet.report.evaluation_contents import evaluation_page
    from tubelet.report.evaluation_page import render_evaluation
    from tubelet.report.page import write_page

    write_page(render_evaluation(evaluation_page(result, title)), path)


def _test(model: str, hints: Hints, settings: Sequence[str], folder: Path | None) -> tuple["Evaluation", str]:
    """Return the result of a test, and what to change if it waited long for data."""
    from tubelet.checkpoints.load import load_model
    from tubelet.progress import Bar
    from tubelet.recipe.loading import evaluate_recipe
    from tubelet.run.evaluation import data_wait_advice, run_test
    from tubelet.run.inference import require_classifier
    from tubelet.run.tested_videos import choose_manifest

    recipe = evaluate_recipe(*settings)
    classifier = require_classifier(load_model(model, **hints), model)
    manifest = choose_manifest(classifier, model, root=recipe.data.root, split=recipe.data.split)
    if is_main_process():
        listed = manifest.root / f"{manifest.split}.csv"
        print(f"testing on {listed}, {plural(len(manifest), 'video')}", file=sys.stderr)
    with say_what_is_kept(folder), Bar("testing") as bar:
        progress = bar.show if is_main_process() else None
        result = run_test(recipe, classifier, manifest, out=folder, progress=progress)
    return replace(result, facts={"model": model, **result.facts}), data_wait_advice(result, recipe)


def _fuse(dumps: Sequence[str | Path], options: Hints) -> "Evaluation":
    """Return the result of fusing dumps; of the options only `weights` has a meaning there."""
    from tubelet.results.fusion import fuse_evaluations

    text = options.pop("weights")
    if given := [name for name, value in options.items() if value not in (None, False, "auto")]:
        raise UserError(f"--{given[0].replace('_', '-')} is for testing a model: omit it with --from")
    if settings := [dump for dump in dumps if "=" in str(dump) and not Path(dump).exists()]:
        raise UserError(f"{settings[0]} is for testing a model: omit it with --from")
    try:
        weights = None if text is None else [float(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--weights must be numbers such as 1,2 with --from, found '{text}'") from None
    result = fuse_evaluations(dumps, weights)
    if len(dumps) > 1 and is_main_process():
        shares = ", ".join(f"{name} ({share})" for name, share in result.facts.items())
        print(f"fusing {shares}", file=sys.stderr)
    return result


def say_what_is_kept(folder: Path | None) -> AbstractContextManager[None]:
    """On Ctrl-C, print where the results of finished videos are."""
    kept = f"; {folder} has the results of the finished videos: repeat the command to resume"
    return say_if_stopped(lambda: kept if folder else "")


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
