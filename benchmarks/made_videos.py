"""Synthetic videos to measure reading on, with about as many bytes as the videos of public data sets."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tubelet.files import replacing
from tubelet.video.encode import require_x264, rgb_frames, write_frames
from tubelet.video.transcode import write_training_video

KINETICS, RE_ENCODED, SSV2 = "kinetics-like", "kinetics-like, re-encoded", "ssv2-like"
_FILES = {KINETICS: ("kinetics", ".mp4"), RE_ENCODED: ("kinetics-encoded", ".mp4"), SSV2: ("ssv2", ".webm")}
_X264 = {"crf": "23"}  # otherwise x264's defaults: a key frame every 250 frames, B-frames
_VP9 = {"crf": "33", "b": "0", "deadline": "realtime", "cpu-used": "6"}
_SCENE = (512, 640)  # height and width of the picture that the camera moves over
_DISC = 96  # diameter in pixels
_AUDIO_RATE = 44100


def write_made_videos(folder: Path, count: int, *, seconds: float = 10) -> dict[str, list[Path]]:
    """Write the files that do not exist yet, and return the `count` files of each kind.

    The kinds are Kinetics as it is usually shared (340 x 256, 30 frames per second, 10 s, x264's defaults,
    sound), the same files as `tubelet prepare --encode` writes them, and Something-Something V2 as published
    (VP9, 427 x 240, 12 frames per second, 4 s). `seconds` is the length of the first two; the third is 0.4
    times as long.
    """
    require_x264()
    files = {
        kind: [folder / f"{name}-{seconds:g}s" / f"{k}{suffix}" for k in range(count)]
        for kind, (name, suffix) in _FILES.items()
    }
    for paths in files.values():
        paths[0].parent.mkdir(parents=True, exist_ok=True)
    for seed, (original, encoded, webm) in enumerate(zip(*files.values(), strict=True)):
        if not original.exists():
            _write_kinetics_like(original, seed, int(seconds * 30))
        if not encoded.exists():
            with replacing(encoded) as part, av.open(str(original)) as container:
                stream = container.streams.video[0]
                write_training_video(part, container.decode(stream), 256, Fraction(30), stream.time_base)
        if not webm.exists():
            with replacing(webm) as part, av.open(str(part), "w", format="webm") as output:
                pictures = rgb_frames(_scene(seed + 1000, int(seconds * 0.4 * 12), 240, 427), Fraction(12))
                write_frames(output, pictures, Fraction(12), codec="libvpx-vp9", options=_VP9)
    return files


def _write_kinetics_like(path: Path, seed: int, num_frames: int) -> None:
    with replacing(path) as part, av.open(str(part), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=_AUDIO_RATE)
        assert isinstance(sound, av.AudioStream)
        pictures = rgb_frames(_scene(seed, num_frames, 256, 340), Fraction(30))
        write_frames(container, pictures, Fraction(30), options=_X264)
        noise = np.random.default_rng(seed).normal(0, 0.1, (1, num_frames * _AUDIO_RATE // 30))
        samples = av.AudioFrame.from_ndarray(noise.astype(np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.time_base, samples.pts = _AUDIO_RATE, Fraction(1, _AUDIO_RATE), 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))


def _scene(seed: int, num_frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    """Yield RGB frames (H, W, 3): a camera moves over a texture, discs cross the picture, with grain."""
    rng = np.random.default_rng(seed)
    texture = 118 + 48 * _texture(*_SCENE, rng)
    discs = [128 + 55 * _texture(_DISC, _DISC, rng) for _ in range(3)]
    y, x = np.mgrid[:_DISC, :_DISC] - _DISC / 2
    inside = x**2 + y**2 < (_DISC / 2 - 4) ** 2
    grain = rng.normal(0, 2, (8, height, width, 1)).astype(np.float32)
    time = np.arange(num_frames) / 30
    room_y, room_x = _SCENE[0] - height, _SCENE[1] - width
    left = room_x / 2 * (1 + 0.95 * np.sin(time * 0.35 + rng.uniform(0, 6)))
    top = room_y / 2 * (1 + 0.95 * np.sin(time * 0.25 + rng.uniform(0, 6)))
    left = np.clip(left + np.cumsum(rng.normal(0, 0.25, num_frames)), 0, room_x - 2)
    top = np.clip(top + np.cumsum(rng.normal(0, 0.2, num_frames)), 0, room_y - 2)
    for k in range(num_frames):
        (i, down), (j, across) = (divmod(float(offset[k]), 1) for offset in (top, left))
        view = texture[int(i) : int(i) + height + 1, int(j) : int(j) + width + 1]
        view = view[:, :-1] * (1 - across) + view[:, 1:] * across
        view = view[:-1] * (1 - down) + view[1:] * down
        for n, disc in enumerate(discs):
            row = int((height - _DISC) / 2 * (1 + np.sin(time[k] * (0.7 + 0.5 * n) + n)))
            column = int((width - _DISC) / 2 * (1 + np.sin(time[k] * (0.9 + 0.4 * n) + 2 * n)))
            view[row : row + _DISC, column : column + _DISC][inside] = disc[inside]
        yield (view + grain[(5 * k + k // 8) % 8]).clip(0, 255).astype(np.uint8)


def _texture(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise with the spectrum of photographs: (H, W, 3), mostly gray, standard deviation near 1."""
    power = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width) ** 2
    power[0, 0] = 1
    channels = []
    for _ in range(3):
        phase = rng.standard_normal(power.shape) + 1j * rng.standard_normal(power.shape)
        channel = np.fft.irfft2(phase / power**0.65, (height, width))
        channels.append(channel / channel.std())
    color = np.stack(channels, -1)
    return (0.75 * color[..., :1] + 0.35 * color).astype(np.float32)
