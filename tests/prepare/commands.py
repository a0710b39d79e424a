"""Helpers for tests of `tubelet prepare`."""

from collections.abc import Callable
from pathlib import Path

from tubelet.clips import SegmentClip
from tubelet.data.augment import Augment
from tubelet.data.dataset import TrainDataset
from tubelet.data.manifest import Manifest, read_manifest

Prepare = Callable[..., tuple[int, str, str]]


def listed(out: Path, split: str = "train") -> dict[str, str | None]:
    """Return the class names by the videos' names, with their folder."""
    manifest = read_manifest(out, split)
    return {
        "/".join(Path(sample.path).parts[-2:]): None
        if sample.label is None
        else manifest.classes[sample.label]
        for sample in manifest.samples
    }


def assert_trains(manifest: Manifest) -> None:
    """Check that every video can be read for training."""
    dataset = TrainDataset(manifest, SegmentClip(frames=4), Augment(), size=32)
    for index in range(len(dataset)):
        batch = dataset[0, index]
        assert batch.failures == {}
        assert batch.video.shape == (1, 4, 3, 32, 32)
