"""`tubelet embed`, `tubelet probe` and `tubelet search`: what frozen features are used for."""

import sys
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import typer

from tubelet.cli.inference import say_what_is_kept
from tubelet.cli.options import Device, Hints, ModelSource, Precision, with_hints
from tubelet.cli.table import aligned
from tubelet.errors import UserError, plural, printable
from tubelet.machine import is_main_process

OutputFormat = Annotated[
    Literal["table", "jsonl"],
    typer.Option("--format", metavar="NAME", help="table, or jsonl (a JSON object per line)."),
]


@with_hints
def embed(
    model: ModelSource,
    videos: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEO",
            help="Videos, folders, patterns, data sets; and settings as for predict.",
        ),
    ],
    hints: Hints,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help=".npz, or .parquet with pyarrow.")
    ] = Path("features.npz"),
    per: Annotated[
        Literal["video", "clip", "frame", "token"],
        typer.Option(metavar="WHAT", help="A vector per video, clip, frame or token"),
    ] = "video",
    layer: Annotated[
        int, typer.Option(metavar="N", help="Block of the tokens, from 1; or from the end")
    ] = -1,
    pool: Annotated[
        Literal["mean", "max", "class"],
        typer.Option(metavar="HOW", help="mean or max of the tokens, or class token"),
    ] = "mean",
    before_norm: Annotated[
        bool, typer.Option("--before-norm", help="Without the model's last LayerNorm.")
    ] = False,
    window: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="A row for each window: 2s, or 16f in frames.")
    ] = None,
    hop: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="From window to window (default: half a window).")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this list of data sets (default: all lists).")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Write a feature vector for each video, for probe, search and other tools.

    An interrupted run is resumed, and videos that cannot be read are reported.

    Examples:
        tubelet embed runs/demo/pretrain runs/demo/data -o features.npz
        tubelet embed runs/demo/pretrain runs/demo/data/videos/test --window 1s
    """
    from tubelet.checkpoints.load import load_model
    from tubelet.data.windows import SlidingWindows
    from tubelet.files import require_writable
    from tubelet.progress import Bar
    from tubelet.recipe.loading import predict_recipe
    from tubelet.results.features import require_suffix
    from tubelet.run.clip_features import FeatureConfig
    from tubelet.run.embedding import EmbeddingConfig, embed_list
    from tubelet.run.inference import on_device
    from tubelet.run.prediction import asked_clip_and_views, precision_of_test
    from tubelet.run.video_files import separate_settings
    from tubelet.run.video_list import list_videos

    sources, settings = separate_settings(videos)
    recipe = predict_recipe(*settings)
    require_suffix(out)
    if is_main_process():
        require_writable(out)
    if hop is not None and window is None:
        raise UserError("--hop is for windows: add --window, such as --window 2s")
    windows = SlidingWindows.parse(window, hop) if window is not None else None
    features = FeatureConfig(per=per, layer=layer, pool=pool, norm=not before_norm)
    listed = list_videos(sources, split)
    if windows:
        listed = listed.cut(windows)
    loaded, runtime = on_device(
        load_model(model, **hints), device, precision_of_test(precision, recipe.protocol)
    )
    clip, views = asked_clip_and_views(loaded, recipe)
    config = EmbeddingConfig(features=features, clip=clip, views=views)
    kept = out.with_name(f"{out.name}.parts")
    with runtime, say_what_is_kept(kept), Bar("embedding") as bar:
        progress = bar.show if is_main_process() else None
        found = embed_list(loaded, listed, config, runtime, out, source=model, progress=progress)
    if is_main_process():
        print(f"{out}: {found.size}")
        for reason in found.broken.values():
            print(f"tubelet: {printable(reason)}", file=sys.stderr)
    if num_broken := len(listed.manifest) - len(found):
        many = plural(len(listed.manifest), "video" if window is None else "window")
        raise UserError(
            f"{num_broken} of {many} could not be read; {out} has the others, and the same command "
            "tries these again"
        )


def probe(
    features: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Features to train on, then those to test on; or one file of both lists."
        ),
    ],
    attentive: Annotated[
        bool, typer.Option("--attentive", help="Also an attentive probe (features --per token or frame).")
    ] = False,
    shots: Annotated[
        int | None, typer.Option(metavar="N", help="Train on so many videos of each class (default: all).")
    ] = None,
    k: Annotated[int, typer.Option("--k", metavar="N", help="Nearest neighbors that vote.")] = 20,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the training videos.")] = 100,
    seeds: Annotated[int, typer.Option(metavar="N", help="Trainings of the chosen rate.")] = 3,
    output: OutputFormat = "table",
    device: Device = "auto",
) -> None:
    """Measure what a frozen encoder knows, on features of `tubelet embed`.

    Nearest neighbors and a linear layer; the learning rate is chosen on val, or on held-out training videos.

    Examples:
        tubelet probe features.npz
        tubelet probe train.npz test.npz --shots 5
    """
    from tubelet.progress import Bar
    from tubelet.results.features import read_features
    from tubelet.results.probe_task import probe_task
    from tubelet.results.probing import ProbeConfig, probe
    from tubelet.train.runtime import choose_device

    if len(features) > 2:
        raise UserError(f"probe takes one file or two, found {len(features)}: {' '.join(features)}")
    config = ProbeConfig(k=k, epochs=epochs, shots=shots, seeds=seeds, attentive=attentive)
    task = probe_task([read_features(Path(name)) for name in features], features)
    with Bar("probing") as bar:
        results = probe(task, config, choose_device(device), bar.show)
    if output == "jsonl":
        for result in results:
            print(dumps({**asdict(result), "mean": result.mean, "spread": result.spread}))
        return
    print("\n".join(task.protocol(config.shots)) + "\n")
    rows = [("probe", task.metric, "spread", "rate")]
    for result in results:
        spread = "" if result.spread is None else f"{100 * result.spread:.2f}"
        rate = "" if result.rate is None else f"{result.rate:g}"
        rows.append((result.name, f"{100 * result.mean:.2f}", spread, rate))
    print(aligned(rows))


def search(
    features: Annotated[Path, typer.Argument(metavar="FILE", help="Features of `tubelet embed`.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A video file, or the name of a row.")],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Number of videos to print.")] = 10,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Where the model is now, if it was moved.")
    ] = None,
    output: OutputFormat = "table",
    device: Device = "auto",
) -> None:
    """Find the videos that are most like another one, by the cosine similarity of features.

    A video file is embedded by the model that made the features, which must have the same weights.

    Examples:
        tubelet search features.npz videos/test/00000.mp4
        tubelet search features.npz cat.mp4 --top 3 --format jsonl
    """
    from tubelet.results.features import read_features
    from tubelet.run.searching import embed_query, query_row
    from tubelet.run.searching import search as nearest
    from tubelet.video.reader import VideoError

    saved = read_features(features)
    row = query_row(saved, query, str(features))
    try:
        vector = (
            saved.vectors[row]
            if row is not None
            else embed_query(saved, query, str(features), model=model, device=device)
        )
    except VideoError as error:
        raise UserError(str(error)) from None
    found = nearest(saved, vector, top=top, skip=row)
    if output == "jsonl":
        for each in found:
            print(dumps({"video": each.name, "similarity": each.similarity, "classes": each.classes}))
        return
    rows = [(f"{each.similarity:.4f}", each.name, ", ".join(each.classes)) for each in found]
    print(aligned([("similarity", "video", "class"), *rows]))
