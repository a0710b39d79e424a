"""A clip of the motion data set: which class it has is visible only in its motion.

Two textured actors perform the motion of the class in front of a smooth background, among distractors that
stand still or drift, under slowly changing light and sensor noise.

Each of five parameters of the pair (x, y, size, angle, gap) is `base + travel * (progress - 0.5)`. Over the
clip, progress runs from 0 to 1 or back, or keeps one random value from [0, 1]; base and travel have the same
distribution for all classes. At a random moment the picture therefore has the same distribution whichever
parameter runs and in whichever direction. The same holds for bouncing, and nearly for circling.
"""

import colorsys
import math

import numpy as np
import numpy.typing as npt

from tubelet.errors import UserError

# Class -> the parameter that runs and its direction. Angles grow clockwise, because y points down.
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
# Parameter -> range of base and range of travel. Lengths are in frame sides, angles in radians; `size` is the
# natural logarithm of a factor.
_RANGES = {
    "x": ((0.42, 0.58), (0.50, 0.80)),
    "y": ((0.42, 0.58), (0.50, 0.80)),
    "size": ((0.0, 0.1), (math.log(2.2), math.log(3.4))),
    "angle": ((-0.1 * math.pi, 0.1 * math.pi), (0.4 * math.pi, 0.7 * math.pi)),
    "gap": ((0.45, 0.55), (0.55, 0.75)),
}
_FRAME_RATES = (6, 8, 10, 12)
_SPRITE = 64  # texels per side of a sprite
_EXTENT = 1.1  # a sprite covers [-_EXTENT, _EXTENT] in units of its radius
Array = npt.NDArray[np.floating]  # float32 throughout


def render(label: int, *, seed: int, index: int, size: int = 64) -> tuple[npt.NDArray[np.uint8], int]:
    """Draw clip `index` of the data set `seed` with the motion of class `label`.

    A pure function of its arguments. The same seed and index with another label show the same objects in the
    same light with another motion.

    Returns:
        The frames, uint8 (T, size, size, 3), RGB, with T in 12..36 (2 to 3 seconds), and the frames per
        second.

    Raises:
        UserError: there is no class with this label.
    """
    if label not in range(len(CLASSES)):
        raise UserError(f"label must be in 0..{len(CLASSES) - 1}, found {label}")
    rng = np.random.default_rng([seed, index])
    fps, count = draw_length(rng)
    time = np.linspace(0, 1, count, dtype=np.float32)
    frames = np.repeat(_background(rng, size)[None], count, axis=0)
    for _ in range(rng.integers(0, 3)):
        _add_distractor(frames, rng, time)
    _add_actors(frames, rng, _motion(label, rng, time))
    return _expose(frames, rng, time), fps


def draw_length(rng: np.random.Generator) -> tuple[int, int]:
    """Draw frames per second and number of frames, before everything else of a clip."""
    fps = int(rng.choice(_FRAME_RATES))
    return fps, round(fps * rng.uniform(2, 3))


def _motion(label: int, rng: np.random.Generator, time: Array) -> dict[str, Array]:
    """Return the pair's parameters over time, (T,) each; the random draws do not depend on the label."""
    base = {name: rng.uniform(*bases) for name, (bases, _) in _RANGES.items()}
    travel = {name: rng.uniform(*travels) for name, (_, travels) in _RANGES.items()}
    progress = {name: np.full_like(time, rng.random()) for name in _RANGES}
    phase, periods = rng.random(), rng.uniform(1.4, 2.1)
    turns = rng.uniform(0.8, 1.3) * float(rng.choice((-1, 1)))

    kind = CLASSES[label]
    if kind in _RUNNING:
        name, direction = _RUNNING[kind]
        progress[name] = time if direction > 0 else 1 - time
    elif kind == "bouncing":  # a triangle wave has the same distribution as a straight run
        progress["y"] = np.abs(1 - 2 * ((phase + periods * time) % 1))
    else:  # an orbit whose center is nearer to the middle, which keeps the spread of a straight run
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
        # tanh bends positions back into the frame; their order, hence the direction, stays.
        x, y = (0.5 + 0.5 * np.tanh((position - 0.5) / 0.5) for position in (x, y))
        _draw_sprite(frames, sprite, x, y, radius, angle)


def _add_distractor(frames: Array, rng: np.random.Generator, time: Array) -> None:
    sprite = _sprite(rng)
    drift = float(rng.choice((0, 1))) * rng.uniform(0.05, 0.2)  # in frame sides; half of them stand still
    heading = rng.uniform(0, 2 * math.pi)
    x = rng.uniform(0.1, 0.9) + drift * math.cos(heading) * (time - 0.5)
    y = rng.uniform(0.1, 0.9) + drift * math.sin(heading) * (time - 0.5)
    radius = np.full_like(time, rng.uniform(0.06, 0.1))
    _draw_sprite(frames, sprite, x, y, radius, np.full_like(time, rng.uniform(0, 2 * math.pi)))


def _expose(frames: Array, rng: np.random.Generator, time: Array) -> npt.NDArray[np.uint8]:
    """Return the frames with slow changes of brightness and color, and sensor noise."""
    swing = (rng.uniform(0, 0.12) + rng.uniform(-0.04, 0.04, 3)).astype(np.float32)
    wave = np.sin(2 * math.pi * (rng.random() + rng.uniform(0.2, 0.6) * time))
    frames *= (1 + swing * wave[:, None])[:, None, None, :]
    # The sum of two uniform bytes is close to normal and much cheaper; its standard deviation is 104.5.
    strength = rng.uniform(0, 2) / 104.5
    draws = np.frombuffer(rng.bytes(2 * frames.size), dtype=np.uint8).reshape(2, *frames.shape)
    frames += strength * np.add(*draws, dtype=np.float32) - strength * 255
    return np.clip(frames, 0, 255, out=frames).astype(np.uint8)


def _background(rng: np.random.Generator, size: int) -> Array:
    """Return (size, size, 3) in 0..255: a smooth field between two muted colors."""
    y, x = np.meshgrid(_centers(size), _centers(size), indexing="ij")
    hue = rng.random()
    dark = _color(hue, rng.uniform(0.3, 0.6), rng.uniform(0.15, 0.35))
    light = _color(hue + rng.uniform(-0.3, 0.3), rng.uniform(0.2, 0.5), rng.uniform(0.7, 0.9))
    return dark + _waves(rng, x, y, cycles=0.8)[..., None] * (light - dark)


def _sprite(rng: np.random.Generator) -> Array:
    """Return (_SPRITE, _SPRITE, 4): a color in 0..255, and the depth inside the outline in radii."""
    y, x = np.meshgrid(*[(_centers(_SPRITE) * 2 - 1) * _EXTENT] * 2, indexing="ij")
    depth = _outline(rng, np.arctan2(y, x)) - np.hypot(x, y)
    hue = rng.random()
    light = _color(hue, rng.uniform(0.35, 0.75), rng.uniform(0.9, 1))
    dark = _color(hue + rng.uniform(0.2, 0.8), rng.uniform(0.65, 0.95), rng.uniform(0.35, 0.6))
    share = np.clip(3 * _waves(rng, x, y, cycles=0.6) - 1, 0, 1)[..., None]
    color = dark + share * (light - dark)
    color *= np.clip(0.35 + 5 * depth, 0.35, 1)[..., None]  # a dark rim sets it off from the background
    return np.concatenate([color, depth[..., None]], axis=-1)


def _outline(rng: np.random.Generator, angle: Array) -> Array:
    """Return the radius of a random shape, at most 1, at each angle."""
    shape, slim, corners = rng.integers(5), rng.uniform(0.55, 0.8), int(rng.integers(3, 7))
    phases = rng.uniform(0, 2 * math.pi, 3).tolist()
    if shape == 0:  # ellipse
        return slim / np.hypot(slim * np.cos(angle), np.sin(angle))
    if shape == 1:  # rectangle
        cos, sin = (np.maximum(np.abs(wave), 1e-6) for wave in (np.cos(angle), np.sin(angle)))
        return np.minimum(1 / cos, slim / sin) / math.hypot(1, slim)
    if shape == 2:  # triangle, square, pentagon, hexagon
        sector = 2 * math.pi / corners
        return math.cos(sector / 2) / np.cos(angle % sector - sector / 2)
    if shape == 3:  # star
        return 0.75 + 0.25 * np.cos(corners * angle)
    outline = np.full_like(angle, 0.7)  # blob
    for wave, phase in enumerate(phases, start=1):
        outline += 0.1 * np.cos(wave * angle + phase)
    return outline


def _draw_sprite(frames: Array, sprite: Array, x: Array, y: Array, radius: Array, angle: Array) -> None:
    """Draw a sprite into frames (T, H, W, 3); its center and radius in frame sides and its angle are (T,)."""
    size = frames.shape[1]
    across = (_centers(size) - x[:, None]) / radius[:, None]
    down = (_centers(size) - y[:, None]) / radius[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    u = (across * cos)[:, None, :] + (down * sin)[:, :, None]
    v = (down * cos)[:, :, None] - (across * sin)[:, None, :]
    covered = np.flatnonzero((np.abs(u) < _EXTENT) & (np.abs(v) < _EXTENT))
    row, column = (((a.ravel()[covered] / _EXTENT + 1) * (_SPRITE / 2)).astype(np.intp) for a in (v, u))
    texel = sprite.reshape(-1, 4)[np.minimum(row * _SPRITE + column, _SPRITE * _SPRITE - 1)]
    depth_px = texel[:, 3] * (radius * size)[covered // (size * size)]
    alpha = np.clip(0.5 + depth_px, 0, 1)[:, None]
    flat = frames.reshape(-1, 3)
    below = flat[covered]
    flat[covered] = below + alpha * (texel[:, :3] - below)


def _waves(rng: np.random.Generator, x: Array, y: Array, cycles: float) -> Array:
    """Return a smooth random field in 0..1: the mean of three plane waves of about `cycles` per unit."""
    field = np.zeros_like(x)
    for _ in range(3):
        heading, phase = rng.uniform(0, 2 * math.pi, 2)
        wave = 2 * math.pi * cycles * rng.uniform(0.5, 1.5)
        field += np.cos(wave * math.cos(heading) * x + wave * math.sin(heading) * y + phase)
    return 0.5 + field / 6


def _centers(count: int) -> Array:
    """Return the centers of `count` pixels along the unit side."""
    return (np.arange(count, dtype=np.float32) + 0.5) / count


def _color(hue: float, saturation: float, value: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32) * 255
