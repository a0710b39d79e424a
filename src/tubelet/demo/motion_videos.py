"""A made data set of small videos whose twelve classes only motion tells apart.

Two textured actors carry out the motion of the class before a smooth background, among distractors that
stand or drift, under slowly changing light and sensor noise:

    OUT/videos/train/00000.mp4 ...       H.264, and val/ and test/ alike; names tell nothing of the class
    OUT/train.csv val.csv test.csv classes.txt      the manifest
    OUT/synthetic.json                   the settings it was made with

A single frame does not tell the class. Each of five parameters of the pair (x, y, size, angle, gap) either
runs through `base + travel * (progress - 0.5)` with progress from 0 to 1, or back, over the clip, or stands
still at a progress drawn evenly from 0 to 1; base and travel are drawn alike for all classes. At a random
moment the picture then has the same distribution, whichever parameter runs and in whichever direction;
bouncing shares it too, and circling comes near.
"""

import colorsys
import errno
import io
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tubelet.data.manifest import SPLITS, Sample, write_manifest
from tubelet.errors import UserError
from tubelet.files import discard_partials, exclusive, replacing
from tubelet.machine import available_cores
from tubelet.video.encode import require_x264, write_h264

# Class -> the parameter that runs and its direction. Angles grow clockwise, as y points down.
_RUNNING = {
    "moving left": ("x", -1),
    "moving right": ("x", 1),
    "moving up": ("y", -1),
    "moving down": ("y", 1),
    "growing": ("size", 1),
    "shrinking": ("size", -1),
    "turning clockwise": ("angle", 1),
    "turning anticlockwise": ("angle", -1),
    "two things approaching": ("gap", -1),
    "two things parting": ("gap", 1),
}
CLASSES: tuple[str, ...] = (*_RUNNING, "circling", "bouncing")
"""The class names; a label is an index into them."""
# Parameter -> (least, most) base and (least, most) travel. Lengths are in frame sides, angles in radians,
# `size` is the natural logarithm of a factor.
_RANGES = {
    "x": ((0.42, 0.58), (0.50, 0.80)),
    "y": ((0.42, 0.58), (0.50, 0.80)),
    "size": ((0.0, 0.1), (math.log(2.2), math.log(3.4))),
    "angle": ((-0.1 * math.pi, 0.1 * math.pi), (0.4 * math.pi, 0.7 * math.pi)),
    "gap": ((0.45, 0.55), (0.55, 0.75)),
}
_FRAME_RATES = (12, 15, 20, 24)
_SPRITE = 112  # texels along a side of a sprite
_REACH = 1.1  # a sprite covers [-_REACH, _REACH] in units of its radius
Array = npt.NDArray[np.floating]  # float32 throughout


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What to make: `size` is the frame side in pixels; `train`, `val` and `test` count clips, all classes
    together; `seed` decides every pixel.

    Raises:
        UserError: `size` is odd or below 32, a split is empty, or `seed` is negative.
    """

    size: int = 64
    train: int = 3000
    val: int = 240
    test: int = 480
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 2:
            raise UserError(f"size must be even and at least 32 pixels, found {self.size}")
        for split in SPLITS:
            if getattr(self, split) < 1:
                raise UserError(f"{split} must be at least 1 clip, found {getattr(self, split)}")
        if self.seed < 0:
            raise UserError(f"seed must not be negative, found {self.seed}")


def render(label: int, *, seed: int, index: int, size: int = 64) -> tuple[npt.NDArray[np.uint8], int]:
    """Draw clip `index` of the data set `seed`, doing the motion of class `label`.

    A pure function of its arguments. The same seed and index with another label show the same things, in
    the same light, doing another motion.

    Returns:
        The frames, uint8 of shape (T, size, size, 3), RGB, with T in 24..72 (2 to 3 seconds), and the frame
        rate in frames per second.

    Raises:
        UserError: no class has this label.
    """
    if label not in range(len(CLASSES)):
        raise UserError(f"a label is in 0..{len(CLASSES) - 1}, found {label}")
    rng = np.random.default_rng([seed, index])
    fps, count = _timing(rng)
    time = np.linspace(0, 1, count, dtype=np.float32)
    frames = np.repeat(_background(rng, size)[None], count, axis=0)
    for _ in range(rng.integers(0, 3)):
        _add_distractor(frames, rng, time)
    _add_actors(frames, rng, _motion(label, rng, time))
    return _expose(frames, rng, time), fps


def _timing(rng: np.random.Generator) -> tuple[int, int]:
    """Frame rate and number of frames; the first draws of a clip."""
    fps = int(rng.choice(_FRAME_RATES))
    return fps, round(fps * rng.uniform(2, 3))


def _motion(label: int, rng: np.random.Generator, time: Array) -> dict[str, Array]:
    """The pair's parameters over time, (T,) each. The draws are the same, whatever the label."""
    base = {name: rng.uniform(*bases) for name, (bases, _) in _RANGES.items()}
    travel = {name: rng.uniform(*travels) for name, (_, travels) in _RANGES.items()}
    progress = {name: np.full_like(time, rng.random()) for name in _RANGES}
    phase, periods = rng.random(), rng.uniform(1.4, 2.1)
    turns = rng.uniform(0.8, 1.3) * float(rng.choice((-1, 1)))

    kind = CLASSES[label]
    if kind in _RUNNING:
        name, direction = _RUNNING[kind]
        progress[name] = time if direction > 0 else 1 - time
    elif kind == "bouncing":  # a triangle wave spreads as evenly as a straight run
        progress["y"] = np.abs(1 - 2 * ((phase + periods * time) % 1))
    else:  # an orbit about a place nearer to the middle: the spread stays that of a straight run
        angle = 2 * math.pi * (phase + turns * time)
        for name, wave in (("x", np.cos(angle)), ("y", np.sin(angle))):
            progress[name] = 0.5 + 0.5 * (progress[name] - 0.5) + 0.36 * wave
    return {name: base[name] + travel[name] * (progress[name] - 0.5) for name in _RANGES}


def _add_actors(frames: Array, rng: np.random.Generator, motion: dict[str, Array]) -> None:
    for side in (-0.5, 0.5):
        sprite = _sprite(rng)
        radius = rng.uniform(0.15, 0.21) * np.exp(motion["size"])
        x = motion["x"] + side * motion["gap"] * np.cos(motion["angle"])
        y = motion["y"] + side * motion["gap"] * np.sin(motion["angle"])
        angle = motion["angle"] + rng.uniform(0, 2 * math.pi)
        _paint(frames, sprite, _keep_inside(x), _keep_inside(y), radius, angle)


def _add_distractor(frames: Array, rng: np.random.Generator, time: Array) -> None:
    sprite = _sprite(rng)
    # Half of them stand still; the others drift by so many frame sides over the clip.
    drift = float(rng.choice((0, 1))) * rng.uniform(0.05, 0.2)
    heading = rng.uniform(0, 2 * math.pi)
    x = rng.uniform(0.1, 0.9) + drift * math.cos(heading) * (time - 0.5)
    y = rng.uniform(0.1, 0.9) + drift * math.sin(heading) * (time - 0.5)
    radius = np.full_like(time, rng.uniform(0.06, 0.1))
    _paint(frames, sprite, x, y, radius, np.full_like(time, rng.uniform(0, 2 * math.pi)))


def _keep_inside(position: Array) -> Array:
    """Bend positions back into the frame, gently; order, hence direction, is kept."""
    margin = 0.5
    return 0.5 + margin * np.tanh((position - 0.5) / margin)


def _expose(frames: Array, rng: np.random.Generator, time: Array) -> npt.NDArray[np.uint8]:
    """Slow changes of brightness and color, then sensor noise."""
    swing = (rng.uniform(0, 0.12) + rng.uniform(-0.04, 0.04, 3)).astype(np.float32)
    wave = np.sin(2 * math.pi * (rng.random() + rng.uniform(0.2, 0.6) * time))
    frames *= (1 + swing * wave[:, None])[:, None, None, :]
    # The sum of two even draws is close to normal and much cheaper; its deviation is 104.5.
    strength = rng.uniform(0, 2) / 104.5
    draws = np.frombuffer(rng.bytes(2 * frames.size), dtype=np.uint8).reshape(2, *frames.shape)
    frames += strength * np.add(*draws, dtype=np.float32) - strength * 255
    return np.clip(frames, 0, 255, out=frames).astype(np.uint8)


def _background(rng: np.random.Generator, size: int) -> Array:
    """(size, size, 3), 0..255: muted colors that flow into one another."""
    y, x = np.meshgrid(_centers(size), _centers(size), indexing="ij")
    hue = rng.random()
    dark = _color(hue, rng.uniform(0.3, 0.6), rng.uniform(0.15, 0.35))
    light = _color(hue + rng.uniform(-0.3, 0.3), rng.uniform(0.2, 0.5), rng.uniform(0.7, 0.9))
    return dark + _waves(rng, x, y, cycles=0.8)[..., None] * (light - dark)


def _sprite(rng: np.random.Generator) -> Array:
    """(_SPRITE, _SPRITE, 4): color, 0..255, and the depth below the edge in radii, negative outside."""
    y, x = np.meshgrid(*[(_centers(_SPRITE) * 2 - 1) * _REACH] * 2, indexing="ij")
    depth = _outline(rng, np.arctan2(y, x)) - np.hypot(x, y)
    hue = rng.random()
    light = _color(hue, rng.uniform(0.35, 0.75), rng.uniform(0.9, 1))
    dark = _color(hue + rng.uniform(0.2, 0.8), rng.uniform(0.65, 0.95), rng.uniform(0.35, 0.6))
    share = np.clip(3 * _waves(rng, x, y, cycles=0.6) - 1, 0, 1)[..., None]
    color = dark + share * (light - dark)
    color *= np.clip(0.35 + 5 * depth, 0.35, 1)[..., None]  # a dark rim sets it off from what lies behind
    return np.concatenate([color, depth[..., None]], axis=-1)


def _outline(rng: np.random.Generator, angle: Array) -> Array:
    """The radius of a random shape, at most 1, at each angle."""
    shape, slim, corners = rng.integers(5), rng.uniform(0.55, 0.8), int(rng.integers(3, 7))
    phases = rng.uniform(0, 2 * math.pi, 3).tolist()
    outline: Array
    if shape == 0:  # ellipse
        outline = slim / np.hypot(slim * np.cos(angle), np.sin(angle))
    elif shape == 1:  # rectangle
        cos, sin = (np.maximum(np.abs(wave), 1e-6) for wave in (np.cos(angle), np.sin(angle)))
        outline = np.minimum(1 / cos, slim / sin) / math.hypot(1, slim)
    elif shape == 2:  # triangle, square, pentagon, hexagon
        sector = 2 * math.pi / corners
        outline = math.cos(sector / 2) / np.cos(angle % sector - sector / 2)
    elif shape == 3:  # star
        outline = 0.75 + 0.25 * np.cos(corners * angle)
    else:  # blob
        outline = np.full_like(angle, 0.7)
        for wave, phase in enumerate(phases, start=1):
            outline += 0.1 * np.cos(wave * angle + phase)
    return outline


def _paint(frames: Array, sprite: Array, x: Array, y: Array, radius: Array, angle: Array) -> None:
    """Lay a sprite over frames (T, H, W, 3): its center, radius (frame sides) and angle are (T,) each."""
    size = frames.shape[1]
    across = (_centers(size) - x[:, None]) / radius[:, None]
    down = (_centers(size) - y[:, None]) / radius[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    u = (across * cos)[:, None, :] + (down * sin)[:, :, None]
    v = (down * cos)[:, :, None] - (across * sin)[:, None, :]
    covered = np.flatnonzero((np.abs(u) < _REACH) & (np.abs(v) < _REACH))
    row, column = (((a.ravel()[covered] / _REACH + 1) * (_SPRITE / 2)).astype(np.intp) for a in (v, u))
    texel = sprite.reshape(-1, 4)[np.minimum(row * _SPRITE + column, _SPRITE * _SPRITE - 1)]
    pixels_deep = texel[:, 3] * (radius * size)[covered // (size * size)]
    alpha = np.clip(0.5 + pixels_deep, 0, 1)[:, None]
    flat = frames.reshape(-1, 3)
    below = flat[covered]
    flat[covered] = below + alpha * (texel[:, :3] - below)


def _waves(rng: np.random.Generator, x: Array, y: Array, cycles: float) -> Array:
    """A smooth random field in 0..1: the mean of three plane waves of about `cycles` per unit of x and y."""
    field = np.zeros_like(x)
    for _ in range(3):
        heading, phase = rng.uniform(0, 2 * math.pi, 2)
        wave = 2 * math.pi * cycles * rng.uniform(0.5, 1.5)
        field += np.cos(wave * math.cos(heading) * x + wave * math.sin(heading) * y + phase)
    return 0.5 + field / 6


def _centers(count: int) -> Array:
    """The centers of `count` pixels along the unit side."""
    return (np.arange(count, dtype=np.float32) + 0.5) / count


def _color(hue: float, saturation: float, value: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32) * 255


@dataclass(frozen=True)
class _Job:
    path: Path
    label: int
    seed: int
    index: int
    size: int


def write_synthetic(
    out: Path,
    config: SyntheticConfig = SyntheticConfig(),
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the data set to the folder `out`; run again, it goes on where it was stopped.

    Args:
        out: the data set's folder, made where it is missing.
        config: what to make.
        workers: processes to draw and encode with; None for as many as CPUs, 0 or 1 for this process. The
            files do not depend on it.
        progress: called with (clips done, clips in all), first for those found already there.

    Raises:
        UserError: the folder holds something else or another process writes there, the disk is full, or PyAV
            cannot encode H.264.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder for the synthetic data set")
    done = 0
    try:
        _claim(out, config)
        jobs = {split: list(_jobs(out, config, split)) for split in SPLITS}
        with exclusive(out):
            for folder in (out, *(out / "videos" / split for split in SPLITS)):
                folder.mkdir(parents=True, exist_ok=True)
                discard_partials(folder)
            everything = [job for split in SPLITS for job in jobs[split]]
            missing = [job for job in everything if not _is_written(job.path)]
            done = len(everything) - len(missing)
            if progress:
                progress(done, len(everything))
            for _ in _run(missing, available_cores() if workers is None else workers):
                done += 1
                if progress:
                    progress(done, len(everything))
            for split in SPLITS:
                write_manifest(out, split, (_sample(job, out) for job in jobs[split]), CLASSES)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"no space left for the synthetic data set in {out}; the {done} clips written so far are kept. "
            "Make room and run the same again: it goes on from there"
        ) from error


def _claim(out: Path, config: SyntheticConfig) -> None:
    """Make the folder this data set's own, unless it is another's."""
    record, wanted = out / "synthetic.json", asdict(config)
    if record.exists():
        try:
            found = dict(json.loads(record.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{record} does not parse ({error}); choose another folder") from None
        changes = [
            f"{name} is {found.get(name)} there and {wanted.get(name)} here"
            for name in {**wanted, **found}
            if found.get(name) != wanted.get(name)
        ]
        if changes:
            raise UserError(
                f"{out} was made with other settings: {', '.join(changes)}; choose another folder"
            )
    else:
        for name in ("videos", "classes.txt", *(f"{split}.csv" for split in SPLITS)):
            if (out / name).exists():
                raise UserError(
                    f"{out} holds another data set ({name} is there already); choose another folder"
                )
        out.mkdir(parents=True, exist_ok=True)
        with replacing(record) as part:
            part.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def _jobs(out: Path, config: SyntheticConfig, split: str) -> Iterator[_Job]:
    """The clips of a split: balanced classes in shuffled order, and an index no other split uses."""
    number = SPLITS.index(split)
    count = getattr(config, split)
    labels = np.random.default_rng([config.seed, number, 1]).permutation(np.arange(count) % len(CLASSES))
    for i, label in enumerate(labels.tolist()):
        path = out / "videos" / split / f"{i:05d}.mp4"
        yield _Job(path, label, config.seed, i * len(SPLITS) + number, config.size)


def _sample(job: _Job, out: Path) -> Sample:
    fps, count = _timing(np.random.default_rng([job.seed, job.index]))
    path = job.path.relative_to(out).as_posix()
    return Sample(path, job.label, count, float(fps), job.size, job.size, "h264")


def _is_written(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _run(jobs: list[_Job], workers: int) -> Iterator[_Job]:
    """Write the clips, in `workers` processes where that is more than one."""
    if jobs:
        require_x264()
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            yield _write_clip(job)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"))
    try:
        yield from pool.map(_write_clip, jobs)
    finally:
        pool.shutdown(cancel_futures=True)


def _write_clip(job: _Job) -> _Job:
    frames, fps = render(job.label, seed=job.seed, index=job.index, size=job.size)
    with replacing(job.path) as part:
        part.write_bytes(_encode(frames, fps))
    return job


def _encode(frames: npt.NDArray[np.uint8], fps: int) -> bytes:
    """An mp4 file of H.264 with a key frame every 16 frames; the same frames give the same bytes."""
    file = io.BytesIO()
    # One thread, as files are written side by side. Without mbtree, x264's look-ahead rate control, whose
    # result for frames as small as these differs from run to run.
    options = {"crf": "16", "preset": "veryfast", "g": "16", "threads": "1", "mbtree": "0"}
    write_h264(file, frames, fps, options)
    return file.getvalue()
