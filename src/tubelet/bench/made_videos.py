"""Video files to measure reading on: made footage that takes about as many bytes as the data sets' own."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tubelet.errors import UserError
from tubelet.files import replacing
from tubelet.prepare.encode import EncodeJob, encode_file
from tubelet.prepare.pool import JobFailed

KINETICS, RE_ENCODED, SSV2 = "kinetics-like", "kinetics-like, re-encoded", "ssv2-like"
_X264 = {"crf": "23"}  # x264's own settings else: a key frame every 250 frames, B-frames
_VP9 = {"crf": "33", "b": "0", "deadline": "realtime", "cpu-used": "6"}
_SHORT_SIDE = 256  # pixels
_WORLD = (512, 640)  # of the picture that the camera moves over
_RATE = 44100


def write_bench_files(folder: Path, count: int, *, seconds: float = 10) -> dict[str, list[Path]]:
    """Write what is not there yet: `count` files of each kind.

    The kinds are Kinetics as commonly shared (340 x 256, 30 frames a second, 10 s, x264's defaults, sound),
    the same files as `prepare --encode` writes them, and Something-Something V2 as published (VP9,
    427 x 240, 12 frames a second, 4 s).

    Args:
        folder: where they go.
        count: files of each kind.
        seconds: length of the first two kinds; the third is 0.4 times as long.

    Returns:
        The files of each kind.

    Raises:
        UserError: they cannot be written.
    """
    kinds = {
        KINETICS: ("kinetics", ".mp4"),
        RE_ENCODED: ("kinetics-encoded", ".mp4"),
        SSV2: ("ssv2", ".webm"),
    }
    files = {
        kind: [folder / f"{name}-{seconds:g}s" / f"{k}{suffix}" for k in range(count)]
        for kind, (name, suffix) in kinds.items()
    }
    for k in range(count):
        original, anew, webm = (files[kind][k] for kind in kinds)
        for path in (original, anew, webm):
            path.parent.mkdir(parents=True, exist_ok=True)
        frames = int(seconds * 30)
        if not original.exists():
            _encode(original, _footage(k, frames, 256, 340), "libx264", _X264, 30, seed=k)
        if not anew.exists():
            written = encode_file(EncodeJob(str(original), str(anew), _SHORT_SIDE))
            reason = written.reason if isinstance(written, JobFailed) else written.error
            if reason:
                raise UserError(f"{original} {reason}; give a FOLDER of videos to measure on instead")
        if not webm.exists():
            _encode(webm, _footage(k + 1000, int(seconds * 0.4 * 12), 240, 427), "libvpx-vp9", _VP9, 12)
    return files


def _footage(seed: int, frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    """RGB pictures (H, W, 3): a camera drifts over a textured world, discs fly by, and there is grain."""
    rng = np.random.default_rng(seed)
    world = 118 + 48 * _texture(*_WORLD, rng)
    discs = [128 + 55 * _texture(96, 96, rng) for _ in range(3)]
    y, x = np.mgrid[:96, :96]
    round_ = (x - 48) ** 2 + (y - 48) ** 2 < 44**2
    grain = rng.normal(0, 2, (8, height, width, 1)).astype(np.float32)
    time = np.arange(frames) / 30
    left = (_WORLD[1] - width) / 2 * (1 + 0.95 * np.sin(time * 0.35 + rng.uniform(0, 6)))
    top = (_WORLD[0] - height) / 2 * (1 + 0.95 * np.sin(time * 0.25 + rng.uniform(0, 6)))
    left = np.clip(left + np.cumsum(rng.normal(0, 0.25, frames)), 0, _WORLD[1] - width - 2)
    top = np.clip(top + np.cumsum(rng.normal(0, 0.2, frames)), 0, _WORLD[0] - height - 2)
    for k in range(frames):
        (i, down), (j, across) = (divmod(float(place[k]), 1) for place in (top, left))
        view = world[int(i) : int(i) + height + 1, int(j) : int(j) + width + 1]
        view = view[:, :-1] * (1 - across) + view[:, 1:] * across
        view = view[:-1] * (1 - down) + view[1:] * down
        for n, disc in enumerate(discs):
            row = int((height - 96) / 2 * (1 + np.sin(time[k] * (0.7 + 0.5 * n) + n)))
            column = int((width - 96) / 2 * (1 + np.sin(time[k] * (0.9 + 0.4 * n) + 2 * n)))
            view[row : row + 96, column : column + 96][round_] = disc[round_]
        yield (view + grain[(5 * k + k // 8) % 8]).clip(0, 255).astype(np.uint8)


def _texture(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose spectrum falls as that of photographs: float32 (H, W, 3), mostly grey, deviation near 1."""
    power = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width) ** 2
    power[0, 0] = 1
    channels = []
    for _ in range(3):
        phase = rng.standard_normal(power.shape) + 1j * rng.standard_normal(power.shape)
        channel = np.fft.irfft2(phase / power**0.65, (height, width))
        channels.append(channel / channel.std())
    colour = np.stack(channels, -1)
    return (0.75 * colour[..., :1] + 0.35 * colour).astype(np.float32)


def _encode(
    path: Path,
    pictures: Iterator[np.ndarray],
    codec: str,
    options: dict[str, str],
    fps: int,
    *,
    seed: int | None = None,
) -> None:
    """Encode RGB pictures, beside a track of noise where a seed for it is given."""
    with replacing(path) as partial, av.open(str(partial), "w", format=path.suffix[1:]) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=_RATE) if seed is not None else None
        rng = np.random.default_rng(seed)
        for k, picture in enumerate(pictures):
            if not k:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, fps)
            container.mux(stream.encode(frame))
            if isinstance(sound, av.AudioStream):
                wave = rng.normal(0, 0.1, (1, _RATE // fps)).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                samples.sample_rate, samples.time_base = _RATE, Fraction(1, _RATE)
                samples.pts = k * (_RATE // fps)
                container.mux(sound.encode(samples))
        container.mux(stream.encode(None))
        if isinstance(sound, av.AudioStream):
            container.mux(sound.encode(None))
