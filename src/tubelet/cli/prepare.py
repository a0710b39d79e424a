"""`tubelet prepare`: a verb for each kind of source."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tubelet.prepare.lists.annotations import Annotations
    from tubelet.prepare.pipeline import PrepareConfig
    from tubelet.prepare.plan import Plan


prepare = typer.Typer(
    help="Make a data set: check every video, encode it if asked to, and write the lists to train from.",
    no_args_is_help=True,
)
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
    from tubelet.demo.motion_videos import SyntheticConfig, write_synthetic
    from tubelet.progress import Bar

    config = SyntheticConfig(size=size, train=train, val=val, test=test, seed=seed)
    with Bar("writing videos") as bar:
        write_synthetic(out, config, workers=workers, progress=bar.show)
    print(f"{out}: {train} videos to train on, {val} to validate on, {test} to test on")


def _kinetics(count: int, example: str) -> None:
    """Add the verb of one of the three Kinetics."""

    def command(
        source: Source,
        out: Out,
        root: Root = None,
        classes: ClassFile = None,
        encode: Encode = False,
        short_side: ShortSide = 256,
        preview: Preview = False,
        workers: Workers = None,
    ) -> None:
        from tubelet.prepare.lists.annotations import read_kinetics
        from tubelet.prepare.lists.class_names import read_classes

        def read(texts: Sequence[Path]) -> "Annotations":
            return read_kinetics(texts, count, read_classes(classes) if classes else ())

        origin = _words(f"kinetics{count}", source, root=root, classes=classes)
        config = _config(encode=encode, short_side=short_side, preview=preview, workers=workers)
        _annotated(read, origin, source, root, out, config)

    files = "train.csv, val.csv, test.csv and the clips, in class folders or not."
    command.__doc__ = f"Kinetics-{count}: {files}\n\ntubelet prepare kinetics{count} {example}"
    prepare.command(f"kinetics{count}")(command)


_kinetics(400, "/data/k400 --out data/k400 --encode")
_kinetics(600, "annotations/ --root /data/k600/videos --out data/k600")
_kinetics(700, "/data/k700 --out data/k700 --classes label_map_k700.txt")


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
    from tubelet.prepare.lists.annotations import read_ssv2

    origin = _words("ssv2", source, root=root)
    config = _config(encode=encode, short_side=short_side, preview=preview, workers=workers)
    _annotated(read_ssv2, origin, source, root, out, config)


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
    from tubelet.prepare.lists.annotations import read_ucf101

    origin = _words("ucf101", source, root=root, fold=fold)
    config = _config(encode=encode, short_side=short_side, preview=preview, workers=workers)
    _annotated(partial(read_ucf101, fold=fold), origin, source, root, out, config)


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
    from tubelet.prepare.lists.annotations import read_hmdb51

    origin = _words("hmdb51", source, root=root, fold=fold)
    config = _config(encode=encode, short_side=short_side, preview=preview, workers=workers)
    _annotated(partial(read_hmdb51, fold=fold), origin, source, root, out, config)


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
    from tubelet.prepare.find_files import find_videos
    from tubelet.prepare.plan_folder import plan_folder

    plan = plan_folder(find_videos(source, out), seed=split_seed, unlabelled=unlabelled)
    origin = _words("folder", source, split_seed=split_seed, unlabelled=unlabelled)
    config = _config(encode=encode, short_side=short_side, preview=preview, workers=workers)
    _prepare(plan, origin, out, config)


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
    from tubelet.prepare.lists.class_names import read_classes
    from tubelet.prepare.plan_lists import plan_lists

    names = read_classes(classes) if classes else ()
    plan = plan_lists(sources, root, names, columns.split(",") if columns else ())
    origin = _words("list", *sorted(sources), root=root, classes=classes, columns=columns)
    config = _config(encode=encode, short_side=short_side, preview=preview, workers=workers)
    _prepare(plan, origin, out, config)


def _annotated(
    read: Callable[[Sequence[Path]], "Annotations"],
    origin: tuple[str, ...],
    source: Path,
    root: str | None,
    out: Path,
    config: "PrepareConfig",
) -> None:
    """Prepare a data set that comes with annotation files, which `read` reads."""
    from tubelet.prepare.find_files import find_files
    from tubelet.prepare.plan import plan_annotations

    files, videos = find_files(source, root, out)
    _prepare(plan_annotations(read(files.texts), videos), origin, out, config)


def _config(*, encode: bool, short_side: int, preview: bool, workers: int | None) -> "PrepareConfig":
    from tubelet.prepare.pipeline import PrepareConfig

    return PrepareConfig(encode=encode, short_side=short_side, preview=preview, workers=workers)


def _prepare(plan: "Plan", origin: tuple[str, ...], out: Path, config: "PrepareConfig") -> None:
    from dataclasses import replace

    from tubelet.prepare.pipeline import PREVIEW, prepare
    from tubelet.progress import Bar

    print(f"found {plan.kind}")
    print(prepare(replace(plan, origin=origin), out, config, Bar).summary())
    print(f"{out}: ready to train on (data.root={out})")
    if config.preview:
        print(f"{out / PREVIEW} shows the first clips")


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
