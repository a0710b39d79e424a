"""Odd videos: files of the usual codecs and containers, damaged, and what is not a video at all."""

import os
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image

from fault_kinds.mutations import DAMAGES, Mutation
from fault_kinds.trial import Case, LimitedProcesses, TubeletProcess, pick, require
from tubelet.clips import DenseClip
from tubelet.data.dataset import read_clip
from tubelet.demo.motion_clips import CLASSES, render
from tubelet.prepare.check import check_file
from tubelet.video.encode import rgb_frames
from tubelet.video.reader import VideoError

ANSWER_LIMIT_S = 75.0
"""The reader's own limit is 60 s; that for the check is longer, but these files are tiny."""
_FORMATS: tuple[tuple[str, str, str, dict[str, str]], ...] = (  # suffix, codec, pixel format, options
    (".mp4", "libx264", "yuv420p", {"g": "12", "bf": "2"}),
    (".mkv", "libx264", "yuv420p", {"g": "12", "bf": "2"}),
    (".ts", "libx264", "yuv420p", {"g": "12", "bf": "2"}),
    (".webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    (".avi", "mpeg4", "yuv420p", {"g": "12"}),
    (".mov", "mjpeg", "yuvj420p", {}),
    (".mpg", "mpeg2video", "yuv420p", {"g": "12"}),
    (".gif", "gif", "rgb8", {}),
)
_FPS = 25  # MPEG-2 allows only a few
_SIZES = (64, 48)  # of the frames, in pixels


def cases(folder: Path, processes: LimitedProcesses) -> list[Case]:
    """Return a case for each kind of damage, for what is not a file, and for folders of odd files."""
    originals = write_originals(folder / "originals")
    damages: dict[str, Callable[[np.random.Generator, Path], Path]] = {
        name: partial(_damaged, originals, damage) for name, damage in DAMAGES.items()
    }
    damages |= {
        "concatenation": partial(_concatenated, originals),
        "header of another file": partial(_other_header, originals),
        "image folder": _image_folder,
        "not a regular file": partial(_not_a_file, originals),
    }
    read = [Case(name, partial(_read, processes, make)) for name, make in damages.items()]
    whole = Case("`prepare` of a folder of these", partial(_prepare, originals, list(damages.values())))
    return [whole, *read * 12]  # the first takes as long as a hundred of the others


def _read(
    processes: LimitedProcesses,
    make: Callable[[np.random.Generator, Path], Path],
    rng: np.random.Generator,
    folder: Path,
) -> None:
    """Read a clip, and do what `prepare` does to check a file."""
    path = str(make(rng, folder))
    for function in (answer_of_reader, answer_of_check):
        processes.call(function, path, limit_s=ANSWER_LIMIT_S)


def answer_of_reader(path: str) -> None:
    """Read a clip; only a VideoError that names the file may be raised instead."""
    try:
        clip = read_clip(path, DenseClip(frames=16, stride=4), size=48)
    except VideoError as error:
        message = str(error)
        require(message.startswith(path) and len(message) < len(path) + 500, f"the message {message[:300]!r}")
        require("allocate" not in message, f"asked for too much memory: {message[:200]}")
    else:
        require(tuple(clip.shape) == (16, 3, 48, 48), f"a clip of shape {tuple(clip.shape)}")


def answer_of_check(path: str) -> None:
    """Check a file as `prepare` does: what is wrong is in the result."""
    check_file(path)


def write_originals(folder: Path) -> list[Path]:
    """Write two videos of each format, of different sizes."""
    folder.mkdir()
    paths = []
    for number, (suffix, codec, pixels, options) in enumerate(_FORMATS):
        for size in _SIZES:
            path = folder / f"{codec}-{size}{suffix}"
            frames, _ = render(number % len(CLASSES), seed=0, index=size, size=size)
            with av.open(str(path), "w") as container:
                stream = container.add_stream(codec, rate=_FPS, options=options)
                assert isinstance(stream, av.VideoStream)
                stream.width, stream.height, stream.pix_fmt = size, size, pixels
                for frame in rgb_frames(frames, Fraction(_FPS)):
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
            paths.append(path)
    return paths


def _damaged(originals: list[Path], damage: Mutation, rng: np.random.Generator, folder: Path) -> Path:
    original = pick(rng, originals)
    return _written(folder, _suffix(original, originals, rng), damage(original.read_bytes(), rng))


def _concatenated(originals: list[Path], rng: np.random.Generator, folder: Path) -> Path:
    parts = [pick(rng, originals) for _ in range(rng.integers(2, 5))]
    return _written(folder, parts[0].suffix, b"".join(part.read_bytes() for part in parts))


def _other_header(originals: list[Path], rng: np.random.Generator, folder: Path) -> Path:
    one, other = pick(rng, originals), pick(rng, originals)
    length = int(np.exp(rng.uniform(np.log(8), np.log(8192))))
    return _written(folder, one.suffix, one.read_bytes()[:length] + other.read_bytes()[length:])


def _suffix(original: Path, originals: list[Path], rng: np.random.Generator) -> str:
    """Return the right suffix of a file or, rarely, that of another."""
    return original.suffix if rng.random() < 0.8 else pick(rng, originals).suffix


def _written(folder: Path, suffix: str, content: bytes) -> Path:
    path = folder / f"odd{suffix}"
    path.write_bytes(content)
    return path


def _image_folder(rng: np.random.Generator, folder: Path) -> Path:
    """Write numbered images, one of which is odd."""
    images, suffix = folder / "images", pick(rng, (".jpg", ".png"))
    images.mkdir()
    pixels = rng.integers(0, 255, size=(40, 56, 3), dtype=np.uint8)
    for number in range(1, 13):
        Image.fromarray(np.roll(pixels, number, axis=1)).save(images / f"img_{number:05d}{suffix}")
    odd = images / f"img_{rng.integers(1, 13):05d}{suffix}"
    content = odd.read_bytes()
    odd.unlink()
    match int(rng.integers(6)):
        case 0:
            os.mkfifo(odd)
        case 1:
            odd.mkdir()
        case 2:
            odd.symlink_to(images / "missing")
        case 3:
            Image.fromarray(pixels[:20]).save(odd)
        case _:
            odd.write_bytes(pick(rng, list(DAMAGES.values()))(content, rng))
    return images


def _not_a_file(originals: list[Path], rng: np.random.Generator, folder: Path) -> Path:
    path = folder / f"odd{pick(rng, originals).suffix}"
    match int(rng.integers(6)):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(folder / "missing")
        case 3:
            path.symlink_to(path)
        case 4:
            path.symlink_to(pick(rng, ("/dev/zero", "/dev/random", "/dev/null", "/proc/self/mem")))
    return path  # otherwise there is nothing


def _prepare(
    originals: list[Path],
    makers: list[Callable[[np.random.Generator, Path], Path]],
    rng: np.random.Generator,
    folder: Path,
) -> None:
    """Prepare a folder of odd and good files: the good ones are listed, and each odd one is accounted for."""
    source, out = folder / "source", folder / "out"
    source.mkdir()
    names = []
    for number in range(24):
        made = folder / f"{number}"
        made.mkdir()
        odd = makers[number % len(makers)](rng, made)
        if odd.is_file():
            names.append(f"{number}{odd.suffix}")
            odd.rename(source / names[-1])
    good = [path for path in originals if path.suffix == ".mp4"]
    for path in good:
        (source / path.name).write_bytes(path.read_bytes())
    words = ["prepare", "folder", str(source), "--out", str(out), "--workers", "1"]
    TubeletProcess(words, folder / "log").result().require_success()
    listed, report = (out / "train.csv").read_text("utf-8"), (out / "report.txt").read_text("utf-8")
    lost = [path.name for path in good if path.name not in listed]
    require(not lost, f"good files are not listed: {', '.join(lost)}")
    lost = [name for name in names if name not in listed and name not in report]
    require(not lost, f"neither listed nor reported: {', '.join(lost)}")
