"""What several tests share: one thread, the command, and video files of every kind made on the spot."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from multiprocessing import current_process
from pathlib import Path
from textwrap import dedent

import av
import numpy as np
import pytest
import torch
from hypothesis import settings

from tests.web_server import Server, serve
from tubelet import progress
from tubelet.cli.main import main
from tubelet.data.dataset import Batch
from tubelet.data.manifest import SPLITS, Manifest, Sample, read_manifest, write_manifest
from tubelet.demo.motion_videos import SyntheticConfig, write_synthetic
from tubelet.recipe.loading import load_recipe
from tubelet.recipe.schema import Recipe
from tubelet.run.training import run_recipe
from tubelet.video.reader import Crop, IndexChanged, VideoIndex, open_video

# How long an example takes depends on the machine.
settings.register_profile("tubelet", deadline=None)
settings.load_profile("tubelet")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and the machine may be shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def daemonic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mark this process as daemonic, as task queues do: Python then refuses to start children."""
    monkeypatch.setitem(vars(current_process())["_config"], "daemon", True)


@pytest.fixture
def tubelet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command; gives its exit code, standard output and standard error."""
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
    with serve(tmp_path) as running:
        yield running


def moving_frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """RGB frames (count, H, W, 3) that all differ: a textured disc crosses a gradient that brightens."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 80, size=(height, width, 3))
    y, x = np.mgrid[:height, :width]
    frames = []
    for k in range(count):
        disc = (x - (k * 3) % width) ** 2 + (y - height / 2 - (k % 7)) ** 2 < (height / 4) ** 2
        frame = texture + (x + k * 2)[..., None] % 100 + 70 * disc[..., None]
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    pixels: str = "yuv420p",
    fps: int = 25,
) -> Path:
    """Encode RGB frames; `times` are presentation times in milliseconds, otherwise `fps` is constant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        base = Fraction(1, 1000) if times is not None else Fraction(1, fps)
        stream.codec_context.time_base = base
        for k, pixels_of_frame in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels_of_frame, format="rgb24")
            frame.pts = k if times is None else times[k]
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def index_of(path: Path | str) -> VideoIndex:
    """The index of a video by all of its packets."""
    with open_video(path, exact=True) as video:
        return video.index


def read_frames(path: Path | str, numbers: Sequence[int]) -> torch.Tensor:
    """Frames (T, C, H, W) of a video by number, whatever its header says."""
    with open_video(path) as video:
        try:
            return video.read(numbers)
        except IndexChanged:
            return video.read(numbers)


def read_crops(path: Path | str, crops: Sequence[Crop]) -> list[torch.Tensor]:
    """Crops of a video, whatever its header says."""
    with open_video(path) as video:
        try:
            return video.read_crops(crops)
        except IndexChanged:
            return video.read_crops(crops)


def within(count: int, trials: int, probability: float) -> bool:
    """Whether a count lies within five standard deviations of its binomial distribution's mean."""
    return abs(count - trials * probability) <= 5 * (trials * probability * (1 - probability)) ** 0.5


def decode_all(path: Path) -> np.ndarray:
    """Every frame (N, H, W, 3) of a file, in the order in which a plain sequential decode shows them."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="session")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small motion data set: 24 videos to train on, 12 to validate and 12 to test on."""
    out = tmp_path_factory.mktemp("motion")
    write_synthetic(out, SyntheticConfig(size=32, train=24, val=12, test=12), workers=0)
    return out


@pytest.fixture(scope="session")
def tagged(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same videos of several classes each: its own and the third after it, but the last shows none."""
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

    def load(name: str, *overrides: str, init: Path | str = "null") -> Recipe:
        text = TINY_RECIPES[name].replace("ROOT", str(motion)).replace("INIT", str(init))
        path = tmp_path / f"{name}.yaml"
        path.write_text(dedent(text))
        return load_recipe(str(path), *overrides)

    return load


@pytest.fixture(scope="session")
def trained(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of finished runs: `pretrain`, `finetune` and, from the first, `mar`."""
    runs = tmp_path_factory.mktemp("runs")
    for name, text in TINY_RECIPES.items():
        path = runs / f"{name}.yaml"
        path.write_text(dedent(text.replace("ROOT", str(motion)).replace("INIT", str(runs / "pretrain"))))
        run_recipe(load_recipe(str(path)), runs / name)
    return runs


BROKEN = ("cut off.mp4", "not a video.mp4", "gone.mp4")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve readable videos of different lengths, 0.mp4 to 11.mp4, and the broken ones."""
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
    """A manifest of the first `count` videos, with others put in the places that `extra` says."""

    def make(count: int = 12, extra: dict[int, str] | None = None) -> Manifest:
        samples = [Sample(f"{k}.mp4", label=k % 3) for k in range(count)]
        for place, name in (extra or {}).items():
            samples.insert(place, Sample(name, label=0))
        return Manifest(videos, "train", tuple(samples), ("a", "b", "c"))

    return make


@pytest.fixture
def batch() -> Batch:
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
    rows = [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 0, 1, 1]]
    return replace(batch, label=torch.tensor(rows, dtype=torch.bool))
