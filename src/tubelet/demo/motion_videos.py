"""The motion data set: small videos whose twelve classes differ only in motion.

OUT/videos/train/00000.mp4 ...       H.264, also val/ and test/; names do not depend on the class
OUT/train.csv val.csv test.csv classes.txt      the manifest
OUT/synthetic.json                   the settings that it was made with
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.data.manifest import SPLITS, Sample, write_manifest
from tubelet.demo.motion_clips import CLASSES, draw_length, render
from tubelet.errors import UserError, require_at_least
from tubelet.files import discard_partials, exclusive, is_disk_full, replacing, write_json
from tubelet.machine import allowed_workers, available_cores
from tubelet.settings import difference
from tubelet.video.encode import require_x264, write_h264

# Without mbtree, x264's look-ahead rate control, whose result for such small frames differs between runs.
_X264 = {"crf": "20", "preset": "veryfast", "g": "16", "threads": "1", "mbtree": "0"}


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Size and content of the data set.

    Attributes:
        size: side of the frames in pixels, even, at least 32.
        train: number of clips to train on, all classes together.
        val: number of clips to validate on.
        test: number of clips to test on.
        seed: determines every pixel.
    """

    size: int = 64
    train: int = 3000
    val: int = 240
    test: int = 480
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 2:
            raise UserError(f"size must be even and at least 32 pixels, found {self.size}")
        require_at_least(1, train=self.train, val=self.val, test=self.test)
        require_at_least(0, seed=self.seed)


@dataclass(frozen=True)
class _Clip:
    """A clip to write; `index` numbers the clips of all splits."""

    path: Path
    label: int
    index: int


def write_synthetic(
    out: Path,
    config: SyntheticConfig = SyntheticConfig(),
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the data set to the folder `out`; a second call resumes where the first one stopped.

    Args:
        out: the data set's folder; it is created if it does not exist.
        config: what to write.
        workers: number of processes; None for one per core, 0 or 1 for only this process. The files do not
            depend on it.
        progress: called with the number of finished clips and of all clips, first with those found.

    Raises:
        UserError: the folder contains something else or is in use, the disk is full, or PyAV cannot encode
            H.264.
    """
    out = Path(out)
    require_x264()
    _claim_folder(out, config)
    clips = {split: _clips(out, config, split) for split in SPLITS}
    all_clips = [clip for split in SPLITS for clip in clips[split]]
    done = 0
    try:
        with exclusive(out):
            for folder in (out, *(out / "videos" / split for split in SPLITS)):
                folder.mkdir(parents=True, exist_ok=True)
                discard_partials(folder)
            missing = [clip for clip in all_clips if not (clip.path.exists() and clip.path.stat().st_size)]
            done = len(all_clips) - len(missing)
            if progress:
                progress(done, len(all_clips))
            for _ in _write_clips(missing, config, available_cores() if workers is None else workers):
                done += 1
                if progress:
                    progress(done, len(all_clips))
            for split in SPLITS:
                write_manifest(out, split, (_sample(clip, out, config) for clip in clips[split]), CLASSES)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise UserError(
            f"no space left in {out}; its {done} finished clips are kept. Make room and run the same command "
            "again: it resumes"
        ) from error


def _claim_folder(out: Path, config: SyntheticConfig) -> None:
    """Check that the folder is new or contains this data set."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder for the synthetic data set")
    record = out / "synthetic.json"
    for name in ("videos", "classes.txt", *(f"{split}.csv" for split in SPLITS)):
        if not record.exists() and (out / name).exists():
            raise UserError(f"{out} contains another data set (found {name}); choose another folder")
    record_settings(record, asdict(config))


def record_settings(record: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of what a folder contains to a JSON file in it, or check that it has the same ones.

    Raises:
        UserError: the file has other settings or cannot be read.
    """
    if not record.exists():
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, settings)
        return
    try:
        changed = difference(dict(json.loads(record.read_text(encoding="utf-8"))), settings)
    except (ValueError, TypeError) as error:
        raise UserError(f"{record} cannot be read as JSON ({error}); choose another folder") from None
    if changed:
        raise UserError(
            f"{record.parent} was made with other settings; choose another folder, or remove it. "
            "What differs (found -> wanted):\n  " + "\n  ".join(changed)
        )


def _clips(out: Path, config: SyntheticConfig, split: str) -> list[_Clip]:
    """Return the clips of a split: balanced classes in random order, indices that no other split has."""
    number, count = SPLITS.index(split), getattr(config, split)
    labels = np.random.default_rng([config.seed, number, 1]).permutation(np.arange(count) % len(CLASSES))
    return [
        _Clip(out / "videos" / split / f"{i:05d}.mp4", label, i * len(SPLITS) + number)
        for i, label in enumerate(labels.tolist())
    ]


def _sample(clip: _Clip, out: Path, config: SyntheticConfig) -> Sample:
    fps, count = draw_length(np.random.default_rng([config.seed, clip.index]))
    path = clip.path.relative_to(out).as_posix()
    return Sample(path, clip.label, count, float(fps), config.size, config.size, "h264")


def _write_clips(clips: list[_Clip], config: SyntheticConfig, workers: int) -> Iterable[None]:
    write = partial(_write_clip, config=config)
    workers = allowed_workers(min(workers, len(clips)))
    if workers <= 1:
        yield from map(write, clips)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield from pool.map(write, clips)
    finally:
        pool.shutdown(cancel_futures=True)


def _write_clip(clip: _Clip, config: SyntheticConfig) -> None:
    frames, fps = render(clip.label, seed=config.seed, index=clip.index, size=config.size)
    content = io.BytesIO()
    write_h264(content, frames, fps, _X264)
    with replacing(clip.path) as temporary:
        temporary.write_bytes(content.getvalue())
