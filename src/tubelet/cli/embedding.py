"""`tubelet embed`, `tubelet probe` and `tubelet search`: what frozen features are used for."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tubelet.cli.inference import say_what_is_kept
from tubelet.cli.options import Device, Hints, ModelSource, Precision, with_hints
from tubelet.errors import UserError, plural
from tubelet.machine import is_main_process


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
        int, typer.Option(metavar="N", help="Block of the tokens: 1 is the first, -1 the last")
    ] = -1,
    pool: Annotated[
        Literal["mean", "max", "class"],
        typer.Option(metavar="HOW", help="mean or max of the tokens, or class token"),
    ] = "mean",
    before_norm: Annotated[
        bool, typer.Option("--before-norm", help="Without the model's last LayerNorm.")
    ] = False,
    window: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="A row for each window, such as 2s.")
    ] = None,
    hop: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="From a window to the next (default: its length).")
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
    from tubelet.files import require_writable
    from tubelet.progress import Bar
    from tubelet.recipe.loading import predict_recipe
    from tubelet.run.embedding import EmbeddingConfig, FeatureConfig, embed_list
    from tubelet.run.features import require_suffix
    from tubelet.run.inference import on_device
    from tubelet.run.prediction import clip_and_views, precision_of_test
    from tubelet.run.video_files import separate_settings
    from tubelet.run.video_list import list_videos
    from tubelet.run.windows import seconds

    sources, settings = separate_settings(videos)
    recipe = predict_recipe(*settings)
    require_suffix(out)
    if is_main_process():
        require_writable(out)
    if hop is not None and window is None:
        raise UserError("--hop is the distance of windows: give --window, too")
    features = FeatureConfig(per=per, layer=layer, pool=pool, norm=not before_norm)
    listed = list_videos(sources, split)
    if window is not None:
        length_s = seconds(window, "--window")
        listed = listed.windows(length_s, seconds(hop, "--hop") if hop is not None else length_s)
    loaded, runtime = on_device(
        load_model(model, **hints), device, precision_of_test(precision, recipe.protocol)
    )
    clip, views = clip_and_views(loaded, protocol=recipe.protocol)
    config = EmbeddingConfig(features=features, clip=clip, views=recipe.views.over(views))
    kept = out.with_name(f"{out.name}.parts")
    with runtime, say_what_is_kept(kept), Bar("embedding") as bar:
        progress = bar.show if is_main_process() else None
        found = embed_list(loaded, listed, config, runtime, out, source=model, progress=progress)
    if is_main_process():
        print(f"{out}: {found.size}")
        for reason in found.broken.values():
            print(f"tubelet: {reason}", file=sys.stderr)
    if found.broken:
        many = plural(len(listed.manifest), "video" if window is None else "window")
        raise UserError(
            f"{len(found.broken)} of {many} could not be read; {out} has the others, and the same command "
            "tries these again"
        )
