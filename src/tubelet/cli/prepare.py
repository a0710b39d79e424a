"""`tubelet prepare`: a verb for each kind of source."""

import inspect
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tubelet.cli.help import Verb, Verbs
from tubelet.errors import did_you_mean
from tubelet.prepare.lists.formats import FORMATS

if TYPE_CHECKING:
    from tubelet.prepare.lists.annotations import Annotations
    from tubelet.prepare.plan import PreparePlan, SplitDraw
    from tubelet.prepare.report import PrepareReport

prepare = typer.Typer(
    cls=Verbs,
    help="Make a data set from videos: check, encode, list.\n\n"
    "Examples:\ntubelet prepare folder ~/Videos --out data/mine --encode --preview\n"
    "tubelet prepare kinetics400 /data/k400 --out data/k400 --encode",
    no_args_is_help=True,
)
Source = Annotated[
    Path, typer.Argument(help="The folder with videos and lists, as downloaded; it is only read.")
]
Root = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="The videos' folder, if it is not SOURCE; or its URL.")
]
Fold = Annotated[int, typer.Option(min=1, max=3, metavar="N", help="Which of the three official splits.")]
ValShare = Annotated[
    float | None,
    typer.Option("--val", metavar="SHARE", help="Share for validation, if it is drawn (0.1)."),
]
TestShare = Annotated[
    float | None,
    typer.Option("--test", metavar="SHARE", help="Share for testing, if it is drawn (0.1); 0: no test."),
]
ClassFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Class names in order, or with their numbers; any project's."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Processes (default: one for each core); 0 is only this one."),
]


def _list_format(name: str | None) -> str | None:
    if name is not None and name not in FORMATS:
        raise typer.BadParameter(f"'{name}' is not one of {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}")
    return name


ListFormat = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help=f"The lists' format, if it is not detected: {', '.join(FORMATS)}.",
        callback=_list_format,
        autocompletion=lambda incomplete: [name for name in FORMATS if name.startswith(incomplete)],
    ),
]


def _prepare(
    plan: "PreparePlan",
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="For train.csv, val.csv, test.csv and report.txt.")
    ],
    encode: Annotated[
        bool, typer.Option("--encode", help="Write small copies that train much faster to OUT/videos.")
    ] = False,
    short_side: Annotated[
        int, typer.Option(metavar="PX", help="Short side of the copies; no video is enlarged.")
    ] = 256,
    preview: Annotated[
        bool, typer.Option("--preview", help="Draw a first training batch: OUT/preview.png.")
    ] = False,
    workers: Workers = None,
) -> None:
    """Prepare the videos of a plan; its options are those of every verb."""
    from tubelet.prepare.pipeline import PREVIEW, PrepareConfig
    from tubelet.prepare.pipeline import prepare as prepare_plan

    config = PrepareConfig(encode=encode, short_side=short_side, preview=preview, workers=workers)
    print(f"found {plan.kind}")
    report = prepare_plan(plan, out, config)
    print(report.summary())
    if preview:
        print(f"{out / PREVIEW} shows the first clips")
    print(f"{out} is ready. Next:\n  {_next_command(report, out)}")


def _next_command(report: "PrepareReport", out: Path) -> str:
    """Return the command that uses a data set: training if it can be trained on, with labels or without."""
    root = shlex.quote(f"data.root={out}")
    if "train" not in report.samples:
        return f"tubelet evaluate MODEL {root} data.split={next(iter(report.samples))}"
    if not report.has_labels:
        return f"tubelet pretrain own/pretrain {root}"
    return f"tubelet finetune own/finetune {root}" + ("" if "val" in report.samples else " data.val=null")


def _verb(kind: str, help_text: str | None = None) -> Callable[[Callable[..., "PreparePlan"]], None]:
    """Add the verb of a kind of source; the decorated function returns the plan for its own arguments.

    The verb has the arguments of that function and the options of `_prepare`.
    """

    def add(make_plan: Callable[..., "PreparePlan"]) -> None:
        own = dict(inspect.signature(make_plan).parameters)
        shared = dict(inspect.signature(_prepare).parameters)
        del shared["plan"]

        def verb(**arguments: Any) -> None:
            from dataclasses import replace

            plan = make_plan(**{name: arguments[name] for name in own})
            words = _words(kind, {name: arguments[name] for name in own if name not in shared})
            _prepare(replace(plan, origin=words), **{name: arguments[name] for name in shared})

        parameters = sorted(
            {**own, **shared}.values(), key=lambda parameter: parameter.default is not parameter.empty
        )
        verb.__doc__ = help_text or make_plan.__doc__
        verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        prepare.command(kind, cls=Verb)(verb)

    return add


def _words(kind: str, arguments: dict[str, Any]) -> tuple[str, ...]:
    """Return the command that determines a data set, with absolute paths and without defaults."""
    from tubelet.prepare.paths import absolute_path

    words = [kind]
    for name, value in arguments.items():
        if name == "source":
            words.append(absolute_path(value))
        elif name == "sources":
            words += map(absolute_path, sorted(value))
        elif value or (name in ("val", "test") and value is not None):
            words.append(f"--{name.replace('_', '-')}")
            if value is not True:
                words.append(absolute_path(value) if name in ("root", "classes") else str(value))
    return tuple(words)


def _plan_annotations(
    read: Callable[[Sequence[Path]], "Annotations"], source: Path, root: str | None, out: Path
) -> "PreparePlan":
    """Plan a data set that has annotation files, which `read` reads."""
    from tubelet.prepare.find_files import find_files
    from tubelet.prepare.plan_lists import plan_annotations

    files, videos = find_files(source, root, out)
    return plan_annotations(read(files.texts), videos)


@prepare.command("synthetic", cls=Verb)
def prepare_synthetic(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The data set's folder.")],
    size: Annotated[int, typer.Option(metavar="PX", help="Side of the frames.")] = 64,
    train: Annotated[int, typer.Option(metavar="N", help="Number of videos for training.")] = 3000,
    val: Annotated[int, typer.Option(metavar="N", help="Number of videos for validation.")] = 240,
    test: Annotated[int, typer.Option(metavar="N", help="Number of videos for testing.")] = 480,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed makes the same pixels.")] = 0,
    workers: Workers = None,
) -> None:
    """Write the motion data set: twelve classes that differ only in motion.

    Examples:
        tubelet prepare synthetic data/motion
        tubelet prepare synthetic data/tiny --train 96 --val 24 --test 24
    """
    from tubelet.demo.motion_videos import SyntheticConfig, write_synthetic
    from tubelet.progress import Bar

    config = SyntheticConfig(size=size, train=train, val=val, test=test, seed=seed)
    with Bar("writing videos") as bar:
        write_synthetic(out, config, workers=workers, progress=bar.show)
    print(f"{out}: {train} videos for training, {val} for validation, {test} for testing. Next:")
    print(f"  tubelet pretrain demo/pretrain {shlex.quote(f'data.root={out}')}")


def _kinetics(num_classes: int, example: str) -> None:
    """Add the verb of one of the three Kinetics."""
    kind = f"kinetics{num_classes}"
    about = (
        f"Kinetics-{num_classes}: the annotation files and the clips.\n\n"
        "They are train.csv, val.csv and test.csv; the clips are in class folders or not.\n\nExamples:\n"
        f"tubelet prepare {kind} {example}\n"
        f"tubelet prepare {kind} annotations --root videos --out data/{kind}"
    )

    @_verb(kind, about)
    def kinetics(source: Source, out: Path, root: Root = None, classes: ClassFile = None) -> "PreparePlan":
        from tubelet.prepare.lists.annotations import read_kinetics
        from tubelet.prepare.lists.class_names import read_classes

        names = read_classes(classes) if classes else ()
        return _plan_annotations(lambda texts: read_kinetics(texts, num_classes, names), source, root, out)


_kinetics(400, "/data/k400 --out data/k400 --encode")
_kinetics(600, "/data/k600 --out data/k600 --encode")
_kinetics(700, "/data/k700 --out data/k700 --classes names.txt")


@_verb("ssv2")
def _ssv2(source: Source, out: Path, root: Root = None) -> "PreparePlan":
    """Something-Something v2: the JSON lists, labels.json and the .webm files.

    Examples:
        tubelet prepare ssv2 /data/ssv2 --out data/ssv2 --encode
        tubelet prepare ssv2 labels --root 20bn-something-something-v2 --out data/ssv2
    """
    from tubelet.prepare.lists.annotations import read_ssv2

    return _plan_annotations(read_ssv2, source, root, out)


@_verb("ucf101")
def _ucf101(source: Source, out: Path, root: Root = None, fold: Fold = 1) -> "PreparePlan":
    """UCF101: classInd.txt, trainlist01.txt, testlist01.txt and the class folders.

    Examples:
        tubelet prepare ucf101 /data/UCF-101 --out data/ucf101 --fold 1
        tubelet prepare ucf101 /data/UCF-101 --out data/ucf101_2 --fold 2
    """
    from tubelet.prepare.lists.annotations import read_ucf101

    return _plan_annotations(lambda texts: read_ucf101(texts, fold), source, root, out)


@_verb("hmdb51")
def _hmdb51(source: Source, out: Path, root: Root = None, fold: Fold = 1) -> "PreparePlan":
    """HMDB51: the *_test_split1.txt lists and the class folders.

    Examples:
        tubelet prepare hmdb51 /data/hmdb51 --out data/hmdb51 --fold 1
        tubelet prepare hmdb51 /data/hmdb51 --out data/hmdb51_2 --fold 2
    """
    from tubelet.prepare.lists.annotations import read_hmdb51

    return _plan_annotations(lambda texts: read_hmdb51(texts, fold), source, root, out)


@_verb("folder")
def _folder(
    source: Annotated[str, typer.Argument(help="The folder with the videos, or its URL; it is only read.")],
    out: Path,
    val: ValShare = None,
    test: TestShare = None,
    split_seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of the split, if it is drawn.")
    ] = 0,
    unlabeled: Annotated[
        bool, typer.Option("--unlabeled", help="Folders are not classes: all videos are for pre-training.")
    ] = False,
    group: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            help="A regular expression with one group on the relative paths, such as '(subject\\d+)': videos "
            "of one subject get one split.",
        ),
    ] = "",
) -> "PreparePlan":
    """Your own videos: a folder for each class, also in train, val and test folders; or just videos.

    Examples:
        tubelet prepare folder ~/Videos/phone --out data/phone --encode --preview
        tubelet prepare folder ~/Videos --unlabeled --out data/all
    """
    from tubelet.prepare.find_files import find_videos
    from tubelet.prepare.plan_folder import plan_folder

    draw = _draw(split_seed, val, test)
    return plan_folder(find_videos(source, out), draw=draw, unlabeled=unlabeled, group=group)


@_verb("list")
def _list(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="LIST", help="Lists, one for each split, or a folder that contains them."),
    ],
    root: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="The folder that the lists' paths are relative to, or its URL."),
    ] = None,
    classes: ClassFile = None,
    format: ListFormat = None,
    columns: Annotated[
        str,
        typer.Option(
            metavar="FIELDS",
            help="Instead of a format: the fields of a line, such as path,frames,label... or "
            "path,start,end,label.",
        ),
    ] = "",
    label: Annotated[
        str,
        typer.Option(metavar="COLUMN", help="The column of a table that contains the labels, if unusual."),
    ] = "",
    group: Annotated[
        str,
        typer.Option(
            metavar="COLUMN|PATTERN",
            help="Videos of one group, such as a subject, get one split: the column of the groups, or a "
            "regular expression with one group on the relative paths, such as '(subject\\d+)'. Draws the "
            "splits if the lists do not specify them.",
        ),
    ] = "",
    val: ValShare = None,
    test: TestShare = None,
    split_seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of the splits that are drawn.")
    ] = 0,
) -> "PreparePlan":
    """Lists of other projects, CSV, TSV, JSON or JSONL.

    Those of VideoMAE, MMAction2, MAR, MAE-ST, PySlowFast, ActivityNet, Charades, EPIC-KITCHENS and AVA.
    With columns such as start and end each line is a segment of its video.

    Examples:
        tubelet prepare list train.csv val.csv --root videos --out data/mine
        tubelet prepare list lists/ --classes names.txt --out data/k400 --encode
    """
    from tubelet.prepare.lists.class_names import read_classes
    from tubelet.prepare.plan_lists import plan_lists

    names = read_classes(classes) if classes else ()
    fields = columns.split(",") if columns else ()
    drawn = group or val is not None or test is not None
    draw = _draw(split_seed, val, test) if drawn else None
    return plan_lists(sources, root, names, fields, format, label=label, group=group, draw=draw)


def _draw(seed: int, val: float | None, test: float | None) -> "SplitDraw":
    """Return how splits are drawn, with a tenth for each share that is not given."""
    from tubelet.prepare.plan import SplitDraw

    shares = {name: share for name, share in (("val", val), ("test", test)) if share is not None}
    return SplitDraw(seed=seed, **shares)
