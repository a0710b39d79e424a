"""Memory of a large test: made-up results of a million videos are written, joined and turned into metrics.

    python benchmarks/evaluation_memory.py [--videos 1000000] [--classes 400] [--multi-label] [--folder DIR]

The list of videos is made up, too, and no video is decoded: what is measured is everything whose memory
grows with the number of videos. Peak memory is that of the whole process (the resident set, with PyTorch's
libraries and the pages of mapped files). The folder needs room for the results twice, 3.2 GB for a million
videos of 400 classes; it is emptied at the end.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tubelet.data.manifest import Manifest, Sample
from tubelet.report.evaluation_contents import evaluation_page
from tubelet.report.evaluation_page import render_evaluation
from tubelet.results.accuracy import Evaluation
from tubelet.results.fusion import fuse_evaluations
from tubelet.results.stored import stored_labels, stored_results
from tubelet.train.runtime import Runtime

_BATCH = 8


def peak_mb() -> float:
    """Return the largest resident set of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print the time of a step and the peak memory after it."""
    begin = time.monotonic()
    yield
    print(f"{name:24} {time.monotonic() - begin:7.1f} s   peak {peak_mb():6.0f} MB", flush=True)


def made_up_manifest(folder: Path, num_videos: int, num_classes: int, multi_label: bool) -> Manifest:
    """Return a list of videos with random labels: one each or, multi-label, three each."""
    rng = np.random.default_rng(0)
    labels = rng.integers(num_classes, size=(num_videos, 3 if multi_label else 1))
    numbers = list(range(num_classes))  # one object for each class, as in a list that is read
    samples = (
        Sample(
            f"class_{of_video[0]:04}/{number:08}.mp4",
            label=None if multi_label else numbers[of_video[0]],
            labels=tuple(numbers[k] for k in of_video) if multi_label else (),
            frames=300,
            fps=25.0,
            width=340,
            height=256,
            codec="h264",
        )
        for number, of_video in enumerate(labels)
    )
    return Manifest(folder, "test", tuple(samples), tuple(f"class {k}" for k in range(num_classes)))


def measure(folder: Path, num_videos: int, num_classes: int, multi_label: bool) -> None:
    """Print time and memory of each step."""
    with step("imports"):
        pass
    with step("list"):
        manifest = made_up_manifest(folder, num_videos, num_classes, multi_label)
    rng = np.random.default_rng(1)
    with Runtime() as runtime:
        with step("begin"):
            kept = stored_results(folder, {}, manifest, num_classes, runtime)
            results = kept.__enter__()
        with step("write results"):
            for first in range(0, num_videos, _BATCH):
                index = np.arange(first, min(first + _BATCH, num_videos))
                results.add(index, rng.random((len(index), num_classes), dtype=np.float32))
        with step("join"):
            index, probabilities = results.join(runtime)
        kept.__exit__(None, None, None)
        del kept, results
    with step("labels"):
        samples = [manifest.samples[i] for i in index.tolist()]
        classes = [sample.classes for sample in samples]
        labels = stored_labels(classes, num_classes, folder) if multi_label else np.array(classes)[:, 0]
        del classes
    evaluation = Evaluation([sample.path for sample in samples], labels, probabilities, {}, 0.0)
    with step("metrics"):
        print(evaluation.summary())
    if not multi_label:
        with step("confusion"):
            evaluation.confusion()
    with (
        step("begin again"),
        Runtime() as runtime,
        stored_results(folder, {}, manifest, num_classes, runtime),
    ):
        pass
    with step("dump"):
        evaluation.save(folder / "dump.npz")
    with step("fuse two dumps"):
        fuse_evaluations([folder / "dump.npz"] * 2).summary()
    with step("page"):
        render_evaluation(evaluation_page(evaluation, "made up"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--multi-label", action="store_true")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    arguments = parser.parse_args()
    with TemporaryDirectory(dir=arguments.folder) as folder:
        measure(Path(folder), arguments.videos, arguments.classes, arguments.multi_label)


if __name__ == "__main__":
    main()
