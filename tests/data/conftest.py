"""A small data set of real files, some of them broken, on the spot."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import moving_frames, write_video
from tubelet.data.manifest import Manifest, Sample

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
