"""The `tubelet` command: one short function a verb, each importing what it needs when it is called."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tubelet.data.annotations import Annotations
    from tubelet.prepare.plan import Plan

app = typer.Typer(
    help="Masked video autoencoders: pre-train, fine-tune, recognise, look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
prepare = typer.Typer(
    help="Make a data set: check every video, encode it if asked to, and write the lists to train from.",
    no_args_is_help=True,
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

Source = Annotated[
    Path, typer.Argument(help="The folder with videos and lists, as downloaded; it is not touched.")
]
Out = Annotated[Path, typer.Option(help="The folder for train.csv, val.csv, test.csv and report.txt.")]
Root = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Where the videos are, if not in SOURCE; or its URL.")
]
Encode = Annotated[
    bool, typer.Option("--encode", help="Write small copies that train several times faster to OUT/videos.")
]
ShortSide = Annotated[int, typer.Option(help="Of those copies, in pixels; smaller videos keep their size.")]
Preview = Annotated[bool, typer.Option("--preview", help="Draw a first training batch: OUT/preview.png.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes; by default one for each core, 0 for none but this one.")
]
Fold = Annotated[int, typer.Option(min=1, max=3, help="Which of the three official splits.")]
ClassFile = Annotated[
    Path | None, typer.Option(help="Class names in order, or with their numbers; any project's file.")
]


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Where everything goes: runs/demo, or runs/demo-quick with --quick.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Every step in about a minute, too short to learn.")] = False,
    seed: Annotated[int, typer.Option(help="Of the data set and the training.")] = 0,
) -> None:
    """The whole story on a made data set: prepare, pre-train, fine-tune, test, and a report to look at."""
    from tubelet.demo import run_demo

    run_demo(out or Path("runs/demo-quick" if quick else "runs/demo"), quick=quick, seed=seed)


@prepare.command("synthetic")
def prepare_synthetic(
    out: Annotated[Path, typer.Argument(help="The data set's folder.")],
    size: Annotated[int, typer.Option(help="Side of the frames in pixels.")] = 64,
    train: Annotated[int, typer.Option(help="Videos to train on.")] = 3000,
    val: Annotated[int, typer.Option(help="Videos to validate on.")] = 240,
    test: Annotated[int, typer.Option(help="Videos to test on.")] = 480,
    seed: Annotated[int, typer.Option(help="The same seed makes the same pixels.")] = 0,
    workers: Workers = None,
) -> None:
    """Write the motion data set: real video files of twelve classes that only motion tells apart."""
    from tubelet.data.synthetic import SyntheticConfig, write_synthetic
    from tubelet.progress import Bar

    config = SyntheticConfig(size=size, train=train, val=val, test=test, seed=seed)
    with Bar("writing videos") as bar:
        write_synthetic(out, config, workers=workers, progress=bar.show)
    print(f"{out}: {train} videos to train on, {val} to validate on, {test} to test on")


@prepare.command("kinetics400")
def prepare_kinetics400(
    source: Source,
    out: Out,
    root: Root = None,
    classes: ClassFile = None,
    encode: Encode = False,
    short_side: ShortSide = 256,
    preview: Preview = False,
    workers: Workers = None,
) -> None:
    """Kinetics-400: train.csv, val.csv, test.csv and the clips, in class folders or not.

    tubelet prepare kinetics400 /data/k400 --out data/k400 --encode
    """
    _kinetics(400, source, out, root, classes, encode, short_side, preview, workers)


@prepare.command("kinetics600")
def prepare_kinetics600(
    source: Source,
    out: Out,
    root: Root = None,
    classes: ClassFile = None,
    encode: Encode = False,
    short_side: ShortSide = 256,
    preview: Preview = False,
    workers: Workers = None,
) -> None:
    """Kinetics-600, as kinetics400.

    tubelet prepare kinetics600 annotations/ --root /data/k600/videos --out data/k600
    """
    _kinetics(600, source, out, root, classes, encode, short_side, preview, workers)


@prepare.command("kinetics700")
def prepare_kinetics700(
    source: Source,
    out: Out,
    root: Root = None,
    classes: ClassFile = None,
    encode: Encode = False,
    short_side: ShortSide = 256,
    preview: Preview = False,
    workers: Workers = None,
) -> None:
    """Kinetics-700, as kinetics400.

    tubelet prepare kinetics700 /data/k700 --out data/k700 --classes label_map_k700.txt
    """
    _kinetics(700, source, out, root, classes, encode, short_side, preview, workers)


def _kinetics(
    count: int,
    source: Path,
    out: Path,
    root: str | None,
    classes: Path | None,
    encode: bool,
    short_side: int,
    preview: bool,
    workers: int | None,
) -> None:
    from tubelet.data.annotations import read_kinetics
    from tubelet.data.classes import read_classes

    def read(texts: "Sequence[Path]") -> "Annotations":
        return read_kinetics(texts, count, read_classes(classes) if classes else ())

    origin = _words(f"kinetics{count}", source, root=root, classes=classes)
    _annotated(read, origin, source, root, out, encode, short_side, preview, workers)


def _annotated(
    read: "Callable[[Sequence[Path]], Annotations]",
    origin: tuple[str, ...],
    source: Path,
    root: str | None,
    out: Path,
    encode: bool,
    short_side: int,
    preview: bool,
    workers: int | None,
) -> None:
    """Prepare a data set that comes with annotation files, which `read` reads."""
    from tubelet.prepare.finding import find_files
    from tubelet.prepare.plan import plan_annotations

    files, videos = find_files(source, root, out)
    _prepare(plan_annotations(read(files.texts), videos), origin, out, encode, short_side, preview, workers)


@prepare.command("ssv2")
def prepare_ssv2(
    source: Source,
    out: Out,
    root: Root = None,
    encode: Encode = False,
    short_side: ShortSide = 256,
    preview: Preview = False,
    workers: Workers = None,
) -> None:
    """Something-Something v2: the JSON lists, labels.json and the .webm files.

    tubelet prepare ssv2 /data/ssv2 --out data/ssv2 --encode
    """
    from tubelet.data.annotations import read_ssv2

    origin = _words("ssv2", source, root=root)
    _annotated(read_ssv2, origin, source, root, out, encode, short_side, preview, workers)


@prepare.command("ucf101")
def prepare_ucf101(
    source: Source,
    out: Out,
    root: Root = None,
    fold: Fold = 1,
    encode: Encode = False,
    short_side: ShortSide = 256,
    preview: Preview = False,
    workers: Workers = None,
) -> None:
    """UCF101: classInd.txt, trainlist01.txt, testlist01.txt and the class folders.

    tubelet prepare ucf101 /data/UCF-101 --out data/ucf101 --fold 1
    """
    from tubelet.data.annotations import read_ucf101

    def read(texts: "Sequence[Path]") -> "Annotations":
        return read_ucf101(texts, fold)

    origin = _words("ucf101", source, root=root, fold=fold)
    _annotated(read, origin, source, root, out, encode, short_side, preview, workers)


@prepare.command("hmdb51")
def prepare_hmdb51(
    source: Source,
    out: Out,
    root: Root = None,
    fold: Fold = 1,
    encode: Encode = False,
    short_side: ShortSide = 256,
    preview: Preview = False,
    workers: Workers = None,
) -> None:
    """HMDB51: the *_test_split1.txt lists and the class folders.

    tubelet prepare hmdb51 /data/hmdb51 --out data/hmdb51 --fold 1
    """
    from tubelet.data.annotations import read_hmdb51

    def read(texts: "Sequence[Path]") -> "Annotations":
        return read_hmdb51(texts, fold)

    origin = _words("hmdb51", source, root=root, fold=fold)
    _annotated(read, origin, source, root, out, encode, short_side, preview, workers)


@prepare.command("folder")
def prepare_folder(
    source: Annotated[str, typer.Argument(help="The folder with the videos, or its URL; it is not touched.")],
    out: Out,
    split_seed: Annotated[int, typer.Option(min=0, help="Of the split, where folders do not give it.")] = 0,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Folders are no classes: all videos are to pre-train on.")
    ] = False,
    encode: Encode = False,
    short_side: ShortSide = 256,
    preview: Preview = False,
    workers: Workers = None,
) -> None:
    """Your own videos: a folder for each class, with train, val and test above or not; or just videos.

    tubelet prepare folder ~/Videos/phone --out data/phone --encode --preview
    """
    from tubelet.prepare.finding import find_videos
    from tubelet.prepare.plan_folder import plan_folder

    plan = plan_folder(find_videos(source, out), seed=split_seed, unlabelled=unlabelled)
    origin = _words("folder", source, split_seed=split_seed, unlabelled=unlabelled)
    _prepare(plan, origin, out, encode, short_side, preview, workers)


@prepare.command("list")
def prepare_list(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="LIST...", help="Lists, one for each split, or a folder that holds them."),
    ],
    out: Out,
    root: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="The folder that the lists' paths count from, or its URL."),
    ] = None,
    classes: ClassFile = None,
    columns: Annotated[
        str,
        typer.Option(help="What the fields of a line are, if asked for: path,frames,label or path,label..."),
    ] = "",
    encode: Encode = False,
    short_side: ShortSide = 256,
    preview: Preview = False,
    workers: Workers = None,
) -> None:
    """The lists of VideoMAE, MMAction2, MAR, MAE-ST and PySlowFast as they are; CSV, TSV, JSON and JSONL.

    tubelet prepare list kinetics400_train_list_videos.txt kinetics400_val_list_videos.txt
    --root /data/kinetics400 --classes kinetics_class2ind.txt --out data/k400
    """
    from tubelet.data.classes import read_classes
    from tubelet.prepare.plan_lists import plan_lists

    names = read_classes(classes) if classes else ()
    plan = plan_lists(sources, root, names, columns.split(",") if columns else ())
    origin = _words("list", *sorted(sources), root=root, classes=classes, columns=columns)
    _prepare(plan, origin, out, encode, short_side, preview, workers)


def _words(
    verb: str,
    *sources: Path | str,
    root: str | None = None,
    classes: Path | None = None,
    **settings: str | int,
) -> tuple[str, ...]:
    """The command that a data set is made by, without what is left at nothing."""
    from tubelet.prepare.places import place

    words = [verb, *map(place, sources)]
    for name, path in (("root", root), ("classes", classes)):
        words += [f"--{name}", place(path)] if path else []
    for name, value in settings.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, str(value)] if value else []
    return tuple(words)


def _prepare(
    plan: "Plan",
    origin: tuple[str, ...],
    out: Path,
    encode: bool,
    short_side: int,
    preview: bool,
    workers: int | None,
) -> None:
    from dataclasses import replace

    from tubelet.prepare.run import PrepareConfig, prepare
    from tubelet.progress import Bar

    print(f"found {plan.kind}")
    config = PrepareConfig(encode=encode, short_side=short_side, preview=preview, workers=workers)
    print(prepare(replace(plan, origin=origin), out, config, Bar).summary())
    print(f"{out}: ready to train on (data.root={out})")
    if preview:
        print(f"{out / 'preview.png'} shows the first clips")


@app.command()
def pretrain(recipe: RecipeName, settings: Settings = None, out: RunFolder = None) -> None:
    """Pre-train a masked autoencoder."""
    _train("pretrain", recipe, settings, out)


@app.command()
def finetune(recipe: RecipeName, settings: Settings = None, out: RunFolder = None) -> None:
    """Train a classifier, from a pre-trained model (init=MODEL) or from random weights."""
    _train("finetune", recipe, settings, out)


def _train(verb: str, name: str, settings: list[str] | None, out: Path | None) -> None:
    from tubelet.build import run_recipe
    from tubelet.recipe import load_recipe
    from tubelet.train.runtime import is_main_process

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
    from tubelet.evaluation import run_evaluation
    from tubelet.progress import Bar
    from tubelet.recipe import evaluate_recipe
    from tubelet.train.runtime import is_main_process

    chosen = evaluate_recipe(*settings or ())
    if dump:
        dump.parent.mkdir(parents=True, exist_ok=True)
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
    top: Annotated[int, typer.Option(help="Classes to name.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Name the actions in videos. One that cannot be read is named, and the others go on."""
    from json import dumps

    from tubelet.data.video import VideoError
    from tubelet.prediction import predict
    from tubelet.zoo import load_model

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
    seed: Annotated[int, typer.Option(help="Of the mask.")] = 0,
) -> None:
    """Show what a masked autoencoder paints: original, masked and painted side by side."""
    import torch

    from tubelet.data.dataset import read_clip
    from tubelet.masking import TubeMasking
    from tubelet.models.autoencoder import MaskedAutoencoder
    from tubelet.prediction import clip_of
    from tubelet.visualize import reconstruction
    from tubelet.zoo import load_model

    loaded = load_model(model)
    if not isinstance(loaded, MaskedAutoencoder):
        raise UserError(f"{model} is a classifier: it paints nothing. Give a pre-trained autoencoder")
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
) -> None:
    """Say what is in a checkpoint: family, sizes, parameters, GFLOPs, and what it lacks."""
    from tubelet.inspection import inspect

    given = {
        "heads": heads,
        "decoder_heads": decoder_heads,
        "bridge_heads": bridge_heads,
        "image_size": image_size,
        "frames": frames,
    }
    print(inspect(model, **given))


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
) -> None:
    """Write a model in another code base's layout. What that cannot hold is refused by name."""
    from tubelet.zoo import load_model, save_model

    if not force and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise UserError(f"{out} is there already: choose another name, or write over it with --force")
    loaded = load_model(
        model,
        heads=heads,
        decoder_heads=decoder_heads,
        bridge_heads=bridge_heads,
        image_size=image_size,
        frames=frames,
    )
    save_model(loaded, out, to)
    print(out)


@app.command()
def zoo(
    name: Annotated[str | None, typer.Argument(help="One of them, to read all about it.")] = None,
) -> None:
    """List the published checkpoints that can be loaded by name."""
    from tubelet.published import PUBLISHED, find

    if name:
        print(find(name).describe())
        return
    width = max(len(row.name) for row in PUBLISHED)
    for row in PUBLISHED:
        accuracy = f"{row.top1:5.1f} %" if row.top1 else "       "
        print(f"{row.name:{width}}  {row.contains:11}  {accuracy}  {row.license}")


@recipe.command("list")
def recipe_list() -> None:
    """Name the shipped recipes."""
    from tubelet.recipe import recipe_names

    print("\n".join(recipe_names()))


@recipe.command("show")
def recipe_show(name: RecipeName, settings: Settings = None) -> None:
    """Print all settings of a recipe, defaults included."""
    from tubelet.recipe import load_recipe, to_yaml

    print(to_yaml(load_recipe(name, *settings or ())), end="")


@recipe.command("help")
def recipe_help(
    task: Annotated[str, typer.Argument(help="pretrain, finetune or evaluate")] = "pretrain",
) -> None:
    """Print every setting with its type, default and meaning."""
    from tubelet.recipe_help import explain

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
    size: Annotated[int, typer.Option(help="Side of a clip in pixels.")] = 224,
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
    from tubelet.bench_data import bench_data
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
    try:
        app()
    except UserError as error:
        message = str(error)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        message = f"{what}{error.strerror or error}. What was finished is kept: mend this and run it again"
    else:
        return
    print(f"tubelet: {message}", file=sys.stderr)
    sys.exit(2)
