"""The whole story on one made data set: prepare, pre-train, fine-tune, test, and a report to look at.

Every step goes on where it was stopped and returns at once when it is done, so the demo as a whole does too.
"""

import io
import json
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from tubelet.checkpoints.load import load_model
from tubelet.clips import AnyClip, Views
from tubelet.data.dataset import read_clip
from tubelet.data.manifest import Manifest, read_manifest
from tubelet.demo.motion_videos import SyntheticConfig, write_synthetic
from tubelet.errors import UserError
from tubelet.files import replacing
from tubelet.machine import available_cores, processor, version
from tubelet.masking import RunningCellMasking, TubeMasking
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.classifier import VideoClassifier
from tubelet.models.flops import gflops_per_view, parameter_count
from tubelet.progress import Bar
from tubelet.recipe.loading import load_recipe, to_yaml
from tubelet.recipe.schema import Recipe
from tubelet.report.contents import Chart, Curve, Picture, Report, Result, Worst
from tubelet.report.page import write_report
from tubelet.run.accuracy import Evaluation
from tubelet.run.evaluation import evaluate_model
from tubelet.run.prediction import clip_of, views_of
from tubelet.run.training import run_recipe
from tubelet.run.visualize import film_strip, reconstruction
from tubelet.settings import difference, to_plain
from tubelet.train.runtime import Runtime

RATIOS = (0.0, 0.25, 0.5, 0.75)  # shares of the tokens masked in MAR's tests
PAINTED_RATIOS = (0.75, 0.9, 0.95)


@dataclass(frozen=True)
class Plan:
    """What the demo does: the full one learns, the quick one only takes every step."""

    data: SyntheticConfig
    overrides: tuple[str, ...]


def make_plan(*, quick: bool, seed: int) -> Plan:
    """The settings of the full or the quick demo."""
    if quick:
        return Plan(
            SyntheticConfig(train=96, val=24, test=24, seed=seed),
            ("optim.epochs=1", "optim.batch_size=32", "optim.warmup_epochs=0", f"seed={seed}"),
        )
    return Plan(SyntheticConfig(seed=seed), (f"seed={seed}",))


def run_demo(out: Path, *, quick: bool = False, seed: int = 0) -> Path:
    """Run the demo into `out` and return the path of its report.

    Raises:
        UserError: `out` holds a demo with other settings; the message shows the difference.
    """
    out = Path(out)
    report = out / "report.html"
    plan = make_plan(quick=quick, seed=seed)
    runs = dict(_recipes(out, plan))
    _claim(out, plan, runs)
    if report.exists():
        print(f"This demo is finished already. Its report: {report.resolve()}")
        return report
    with _Clock(out / "seconds.json") as clock:
        _tell(out, plan, runs, report, clock)
    print(f"\nOpen the report in a browser: {report.resolve()}")
    if quick:
        print(
            "A minute is too short to learn: the accuracies are those of guessing. Without --quick it learns."
        )
    return report


def _tell(out: Path, plan: Plan, runs: dict[str, Recipe], report: Path, clock: "_Clock") -> None:
    _say(1, "write the motion data set")
    with Bar("writing videos") as bar:
        write_synthetic(out / "data", plan.data, progress=bar.show)
    for number, (name, recipe) in enumerate(runs.items(), start=2):
        _say(number, _TITLES[name])
        run_recipe(recipe, out / name)
    _say(len(runs) + 2, "test on videos never seen")
    manifest = read_manifest(out / "data", "test")
    tests = list(_test_all(out, manifest))
    _say(len(runs) + 3, "write the report")
    facts = _facts(plan, clock.seconds())
    write_report(_report(out, manifest, runs, tests, facts), report)


_TITLES = {
    "pretrain": "pre-train without labels: hide 90 % of the tokens and paint them back",
    "finetune_mar": "fine-tune on half of the tokens (MAR)",
    "finetune_full": "fine-tune on all tokens",
    "finetune_scratch": "the same classifier without pre-training",
}


def _say(step: int, what: str) -> None:
    print(f"\n[{step}/{len(_TITLES) + 3}] {what}", flush=True)


def _recipes(out: Path, plan: Plan) -> Iterator[tuple[str, Recipe]]:
    """The demo's runs in order, by folder name."""
    for name in _TITLES:
        settings = [f"data.root={json.dumps(str(out / 'data'))}", *plan.overrides]
        if name in ("finetune_mar", "finetune_full"):
            settings.append(f"init={json.dumps(str(out / 'pretrain'))}")
        yield name, load_recipe(f"demo/{name}", *settings)


class _Clock:
    """The time that the demo took, interruptions left out: a file carries it over them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.monotonic()
        self.before = float(json.loads(path.read_text())) if path.exists() else 0.0

    def seconds(self) -> float:
        """The seconds so far."""
        return self.before + time.monotonic() - self.started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self.seconds()))


def _claim(out: Path, plan: Plan, runs: dict[str, Recipe]) -> None:
    """Make the folder this demo's own, or find that it is."""
    path = out / "demo.json"
    settings = {"data": asdict(plan.data)} | {name: to_plain(recipe) for name, recipe in runs.items()}
    if path.exists():
        changed = difference(_placeless(json.loads(path.read_text(encoding="utf-8"))), _placeless(settings))
        if changed:
            listed = "\n  ".join(changed)
            raise UserError(
                f"{out} holds a demo with other settings; choose another folder with --out, or remove it. "
                f"What differs (there -> now):\n  {listed}"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _placeless(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the paths, which follow from the demo's own folder."""
    return {
        name: {key: value for key, value in part.items() if key != "init"}
        | ({"data": {k: v for k, v in part["data"].items() if k != "root"}} if "data" in part else {})
        for name, part in settings.items()
    }


def _facts(plan: Plan, seconds: float) -> list[tuple[str, str]]:
    """What a reader needs to judge the numbers."""
    data = plan.data
    return [
        ("machine", f"{processor()}, {available_cores()} cores, {_gpu()}"),
        (
            "versions",
            f"Tubelet {version()}, PyTorch {torch.__version__}, Python {platform.python_version()}",
        ),
        ("commit", _commit()),
        (
            "data set",
            f"{data.train} + {data.val} + {data.test} videos, {data.size} x {data.size}, seed {data.seed}",
        ),
        ("time", f"{seconds / 60:.1f} minutes"),
    ]


def _gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _commit() -> str:
    """The commit of the source, where it is a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=7"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a git checkout"


@dataclass(frozen=True)
class Test:
    """One model tested one way."""

    name: str
    group: str
    run: str
    masking: RunningCellMasking | None
    highlight: bool = False


def _tests() -> Iterator[Test]:
    yield Test("Fine-tuned, all tokens", "pre-trained", "finetune_full", None, highlight=True)
    yield Test("Trained from scratch, all tokens", "from scratch", "finetune_scratch", None, highlight=True)
    for ratio in RATIOS:
        name = f"MAR, {ratio:.0%} masked at test"
        masking = RunningCellMasking(ratio=ratio)
        yield Test(name, "MAR", "finetune_mar", masking, highlight=ratio == 0.5)


def _test_all(out: Path, manifest: Manifest) -> Iterator[tuple[Test, Evaluation, Result]]:
    with Runtime() as runtime:
        for test in _tests():
            model = _classifier(out / test.run).to(runtime.device)
            views = views_of(model)
            outcome = _tested(out, test, model, manifest, views, runtime)
            print(f"{test.name}: {outcome.summary()}", flush=True)
            yield (
                test,
                outcome,
                Result(
                    name=test.name,
                    group=test.group,
                    masked=test.masking.ratio if test.masking else 0.0,
                    top1=outcome.top(1),
                    top5=outcome.top(5),
                    gflops=gflops_per_view(model, test.masking),
                    parameters=parameter_count(model),
                    clips_per_second=outcome.views_per_second,
                    views=f"{views.clips} x {views.crops}",
                    highlight=test.highlight,
                ),
            )


def _tested(
    out: Path, test: Test, model: VideoClassifier, manifest: Manifest, views: Views, runtime: Runtime
) -> Evaluation:
    """The outcome of a test, from disk where it was made before with the same weights."""
    suffix = f"_{test.masking.ratio:.2f}" if test.masking else ""
    path = out / "tests" / f"{test.run}{suffix}.npz"
    weights = out / test.run / "model.safetensors"
    if path.exists() and path.stat().st_mtime > weights.stat().st_mtime:
        return Evaluation.load(path)
    with Bar(test.name) as bar:
        outcome = evaluate_model(
            model,
            manifest,
            clip=clip_of(model),
            views=views,
            runtime=runtime,
            masking=test.masking,
            progress=bar.show,
        )
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        outcome.save(temporary)
    return outcome


def _classifier(folder: Path) -> VideoClassifier:
    model = load_model(folder)
    assert isinstance(model, VideoClassifier)
    return model


def _report(
    out: Path,
    manifest: Manifest,
    runs: dict[str, Recipe],
    tests: list[tuple[Test, Evaluation, Result]],
    facts: list[tuple[str, str]],
) -> Report:
    full = tests[0][1]
    return Report(
        title="Tubelet demo",
        lead=(
            f"A small masked autoencoder learned from {len(read_manifest(out / 'data', 'train'))} unlabeled "
            f"videos, then learned to recognise {len(manifest.classes)} motions that no single frame tells "
            "apart: on all tokens, on half of them (MAR), and from scratch for comparison."
        ),
        results=[result for _, _, result in tests],
        charts=_charts(out),
        reconstructions=list(_paintings(out, manifest, full.names)),
        confusion=full.confusion(),
        confusion_of=tests[0][0].name,
        classes=manifest.classes,
        worst=list(_worst(full, manifest, runs["finetune_full"].data.clip)),
        recipes=[(name, to_yaml(recipe)) for name, recipe in runs.items()],
        facts=facts,
        broken=sorted(full.broken),
        tested=len(full.names),
    )


def _charts(out: Path) -> list[Chart]:
    def curve(name: str, run: str, key: str) -> Curve:
        lines = (json.loads(line) for line in (out / run / "log.jsonl").read_text().splitlines())
        points = [(line["epoch"], line[key]) for line in lines if key in line]
        return Curve(name, [x for x, _ in points], [y for _, y in points])

    classified = {
        "pre-trained": "finetune_full",
        "MAR": "finetune_mar",
        "from scratch": "finetune_scratch",
    }
    return [
        Chart("Pre-training", "epoch", "reconstruction loss", [curve("pre-training", "pretrain", "loss")]),
        Chart(
            "Fine-tuning",
            "epoch",
            "top-1 on the validation videos",
            [curve(name, run, "val/top1") for name, run in classified.items()],
        ),
        Chart(
            "Fine-tuning",
            "epoch",
            "classification loss on the training clips",
            [curve(name, run, "classification") for name, run in classified.items()],
        ),
    ]


def _paintings(out: Path, manifest: Manifest, readable: list[str], videos: int = 4) -> Iterator[Picture]:
    model = load_model(out / "pretrain")
    assert isinstance(model, MaskedAutoencoder)
    by_name = {sample.path: sample for sample in manifest.samples}
    for number, path in enumerate(readable[:: max(1, len(readable) // videos)][:videos]):
        sample = by_name[path]
        clip = read_clip(str(manifest.locate(sample)), clip_of(model), size=model.config.encoder.image_size)
        for ratio in PAINTED_RATIOS:
            generator = torch.Generator().manual_seed(number)
            mask = TubeMasking(ratio=ratio).sample(model.grid, 1, generator)
            hidden = mask.masked.shape[1] / model.grid.volume
            name = manifest.classes[sample.label] if sample.label is not None else sample.path
            yield Picture(
                f"{name}, {hidden:.0%} masked",
                reconstruction(model, clip, mask).to_bytes("webp"),
                "image/webp",
            )


def _worst(outcome: Evaluation, manifest: Manifest, clip: AnyClip, count: int = 8) -> Iterator[Worst]:
    """The videos that got the most confident wrong answers."""
    confidence = outcome.probabilities.max(1)
    wrong = np.flatnonzero(outcome.probabilities.argmax(1) != outcome.labels)
    by_name = {sample.path: sample for sample in manifest.samples}
    for place in wrong[np.argsort(-confidence[wrong])][:count]:
        path = manifest.locate(by_name[outcome.names[place]])
        yield Worst(
            video=outcome.names[place],
            truth=manifest.classes[outcome.labels[place]],
            predicted=manifest.classes[outcome.probabilities[place].argmax()],
            probability=float(confidence[place]),
            strip=_png(film_strip(read_clip(str(path), clip, size=64), count=8, height=96)),
        )


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
