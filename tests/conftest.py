"""Fixtures of several packages: one thread, the command, and small data sets, videos and batches.

Large libraries are imported by the fixtures that use them: the process that hands the tests to its workers
reads this file too, and waits for it before it starts them.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import current_process
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.web_server import Server
    from tubelet.data.dataset import Batch
    from tubelet.data.manifest import Manifest
    from tubelet.models.classifier import VideoClassifier
    from tubelet.recipe.schema import Recipe

# How long an example takes depends on the machine.
settings.register_profile("tubelet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tubelet")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and the machine may be shared."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell lets its background jobs ignore Ctrl-C, and so would the processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def daemonic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mark this process as daemonic, as task queues do: Python then refuses to start children."""
    monkeypatch.setitem(vars(current_process())["_config"], "daemon", True)


@pytest.fixture
def tubelet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command; gives its exit code, standard output and standard error."""
    from tubelet import progress
    from tubelet.cli.main import main

    monkeypatch.setattr(progress, "LINE_EVERY_S", math.inf)  # or a slow machine says how far it has come

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tubelet", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def prepare(
    tubelet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `tubelet prepare` in the test's folder and in this process."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: tubelet("prepare", *words, "--workers", 0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A web server that has the files of the test's folder."""
    pytest.importorskip("aiohttp")
    from tests.web_server import serve

    with serve(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small motion data set: 24 videos to train on, 12 to validate and 12 to test on."""
    from tubelet.demo.motion_videos import SyntheticConfig, write_synthetic

    out = tmp_path_factory.mktemp("motion")
    write_synthetic(out, SyntheticConfig(size=32, train=24, val=12, test=12), workers=0)
    return out


@pytest.fixture(scope="session")
def tagged(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same videos of several classes each: its own and the third after it, but the last shows none."""
    from tubelet.data.manifest import SPLITS, read_manifest, write_manifest

    out = tmp_path_factory.mktemp("tagged")
    for split in SPLITS:
        manifest = read_manifest(motion, split)
        samples = [
            replace(s, path=str(manifest.locate(s)), label=None, labels=_tags(s.label))
            for s in manifest.samples
        ]
        write_manifest(out, split, samples, manifest.classes)
    return out


def _tags(label: int | None) -> tuple[int, ...]:
    return () if label is None or label == 11 else (label, (label + 3) % 12)


TINY_ENCODER = "{frames: 4, image_size: 32, patch_size: 8, dim: 32, depth: 2, heads: 2, mlp_dim: 64}"
TINY_RECIPES = {
    "pretrain": f"""
        task: pretrain
        data: {{root: ROOT, clip: {{kind: dense, frames: 4, stride: 4}}, workers: 0}}
        model: {{encoder: {TINY_ENCODER}, decoder: {{dim: 16, depth: 1, heads: 2, mlp_dim: 32}}}}
        optim: {{base_lr: 1.0e-2, batch_size: 8, epochs: 2}}
        """,
    "finetune": f"""
        task: finetune
        data: {{root: ROOT, clip: {{kind: segment, frames: 4}}, workers: 0}}
        encoder: {TINY_ENCODER}
        optim: {{base_lr: 1.0e-2, batch_size: 8, epochs: 2}}
        views: {{clips: 2, crops: 1}}
        """,
    "mar": """
        task: finetune
        data: {root: ROOT, clip: {kind: segment, frames: 4}, workers: 0}
        init: INIT
        head: {kind: bridging, dim: 32, depth: 1, heads: 2, mlp_dim: 64}
        masking: {kind: running_cell, ratio: 0.5}
        reconstruction: {weight: 0.1}
        optim: {base_lr: 1.0e-2, batch_size: 8, epochs: 1}
        """,
}


@pytest.fixture
def tiny_recipe(motion: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Recipes that train in a second, with settings to change."""
    from tubelet.recipe.loading import load_recipe

    def load(name: str, *overrides: str, init: Path | str = "null") -> Recipe:
        text = TINY_RECIPES[name].replace("ROOT", str(motion)).replace("INIT", str(init))
        path = tmp_path / f"{name}.yaml"
        path.write_text(dedent(text))
        return load_recipe(str(path), *overrides)

    return load


@pytest.fixture(scope="session")
def trained(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of finished runs: `pretrain`, `finetune` and, from the first, `mar`."""
    from tubelet.recipe.loading import load_recipe
    from tubelet.run.training import run_recipe

    runs = tmp_path_factory.mktemp("runs")
    for name, text in TINY_RECIPES.items():
        path = runs / f"{name}.yaml"
        path.write_text(dedent(text.replace("ROOT", str(motion)).replace("INIT", str(runs / "pretrain"))))
        run_recipe(load_recipe(str(path)), runs / name)
    return runs


@pytest.fixture
def model(trained: Path) -> VideoClassifier:
    """A trained classifier with a masking and a decoder."""
    from tubelet.checkpoints.load import load_model
    from tubelet.models.classifier import VideoClassifier

    loaded = load_model(trained / "mar")
    assert isinstance(loaded, VideoClassifier)
    return loaded


BROKEN = ("cut off.mp4", "not a video.mp4", "gone.mp4")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve readable videos of different lengths, 0.mp4 to 11.mp4, and the broken ones."""
    from tests.videos import moving_frames, write_video

    root = tmp_path_factory.mktemp("data")
    for k in range(12):
        frames = moving_frames(8 + 3 * k, 40, 56, seed=k)
        write_video(root / f"{k}.mp4", frames, options={"g": "6", "bf": "2"})
    whole = (root / "11.mp4").read_bytes()
    (root / BROKEN[0]).write_bytes(whole[: len(whole) // 2])
    (root / BROKEN[1]).write_text("No video at all.")
    return root


@pytest.fixture
def manifest(videos: Path) -> Callable[..., Manifest]:
    """A manifest of the first `count` videos, and others inserted at the positions of `extra`."""
    from tubelet.data.manifest import Manifest, Sample

    def make(count: int = 12, extra: dict[int, str] | None = None) -> Manifest:
        samples = [Sample(f"{k}.mp4", label=k % 3) for k in range(count)]
        for position, name in (extra or {}).items():
            samples.insert(position, Sample(name, label=0))
        return Manifest(videos, "train", tuple(samples), ("a", "b", "c"))

    return make


@pytest.fixture
def batch() -> Batch:
    import torch

    from tubelet.data.dataset import Batch

    generator = torch.Generator().manual_seed(0)
    return Batch(
        video=torch.randint(0, 256, (4, 4, 3, 16, 16), dtype=torch.uint8, generator=generator),
        label=torch.tensor([0, 4, 2, 2]),
        seed=torch.tensor([11, 7, -3, 2**61]),
        index=torch.arange(4),
        names=["a", "b", "c", "d"],
        failures={},
    )


@pytest.fixture
def multi_label_batch(batch: Batch) -> Batch:
    """The same clips, of any number of five classes."""
    import torch

    rows = [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 0, 1, 1]]
    return replace(batch, label=torch.tensor(rows, dtype=torch.bool))
