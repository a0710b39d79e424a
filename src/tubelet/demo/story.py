"""The full pipeline on a synthetic data set: data, pre-training, fine-tuning, tests, and a report.

Every step resumes where it was stopped and is skipped when it is finished, and so is the demo.
"""

import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tubelet.checkpoints.load import load_model
from tubelet.data.dataset import read_clip
from tubelet.data.manifest import Manifest, read_manifest
from tubelet.demo.clock import Clock, planned_seconds
from tubelet.demo.motion_videos import SyntheticConfig, record_settings, write_synthetic
from tubelet.files import write_json
from tubelet.machine import available_cores, processor, version
from tubelet.masking import RunningCellMasking, TubeMasking
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.classifier import VideoClassifier
from tubelet.models.flops import gflops_per_view, parameter_count
from tubelet.progress import Bar, in_minutes, time_left
from tubelet.recipe.loading import load_recipe, to_yaml
from tubelet.recipe.schema import Recipe
from tubelet.report.contents import Chart, Curve, DemoReport, Picture, Result
from tubelet.report.evaluation_contents import worst_clips
from tubelet.report.page import write_report
from tubelet.report.run_contents import reconstruction_picture
from tubelet.results.accuracy import Evaluation
from tubelet.run.evaluation import EvaluationConfig, evaluate_model
from tubelet.run.prediction import clip_of, views_of
from tubelet.run.run_record import LOG_FILE
from tubelet.run.training import run_recipe
from tubelet.settings import to_plain
from tubelet.train.runtime import Runtime, RuntimeConfig

MAR_RATIOS = (0.0, 0.25, 0.5, 0.75)  # fractions of the tokens masked when MAR is tested
RECONSTRUCTION_RATIOS = (0.75, 0.9, 0.95)
_NUM_RECONSTRUCTED = 4  # videos
_NUM_WORST = 8  # clips
_TRAINING_STEPS = {  # run -> description
    "pretrain": "pre-train without labels, 90 % of the tokens masked",
    "finetune_mar": "fine-tune on half of the tokens (MAR)",
    "finetune_full": "fine-tune on all tokens",
    "finetune_scratch": "train the same classifier without pre-training",
}
_TOO_SHORT = (
    "This is the quick demo. It is too short to learn: its accuracies are near chance. Omit --quick to learn."
)


@dataclass(frozen=True)
class DemoSettings:
    """Whether the demo is the quick one, the data set, and changes to all four recipes."""

    quick: bool
    data: SyntheticConfig
    overrides: tuple[str, ...]
    runtime: RuntimeConfig


@dataclass(frozen=True)
class DemoTest:
    """A test of the model of one run; `group` decides the color in the report."""

    name: str
    group: str
    run: str
    masking: RunningCellMasking | None
    highlight: bool = False


TESTS = (
    DemoTest("Fine-tuned, all tokens", "pre-trained", "finetune_full", None, highlight=True),
    DemoTest("Trained from scratch, all tokens", "from scratch", "finetune_scratch", None, highlight=True),
    *(
        DemoTest(
            f"MAR, {ratio:.0%} masked at test",
            "MAR",
            "finetune_mar",
            RunningCellMasking(ratio=ratio),
            highlight=ratio == 0.5,
        )
        for ratio in MAR_RATIOS
    ),
)


def demo_settings(*, quick: bool, seed: int, runtime: RuntimeConfig | None = None) -> DemoSettings:
    """Return the settings of the full demo, or of the quick one, which is too short to learn."""
    runtime = runtime or RuntimeConfig()
    data = SyntheticConfig(seed=seed)
    short: tuple[str, ...] = ()
    if quick:
        data = SyntheticConfig(train=96, val=24, test=24, seed=seed)
        short = ("optim.epochs=1", "optim.batch_size=32", "optim.warmup_epochs=0")
    where = (f"runtime.device={runtime.device}", f"runtime.precision={runtime.precision}")
    return DemoSettings(quick, data, (*short, f"seed={seed}", *where), runtime)


def run_demo(out: Path, *, quick: bool = False, seed: int = 0, runtime: RuntimeConfig | None = None) -> Path:
    """Run the demo in the folder `out` and return the path of its report.

    Raises:
        UserError: `out` contains a demo with other settings; the message lists the differences.
    """
    out = Path(out)
    settings = demo_settings(quick=quick, seed=seed, runtime=runtime)
    recipes = {run: _recipe(run, out, settings) for run in _TRAINING_STEPS}
    record_settings(
        out / "demo.json",
        {"data": asdict(settings.data)} | {run: _without_paths(recipe) for run, recipe in recipes.items()},
    )
    report = out / "report.html"
    if report.exists():
        print(f"This demo is already finished. Its report: {report.resolve()}")
        return report
    clock = Clock(planned_seconds(out, settings.data, recipes, len(TESTS), settings.runtime))
    print(
        f"Expected time on this machine: {in_minutes(clock.left_s)}. Ctrl-C stops, the same command resumes."
    )
    with _stopwatch(out / "seconds.json") as seconds:
        with (
            _step(clock, "data", 1, "write the motion data set"),
            Bar("writing videos", after_s=clock.left_s) as bar,
        ):
            write_synthetic(out / "data", settings.data, progress=bar.show)
        for number, (run, recipe) in enumerate(recipes.items(), start=2):
            with _step(clock, run, number, _TRAINING_STEPS[run]):
                run_recipe(recipe, out / run, after_s=clock.left_s)
        with _step(clock, "tests", len(recipes) + 2, "test on videos that no training has used"):
            evaluations = _run_tests(out, settings.runtime)
        with _step(clock, "report", len(recipes) + 3, "write the report"):
            write_report(_report(out, settings, recipes, evaluations, seconds()), report)
    print(f"\nOpen the report in a browser: {report.resolve()}")
    if quick:
        print(_TOO_SHORT)
    return report


@contextmanager
def _step(clock: Clock, name: str, number: int, what: str) -> Iterator[None]:
    """Announce a step and take its time."""
    print(f"\n[{number}/{len(_TRAINING_STEPS) + 3}, {time_left(clock.left_s)}] {what}", flush=True)
    with clock.step(name):
        yield


def _recipe(run: str, out: Path, settings: DemoSettings) -> Recipe:
    changes = [f"data.root={json.dumps(str(out / 'data'))}", *settings.overrides]
    if run in ("finetune_mar", "finetune_full"):
        changes.append(f"init={json.dumps(str(out / 'pretrain'))}")
    return load_recipe(f"demo/{run}", *changes)


def _without_paths(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's settings without the paths, which depend on where the demo's folder is."""
    plain = {key: value for key, value in to_plain(recipe).items() if key != "init"}
    return plain | {"data": {key: value for key, value in plain["data"].items() if key != "root"}}


@contextmanager
def _stopwatch(path: Path) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds of work, also of earlier calls, as recorded in a file."""
    before = float(json.loads(path.read_text())) if path.exists() else 0.0
    start = time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - start

    try:
        yield seconds
    finally:
        write_json(path, seconds())


def _run_tests(out: Path, config: RuntimeConfig) -> list[tuple[Evaluation, Result]]:
    """Evaluate and describe the model of each test; evaluations of the same weights are read from disk."""
    manifest = read_manifest(out / "data", "test")
    found = []
    with Runtime(config) as runtime:
        for test in TESTS:
            model = load_model(out / test.run)
            assert isinstance(model, VideoClassifier)
            model.to(runtime.device)
            suffix = f"_{test.masking.ratio:.2f}" if test.masking else ""
            path, weights = out / "tests" / f"{test.run}{suffix}.npz", out / test.run / "model.safetensors"
            views = views_of(model)
            if path.exists() and path.stat().st_mtime > weights.stat().st_mtime:
                evaluation = Evaluation.load(path)
            else:
                with Bar(test.name) as bar:
                    evaluation = evaluate_model(
                        model,
                        manifest,
                        EvaluationConfig(clip=clip_of(model), views=views, masking=test.masking),
                        runtime,
                        progress=bar.show,
                    )
                path.parent.mkdir(exist_ok=True)
                evaluation.save(path)
            print(f"{test.name}: {evaluation.headline()}", flush=True)
            result = Result(
                name=test.name,
                group=test.group,
                masked=test.masking.ratio if test.masking else 0.0,
                top1=evaluation.top(1),
                top5=evaluation.top(5),
                gflops=gflops_per_view(model, test.masking),
                parameters=parameter_count(model),
                clips_per_second=evaluation.views_per_second,
                views=f"{views.clips} x {views.crops}",
                highlight=test.highlight,
            )
            found.append((evaluation, result))
    return found


def _report(
    out: Path,
    settings: DemoSettings,
    recipes: dict[str, Recipe],
    tested: Sequence[tuple[Evaluation, Result]],
    seconds: float,
) -> DemoReport:
    manifest = read_manifest(out / "data", "test")
    full, result = tested[0]
    return DemoReport(
        title="Tubelet demo",
        lead=(
            f"A small masked autoencoder was trained on {settings.data.train} unlabeled videos. From it, two "
            f"classifiers were fine-tuned on {len(manifest.classes)} motions that no single frame shows: on "
            "all tokens, and on half of them (MAR). A third was trained from scratch for comparison."
        ),
        caution=_TOO_SHORT if settings.quick else "",
        results=[result for _, result in tested],
        charts=_charts(out),
        reconstructions=list(_reconstructions(out, manifest, full.names)),
        confusion=full.confusion(),
        confusion_of=result.name,
        classes=manifest.classes,
        worst=worst_clips(full, manifest, _NUM_WORST),
        recipes=[(run, to_yaml(recipe)) for run, recipe in recipes.items()],
        next_steps=_next_steps(out, manifest),
        facts=_facts(settings.data, seconds),
        broken=sorted(full.broken),
        tested=len(full.names),
    )


def _charts(out: Path) -> list[Chart]:
    def curve(name: str, run: str, key: str, factor: float = 1) -> Curve:
        lines = [json.loads(line) for line in (out / run / LOG_FILE).read_text().splitlines()]
        points = [(line["epoch"], line[key]) for line in lines if key in line]
        return Curve(name, [x for x, _ in points], [factor * y for _, y in points])

    def chart(title: str, y_label: str, key: str, factor: float = 1) -> Chart:
        classifiers = {test.group: test.run for test in TESTS}
        curves = [curve(group, run, key, factor) for group, run in classifiers.items()]
        return Chart(title, "epoch", y_label, curves)

    return [
        Chart("Pre-training", "epoch", "reconstruction loss", [curve("pre-training", "pretrain", "loss")]),
        chart("Accuracy while fine-tuning", "top-1 on the validation videos (%)", "val/top1", 100),
        chart("Loss while fine-tuning", "classification loss on the training clips", "classification"),
    ]


def _reconstructions(out: Path, manifest: Manifest, readable: Sequence[str]) -> Iterator[Picture]:
    model = load_model(out / "pretrain")
    assert isinstance(model, MaskedAutoencoder)
    samples = {sample.name: sample for sample in manifest.samples}
    every = max(1, len(readable) // _NUM_RECONSTRUCTED)
    for number, path in enumerate(readable[::every][:_NUM_RECONSTRUCTED]):
        sample = samples[path]
        name = manifest.classes[sample.label] if sample.label is not None else sample.name
        clip = read_clip(str(manifest.locate(sample)), clip_of(model), size=model.config.encoder.image_size)
        for ratio in RECONSTRUCTION_RATIOS:
            mask = TubeMasking(ratio=ratio).sample(model.grid, 1, torch.Generator().manual_seed(number))
            yield reconstruction_picture(name, model, clip, mask)


def _next_steps(out: Path, manifest: Manifest) -> list[tuple[str, str]]:
    """Return what a reader may try with the models of this demo, and then with videos of one's own."""
    video = manifest.locate(manifest.samples[0])
    return [
        ("Recognize a motion", f"tubelet predict {out / 'finetune_mar'} {video}"),
        ("See a reconstruction", f"tubelet visualize {out / 'pretrain'} {video} -o reconstruction.gif"),
        ("Test on a quarter of the tokens", f"tubelet evaluate {out / 'finetune_mar'} masking.ratio=0.75"),
        (
            "Train on your own videos, one folder for each class",
            "tubelet prepare folder ~/Videos --out data/mine\n"
            f"tubelet finetune own/finetune data.root=data/mine init={out / 'pretrain'}",
        ),
    ]


def _facts(data: SyntheticConfig, seconds: float) -> list[tuple[str, str]]:
    """Return what a reader needs to judge the numbers."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    python = f"Python {platform.python_version()}"
    videos = f"{data.train} + {data.val} + {data.test} videos"
    return [
        ("machine", f"{processor()}, {available_cores()} cores, {gpu}"),
        ("versions", f"Tubelet {version()}, PyTorch {torch.__version__}, {python}"),
        ("commit", _commit()),
        ("data set", f"{videos}, {data.size} x {data.size}, seed {data.seed}"),
        ("time", f"{seconds / 60:.1f} minutes"),
    ]


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=7"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a git checkout"
