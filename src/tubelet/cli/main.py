"""The `tubelet` command: one short function a verb, each importing what it needs when it is called."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tubelet.cli.prepare import prepare
from tubelet.errors import UserError
from tubelet.machine import exit_process, is_main_process

app = typer.Typer(
    help="Masked video autoencoders: pre-train, fine-tune, recognise, look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipe = typer.Typer(help="Look at the shipped recipes and their settings.", no_args_is_help=True)
bench = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
app.add_typer(prepare, name="prepare")
app.add_typer(recipe, name="recipe")
app.add_typer(bench, name="bench")
RecipeName = Annotated[str, typer.Argument(help="A shipped recipe (`tubelet recipe list`) or a YAML file.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as optim.epochs=30."),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(help="The run's folder; by default runs/ and the recipe's name, as runs/demo-pretrain."),
]
ModelSource = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run, any family's checkpoint, a Hugging Face folder or id, or a name of `tubelet zoo`.",
    ),
]
Heads = Annotated[int | None, typer.Option(help="The encoder's attention heads, if shapes do not tell.")]
DecoderHeads = Annotated[int | None, typer.Option(help="The decoder's attention heads, likewise.")]
BridgeHeads = Annotated[int | None, typer.Option(help="The bridging classifier's attention heads, likewise.")]
ImageSize = Annotated[
    int | None, typer.Option(help="Side of its frames in pixels, if the file does not tell.")
]
Frames = Annotated[int | None, typer.Option(help="Frames of its clips, if the file does not tell.")]
NormEps = Annotated[
    float | None, typer.Option(help="Epsilon of its LayerNorms, if the file does not tell; 1e-6 otherwise.")
]


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Where everything goes: runs/demo, or runs/demo-quick with --quick.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Every step in about a minute, too short to learn.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the data set and the training.")] = 0,
) -> None:
    """The whole story on a made data set: prepare, pre-train, fine-tune, test, and a report to look at."""
    from tubelet.demo.story import run_demo

    run_demo(out or Path("runs/demo-quick" if quick else "runs/demo"), quick=quick, seed=seed)


@app.command()
def pretrain(recipe: RecipeName, settings: Settings = None, out: RunFolder = None) -> None:
    """Pre-train a masked autoencoder."""
    _train("pretrain", recipe, settings, out)


@app.command()
def finetune(recipe: RecipeName, settings: Settings = None, out: RunFolder = None) -> None:
    """Train a classifier, from a pre-trained model (init=MODEL) or from random weights."""
    _train("finetune", recipe, settings, out)


def _train(verb: str, name: str, settings: list[str] | None, out: Path | None) -> None:
    from tubelet.recipe.loading import load_recipe
    from tubelet.run.training import run_recipe

    loaded = load_recipe(name, *settings or ())
    if loaded.task != verb:
        raise UserError(f"{name} is a recipe to {loaded.task}: use `tubelet {loaded.task} {name}`")
    out = out or Path("runs") / Path(name).with_suffix("").as_posix().strip("/").replace("/", "-")
    metrics = run_recipe(loaded, out)
    if not is_main_process():
        return
    shown = "  ".join(
        f"{key} {metrics[key]:.4g}" for key in ("loss", "val/top1", "val/top5", "val/mAP") if key in metrics
    )
    print(f"{out}: done  {shown}")


@app.command()
def evaluate(
    model: ModelSource,
    settings: Settings = None,
    dump: Annotated[Path | None, typer.Option(help="Write every video's probabilities (.npz).")] = None,
) -> None:
    """Test a classifier on a list of videos under clips x crops views."""
    from tubelet.files import require_writable
    from tubelet.progress import Bar
    from tubelet.recipe.loading import evaluate_recipe
    from tubelet.run.evaluation import run_evaluation

    chosen = evaluate_recipe(*settings or ())
    if dump and is_main_process():
        require_writable(dump)
    with Bar("testing") as bar:
        outcome = run_evaluation(model, chosen, bar.show if is_main_process() else None)
    if is_main_process():
        print(outcome.summary())
        if dump:
            outcome.save(dump)


@app.command()
def predict(
    model: ModelSource,
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to name.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Name the actions in videos. One that cannot be read is named, and the others go on."""
    from json import dumps

    from tubelet.checkpoints.load import load_model
    from tubelet.run.prediction import predict
    from tubelet.video.reader import VideoError

    loaded = load_model(model)
    broken = 0
    for video in videos:
        try:
            best = predict(loaded, video).top(top)
        except VideoError as error:
            broken += 1
            print(f"tubelet: {error}", file=sys.stderr)
            continue
        if json:
            print(dumps({"video": str(video), "top": [{"class": c, "probability": p} for c, p in best]}))
        else:
            print(f"{video}\n" + "\n".join(f"  {p:6.1%}  {c}" for c, p in best))
    if broken:
        raise UserError(f"{broken} of {len(videos)} videos could not be read")


@app.command()
def visualize(
    model: ModelSource,
    video: Annotated[Path, typer.Argument(help="A video file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help=".gif, .webp, .mp4 or .png")] = Path("painted.gif"),
    ratio: Annotated[float, typer.Option(help="Share of the tokens to hide.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the mask.")] = 0,
) -> None:
    """Show what a masked autoencoder paints: original, masked and painted side by side."""
    import torch

    from tubelet.checkpoints.load import load_model
    from tubelet.data.dataset import read_clip
    from tubelet.files import require_writable
    from tubelet.masking import TubeMasking
    from tubelet.models.autoencoder import MaskedAutoencoder
    from tubelet.run.prediction import clip_of
    from tubelet.run.visualize import reconstruction

    require_writable(out)
    loaded = load_model(model)
    if not isinstance(loaded, MaskedAutoencoder):
        raise UserError(f"{model} is a classifier, which cannot be shown: give the pre-trained autoencoder")
    clip = read_clip(str(video), clip_of(loaded), size=loaded.config.encoder.image_size)
    mask = TubeMasking(ratio=ratio).sample(loaded.grid, 1, torch.Generator().manual_seed(seed))
    reconstruction(loaded, clip, mask).save(out)
    print(out)


@app.command()
def inspect(
    model: ModelSource,
    heads: Heads = None,
    decoder_heads: DecoderHeads = None,
    bridge_heads: BridgeHeads = None,
    image_size: ImageSize = None,
    frames: Frames = None,
    norm_eps: NormEps = None,
) -> None:
    """Say what is in a checkpoint: family, sizes, parameters, GFLOPs, and what it lacks."""
    from tubelet.run.inspection import inspect_checkpoint

    found = inspect_checkpoint(
        model,
        heads=heads,
        decoder_heads=decoder_heads,
        bridge_heads=bridge_heads,
        image_size=image_size,
        frames=frames,
        norm_eps=norm_eps,
    )
    print(found)


@app.command()
def convert(
    model: ModelSource,
    out: Annotated[Path, typer.Argument(help="The file to write; a folder for tubelet and huggingface.")],
    to: Annotated[
        str, typer.Option(help="tubelet, videomae, videomaev2, mae_st, mmaction2, mar or huggingface")
    ] = "tubelet",
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
    heads: Heads = None,
    decoder_heads: DecoderHeads = None,
    bridge_heads: BridgeHeads = None,
    image_size: ImageSize = None,
    frames: Frames = None,
    norm_eps: NormEps = None,
) -> None:
    """Write a model in another code base's layout. What that cannot hold is refused by name."""
    from tubelet.checkpoints.load import load_model
    from tubelet.checkpoints.save import save_model

    if not force and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise UserError(f"{out} is there already: choose another name, or write over it with --force")
    loaded = load_model(
        model,
        heads=heads,
        decoder_heads=decoder_heads,
        bridge_heads=bridge_heads,
        image_size=image_size,
        frames=frames,
        norm_eps=norm_eps,
    )
    save_model(loaded, out, to)
    print(out)


@app.command()
def zoo(
    name: Annotated[str | None, typer.Argument(help="One of them, to read all about it.")] = None,
) -> None:
    """List the published checkpoints that can be loaded by name."""
    from tubelet.checkpoints.catalogue import catalogue, published_checkpoint

    if name:
        print(published_checkpoint(name).describe())
        return
    width = max(map(len, catalogue()))
    for row in catalogue().values():
        accuracy = f"{row.top1:5.1f} %" if row.top1 else "       "
        print(f"{row.name:{width}}  {row.contains:11}  {accuracy}  {row.license}")


@recipe.command("list")
def recipe_list() -> None:
    """Name the shipped recipes."""
    from tubelet.recipe.loading import recipe_names

    print("\n".join(recipe_names()))


@recipe.command("show")
def recipe_show(name: RecipeName, settings: Settings = None) -> None:
    """Print all settings of a recipe, defaults included."""
    from tubelet.recipe.loading import load_recipe, to_yaml

    print(to_yaml(load_recipe(name, *settings or ())), end="")


@recipe.command("help")
def recipe_help(
    task: Annotated[str, typer.Argument(help="pretrain, finetune or evaluate")] = "pretrain",
) -> None:
    """Print every setting with its type, default and meaning."""
    from tubelet.recipe.help import explain

    for key, kind, default, meaning in explain(task):
        print(f"{key}  ({kind}; {default})\n    {meaning}")


@bench.command("data")
def bench_data(
    folder: Annotated[
        Path | None, typer.Argument(help="Videos, in folders below it as well; none: made files.")
    ] = None,
    files: Annotated[int, typer.Option(min=1, help="Files to read, at most.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each loader; the median counts.")] = 5,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 16,
    stride: Annotated[int | None, typer.Option(min=1, help="From one frame of a clip to the next.")] = None,
    size: Annotated[int, typer.Option(min=16, help="Side of a clip in pixels; 16 is that of a patch.")] = 224,
    workers: Annotated[
        list[int] | None,
        typer.Option(
            min=0, help="Workers to measure whole batches with; may be repeated. [default: 0 and one a core]"
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where made files are kept.")] = Path("runs/bench-videos"),
    json: Annotated[Path | None, typer.Option("--json", help="Write all numbers there, too.")] = None,
) -> None:
    """How fast clips are read, where the time goes, what to change; beside the loaders that are installed."""
    from tubelet.bench.measure import bench_data
    from tubelet.progress import Bar

    with Bar("reading") as bar:
        report = bench_data(
            folder, cache=cache, files=files, rounds=rounds, frames=frames, stride=stride, size=size,
            workers=workers, progress=bar.show,
        )  # fmt: skip
    print(report.text())
    if json:
        json.write_text(report.json(), encoding="utf-8")


def main() -> None:
    """Run the command; what the user can mend ends in one message and exit code 2."""
    code = 2
    try:
        app()
    except SystemExit as end:  # of a command that went well, too
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except UserError as error:
        print(f"tubelet: {error}", file=sys.stderr)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        reason = f"{what}{error.strerror or error}. What was finished is kept: mend this and run it again"
        print(f"tubelet: {reason}", file=sys.stderr)
    exit_process(code)
