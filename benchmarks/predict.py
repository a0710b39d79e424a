"""Predicting the classes of videos with Tubelet and, in the same run, with Hugging Face's pipeline.

    python benchmarks/predict.py [FOLDER] [--files 8] [--rounds 3] [--json benchmarks/predict.json]

FOLDER has videos; without it, synthetic ones are made that resemble Kinetics. Both sides have the same files,
weights (random: they do not change the time), frames, crops and interpolation, which is checked by their
answers. Hugging Face's pipeline is measured as it is today, with its video processor, which decodes by
TorchCodec, and with its image processor, for which it decodes the first frames of the video by PyAV.

Each side has one process and one core. Times are CPU times of this process, so that other work on the machine
has little influence. The sides take turns file by file; results are medians over the rounds. The network of
Tubelet normalizes the pixels, too, which is part of the pipeline's preprocessing. *Its own scaling* is the
default, in one step with the conversion to RGB; the pipeline's antialiased resizing differs by a few levels.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tubelet import Predictor, save_model
from tubelet.clips import AnyClip, DenseClip, HuggingFaceClip, Views
from tubelet.data.dataset import read_views
from tubelet.data.manifest import read_manifest
from tubelet.errors import UserError
from tubelet.machine import processor
from tubelet.masking import RunningCellMasking
from tubelet.models.card import ModelCard
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig
from tubelet.models.sizes import SizeName
from tubelet.video.folder_videos import videos_in
from tubelet.video.reader import VideoError

READ, NETWORK, ALL = "reading", "network", "in all"
OURS, OURS_MAR, OURS_SCALED = "tubelet", "tubelet, MAR at 50 %", "tubelet, its own scaling"
THEIRS = {"video processor": "pipeline, TorchCodec", "image processor": "pipeline, PyAV"}
VIEWS = {"video processor": "16 frames of the whole video", "image processor": "first 64 frames, every 4th"}
AS_FOUND, ENCODED = "as found", "after prepare --encode"
OPTIONS: dict[str, dict[str, Any]] = {"video processor": {}, "image processor": {"frame_sampling_rate": 4}}


@dataclass(frozen=True, kw_only=True)
class FirstFrames(DenseClip):
    """The frames that Hugging Face's pipeline takes for an image processor: the first of any video."""

    def view(self, length: int, clip: int, clips: int, fps: float | None = None) -> list[int]:
        """Return those frames, at most the last of the video."""
        numbers = np.linspace(0, self.frames * self.stride - 1, self.frames, dtype=np.int64)
        return np.minimum(numbers, length - 1).tolist()


@dataclass(frozen=True)
class Row:
    """One measurement: videos a second of CPU time, in each round."""

    footage: str
    views: str
    side: str
    stage: str
    videos_per_second: list[float]


def classifier(size: SizeName, clip: AnyClip, *, mar: bool = False) -> VideoClassifier:
    """Return a classifier of 400 classes with random weights, the same in each call."""
    torch.manual_seed(0)
    config = ClassifierConfig(encoder=EncoderConfig(size=size, final_norm=mar), classes=400)
    if mar:
        config = replace(config, head=BridgingHeadConfig(), masking=RunningCellMasking(ratio=0.5))
    model = VideoClassifier(config)
    model.card = ModelCard(clip=clip, views=Views(geometry="huggingface"))
    return model.eval()


def pipeline(model: VideoClassifier, folder: Path, kind: str) -> Any:
    """Return Hugging Face's pipeline with the model's weights, with its video or its image processor."""
    import transformers

    transformers.logging.set_verbosity_error()
    save_model(model, folder, "huggingface")
    made = transformers.pipeline("video-classification", model=str(folder), device="cpu")
    if kind == "image processor":
        made.video_processor = None
    return made


def stages(
    model: VideoClassifier, mar: VideoClassifier, clip: AnyClip, peer: Any, kind: str
) -> dict[tuple[str, str], Callable[[Path], object]]:
    """Return what to measure for a file, by (side, stage); the network gets clips that are read already."""
    views, size = Views(geometry="huggingface"), model.config.encoder.image_size
    ours = {name: Predictor(each, workers=0) for name, each in ((OURS, model), (OURS_MAR, mar))}
    options = OPTIONS[kind]
    read: dict[tuple[str, Path], Any] = {}

    def read_ours(path: Path) -> None:
        read[OURS, path] = read_views(path, clip, views, size)

    def read_theirs(path: Path) -> None:
        read[THEIRS[kind], path] = peer.preprocess(str(path), **options)

    def compute_ours(name: str, path: Path) -> None:
        ours[name](read[OURS, path][0])

    def compute_theirs(path: Path) -> None:
        peer.forward(read[THEIRS[kind], path])

    def run_theirs(path: Path) -> None:
        peer(str(path), top_k=5, **options)

    def read_scaled(path: Path) -> None:
        read_views(path, clip, Views(), size)

    runs: dict[tuple[str, str], Callable[[Path], object]] = {
        (OURS, READ): read_ours,
        (OURS_SCALED, READ): read_scaled, (THEIRS[kind], READ): read_theirs,
        (THEIRS[kind], NETWORK): compute_theirs,
    }  # fmt: skip
    for name, predictor in ours.items():
        runs[name, NETWORK], runs[name, ALL] = partial(compute_ours, name), predictor
    return runs | {(THEIRS[kind], ALL): run_theirs}


def measured(
    runs: dict[tuple[str, str], Callable[[Path], object]], paths: Sequence[Path], rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Return videos a second of each stage in each round; before, the first video does not count.

    The stages do not alternate: what a network leaves of the caches would slow down whoever reads first. The
    sides do, and each is first as often as the others.
    """
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for number in range(rounds + 1):
        seconds = dict.fromkeys(runs, 0.0)
        for stage in (READ, NETWORK, ALL):
            sides = deque((key, run) for key, run in runs.items() if key[1] == stage)
            for path in paths if number else paths[:1]:
                for key, run in sides:
                    started = time.process_time()
                    run(path)
                    seconds[key] += time.process_time() - started
                sides.rotate()
        if number:
            for key, spent in seconds.items():
                speeds[key].append(len(paths) / spent)
    return speeds


def difference(model: VideoClassifier, peer: Any, kind: str, path: Path) -> float:
    """Return the largest difference of a class's probability between both sides, relative to the mean."""
    theirs = {each["label"]: each["score"] for each in peer(str(path), top_k=400, **OPTIONS[kind])}
    ours = Predictor(model, workers=0)(path).probabilities
    return max(abs(theirs[f"LABEL_{k}"] - float(p)) for k, p in enumerate(ours)) * len(ours)


def readable(folder: Path, most: int) -> Iterator[Path]:
    """Yield the first videos of a folder that both sides read."""
    from transformers import VideoMAEVideoProcessor

    process: Any = VideoMAEVideoProcessor()
    for path in videos_in(folder):
        try:
            read_views(path, HuggingFaceClip(), Views(), 32)
            process(str(path), num_frames=16, do_sample_frames=True)
        except Exception as error:  # a peer that cannot read a file must not end the run
            kind = "" if isinstance(error, VideoError) else "pipeline: "
            print(f"left out: {path} ({kind}{str(error).partition(chr(10))[0]})", file=sys.stderr)
            continue
        yield path
        if not (most := most - 1):
            return


def encoded(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Return the files that `tubelet prepare --encode` makes of these."""
    (folder / "found").mkdir()
    for number, path in enumerate(paths):
        (folder / "found" / f"{number:03d}{path.suffix}").symlink_to(path.absolute())
    words = ("prepare", "folder", folder / "found", "--out", folder / "data", "--unlabeled", "--encode")
    subprocess.run((sys.executable, "-m", "tubelet", *words), check=True, stdout=subprocess.DEVNULL)
    manifest = read_manifest(folder / "data", "train")
    return sorted(Path(manifest.locate(sample)) for sample in manifest.samples)


def measure(footage: dict[str, list[Path]], rounds: int, size: SizeName) -> dict[str, Any]:
    """Measure everything; return it as plain data."""
    rows: list[Row] = []
    differences: dict[str, float] = {}
    clips: dict[str, AnyClip] = {"video processor": HuggingFaceClip(), "image processor": FirstFrames()}
    with tempfile.TemporaryDirectory() as folder:
        for kind, clip in clips.items():
            model, mar = classifier(size, clip), classifier(size, clip, mar=True)
            peer = pipeline(model, Path(folder) / kind, kind)
            for name, paths in footage.items():
                differences[f"{name}, {VIEWS[kind]}"] = difference(model, peer, kind, paths[0])
                speeds = measured(stages(model, mar, clip, peer, kind), paths, rounds)
                rows += [Row(name, VIEWS[kind], *key, each) for key, each in speeds.items()]
    return {
        "processor": processor(),
        "load": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "files": len(footage[AS_FOUND]),
        "model": f"ViT-{size}",
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "torchcodec", "av")},
        "largest_difference": differences,
        "rows": [asdict(row) for row in rows],
    }


def table(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: videos a second of each side, and the ratio to the pipeline's."""
    speed = {
        (row["footage"], row["views"], row["side"], row["stage"]): statistics.median(row["videos_per_second"])
        for row in report["rows"]
    }
    yield "| videos a second (x the pipeline's) | reading and preprocessing | network | in all |"
    yield "| --- | ---: | ---: | ---: |"
    for kind, views in VIEWS.items():
        for footage in (AS_FOUND, ENCODED):
            for side in (OURS, OURS_SCALED, OURS_MAR, THEIRS[kind]):
                cells = []
                for stage in (READ, NETWORK, ALL):
                    value = speed.get((footage, views, side, stage), 0.0)
                    ratio = value / speed[footage, views, THEIRS[kind], stage]
                    shown = "" if side == THEIRS[kind] else f" ({ratio:.2f} x)"
                    cells.append(f"{value:.2f}{shown}" if value else "")
                yield f"| {views}, {footage}: {side} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table, and write the numbers."""
    from made_videos import KINETICS, RE_ENCODED, write_made_videos

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="with videos; by default synthetic ones")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="small", choices=["small", "base", "large"])
    parser.add_argument("--cache", type=Path, default=Path("runs/bench-videos"))
    parser.add_argument("--core", type=int, default=0, help="number of the core to run on")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    options = parser.parse_args()
    for package in ("transformers", "torchcodec"):
        if find_spec(package) is None:
            raise SystemExit(f"predict.py: there is no {package}: pip install transformers torchcodec")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if options.folder:
                found = list(readable(options.folder, options.files))
                footage = {AS_FOUND: found, ENCODED: encoded(found, Path(folder))}
            else:
                made = write_made_videos(options.cache, options.files)
                footage = {AS_FOUND: made[KINETICS], ENCODED: made[RE_ENCODED]}
        except UserError as error:
            raise SystemExit(f"predict.py: {error}") from None
        if hasattr(os, "sched_setaffinity"):  # decoders start a thread for each core that they see
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[options.core % len(cores)]})
        report = measure(footage, options.rounds, options.size)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(report)))
    print(f"\nlargest relative difference of a probability: {max(report['largest_difference'].values()):.1e}")
    print(f"load {report['load']:.1f}, {report['processor']}, {report['versions']}")


if __name__ == "__main__":
    main()
