"""How fast clips are read here, where the time goes, and how that compares with other loaders.

What is measured is the CPU time of one process with one thread, so that other work on the machine does
little harm. All loaders read the same clips of the same files, in turns, and medians over the rounds are
told.
"""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tubelet.bench.made_videos import write_bench_files
from tubelet.bench.peer_loaders import Job, Loader, ours, peers
from tubelet.bench.report import Part, Report, Row, Stages, hints
from tubelet.clips import DenseClip
from tubelet.data.augment import Augment, RandomErasing, ResizedCrop
from tubelet.data.dataset import Batch, TrainDataset, collate
from tubelet.data.loader import TrainLoader
from tubelet.data.manifest import Manifest, Sample
from tubelet.data.randaugment import RandAugment
from tubelet.errors import UserError
from tubelet.machine import available_cores, processor
from tubelet.video.index import VideoIndex, header_index, scan_index, video_stream
from tubelet.video.packets import Decoding, WrongIndexError
from tubelet.video.reader import VideoError, open_video
from tubelet.video.sources import VIDEO_SUFFIXES, Deadline, open_container, video_errors

OURS = "tubelet"
VIEWS = {  # of one decode: clips of a video at other times, crops of each
    OURS: (1, 1),
    f"{OURS}, 4 clips of one decode": (4, 1),
    f"{OURS}, 2 crops of a clip": (1, 2),
    f"{OURS}, 4 crops of a clip": (1, 4),
}
_BATCH_SECONDS = 3.0  # to measure whole batches with, at least


def bench_data(
    folder: Path | None = None,
    *,
    cache: Path = Path("runs/bench-videos"),
    files: int = 8,
    rounds: int = 5,
    frames: int = 16,
    stride: int | None = None,
    size: int = 224,
    seconds: float = 10,
    workers: Sequence[int] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Measure reading training clips, on files of the user's or on made ones.

    Args:
        folder: videos, in folders below it as well; without it files are made in `cache`.
        cache: where the made files go and stay.
        files: of each set, at most.
        rounds: measurements of each loader, in turns; the median is told.
        frames: of a clip.
        stride: frames of the video from one of the clip to the next; by default 4, and 2 on the files that
            are like Something-Something.
        size: side of the clip in pixels.
        seconds: length of the made files.
        workers: numbers of worker processes with which to measure whole batches; None is none and one a core.
        progress: called with the rounds done and all of them.

    Raises:
        UserError: there are no videos in the folder, or none that can be read.
    """
    if folder is not None:
        sets = {str(folder): _readable(_sample(folder, files))}
    else:
        sets = write_bench_files(cache, files, seconds=seconds)
    counts = (0, available_cores()) if workers is None else workers
    others, missing = peers()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        parts = []
        for done, (name, paths) in enumerate(sets.items()):
            clip = DenseClip(frames=frames, stride=stride or (2 if "ssv2" in name else 4))
            jobs = [Job(path, clip, size, k, (k + 0.5) / len(paths)) for k, path in enumerate(paths)]

            def show(k: int, done: int = done) -> None:
                if progress:
                    progress(done * rounds + k, len(sets) * rounds)

            part = _measure(name, jobs, others, missing, rounds, show)
            part.batches = {count: _batches(jobs, count) for count in counts}
            parts.append(part)
    finally:
        torch.set_num_threads(threads)
    for part in parts:
        part.hints = hints(part, parts)
    return Report(
        machine=f"{processor()}, {available_cores()} cores, Python {platform.python_version()}",
        job=f"{frames} frames to {size} x {size}, one random crop",
        parts=parts,
        missing=missing,
    )


def _measure(
    name: str,
    jobs: list[Job],
    others: dict[str, Loader],
    missing: dict[str, str],
    rounds: int,
    show: Callable[[int], None],
) -> Part:
    """All loaders in turns on the same clips, the first round for warming up."""
    loaders = {name: ours(*views) for name, views in VIEWS.items()} | others
    times: dict[str, list[float]] = {name: [] for name in loaders}
    stages: list[tuple[float, ...]] = []
    for k in range(rounds + 1):
        for loader_name, load in list(loaders.items()):
            start = time.process_time()
            try:
                for job in jobs:
                    load(job)
            except Exception as error:  # a peer that cannot read these files must not end the rest
                if loader_name in others:
                    missing[f"{loader_name} on {name}"] = str(error).strip().partition("\n")[0]
                    del loaders[loader_name]
                    continue
                raise
            if k:
                times[loader_name].append((time.process_time() - start) * 1e3 / len(jobs))
        measured = [read_stages(job) for job in jobs]
        if k:
            stages.append(tuple(map(statistics.mean, zip(*(read.ms for read in measured), strict=True))))
        show(k)
    ms = {name: statistics.median(times[name]) for name in loaders}
    opening, reading, decoding = (statistics.median(column) for column in zip(*stages, strict=True))
    rows = []
    for loader_name in loaders:
        repeats, crops = VIEWS.get(loader_name, (1, 1))
        one = ms[loader_name] / (repeats * crops)
        rows.append(Row(loader_name, one, one / ms[OURS], repeats, crops))
    first = measured[0].index
    return Part(
        name=name,
        files=len(jobs),
        codec=first.codec,
        width=first.width,
        height=first.height,
        fps=first.fps,
        length=len(first),
        frames=jobs[0].clip.frames,
        stride=jobs[0].clip.stride,
        kilobytes=statistics.mean(job.path.stat().st_size for job in jobs) / 1000,
        group=statistics.mean(len(read.index) / len(read.index.keys) for read in measured),
        decoded=statistics.mean(read.decoded for read in measured),
        spanned=statistics.mean(read.spanned for read in measured),
        stages=Stages(
            open=opening,
            read=reading,
            decode=decoding,
            convert=ms[OURS] - opening - reading - decoding,
            **later_stages(jobs, rounds),
        ),
        rows=sorted(rows, key=lambda row: row.ms),
    )


def _batches(jobs: list[Job], workers: int) -> float:
    """Clips a second of wall time out of the training loader, in batches of 8, after the first two."""
    samples = tuple(Sample(str(job.path.resolve())) for job in jobs) * (
        512 // len(jobs) + 1
    )  # one epoch: its end waits
    manifest = Manifest(Path("/"), "bench", samples, ())
    dataset = TrainDataset(manifest, jobs[0].clip, Augment(), size=jobs[0].size)
    loader = TrainLoader(dataset, batch=8, workers=workers)
    seen, start, epoch = 0, 0.0, 0
    while True:
        for number, batch in enumerate(loader.batches(epoch)):
            if epoch == 0 and number == 1:
                start = time.perf_counter()
            elif epoch or number > 1:
                seen += len(batch)
            if seen and time.perf_counter() - start > _BATCH_SECONDS:
                return seen / (time.perf_counter() - start)
        epoch += 1


def _sample(folder: Path, count: int) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: give one with videos, or none to measure on made files")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not found:
        raise UserError(f"{folder}: no videos in this folder")
    return [found[k * len(found) // min(count, len(found))] for k in range(min(count, len(found)))]


def _readable(paths: list[Path]) -> list[Path]:
    good = []
    reason = ""
    for path in paths:
        try:
            with open_video(path, exact=True) as video:
                video.read([k * (len(video.index) - 1) // 15 for k in range(16)])
        except VideoError as error:
            reason = str(error)
        else:
            good.append(path)
    if not good:
        raise UserError(f"none of the {len(paths)} videos tried can be read; the last: {reason}")
    return good


@dataclass(frozen=True)
class Read:
    """What was read, and the CPU time of opening, of reading packets and of decoding, in milliseconds.

    Attributes:
        ms: these three.
        decoded: frames that were decoded.
        spanned: frames from the key frame before the clip to its last.
        index: of the file.
    """

    ms: tuple[float, float, float]
    decoded: int
    spanned: int
    index: VideoIndex


def read_stages(job: Job) -> Read:
    """The first stages of a clip one after the other; its frames are decoded and thrown away."""
    deadline = Deadline(job.path, 60)
    began = time.process_time()
    with open_container(job.path, deadline) as container, video_errors(deadline):
        stream = video_stream(container, job.path)

        def decoding(index: VideoIndex, guessed: bool) -> Decoding:
            return Decoding(container, stream, index, set(job.frames(len(index))), deadline, guessed)

        guess = header_index(container, stream)
        index = guess or scan_index(container, stream, deadline)
        opened = time.process_time()
        try:
            list(decoding(index, guess is not None).packets())
        except WrongIndexError:
            container.seek(0)
            index = scan_index(container, stream, deadline)
            opened = time.process_time()
            list(decoding(index, False).packets())
        demuxed = time.process_time()
        container.seek(0)
        again = time.process_time()
        run = decoding(index, False)
        for _ in run.frames():  # reads the packets once more
            pass
        ended = time.process_time()
    opening, reading = opened - began, demuxed - opened
    spent = (opening, reading, max(ended - again - reading, 0.0))
    return Read((1e3 * spent[0], 1e3 * spent[1], 1e3 * spent[2]), run.num_decoded, run.num_spanned, index)


def later_stages(jobs: list[Job], rounds: int) -> dict[str, float]:
    """CPU time of what happens to a clip that has been read: by stage, the median over the rounds."""
    whole = [_frames(job) for job in jobs[:2]]
    crops = [clip for job in jobs[:2] for clip in ours()(job)]
    pretrain = Augment(flip=0.5)
    finetune = Augment(
        randaugment=RandAugment(), crop=ResizedCrop(scale=(0.08, 1)), flip=0.5, erasing=RandomErasing()
    )
    rng, size, batch = np.random.default_rng(0), jobs[0].size, 8
    items = [_item(crops[0]) for _ in range(batch)]

    def augment() -> None:
        for clip in crops:
            pretrain.draw_crop(clip.shape[-2], clip.shape[-1], size, rng)
            pretrain.finish(clip, rng)

    def augment_to_finetune() -> None:
        for clip in whole:
            finetune(clip, size, rng)

    def timed(step: Callable[[], object], clips: int) -> float:
        times = []
        for _ in range(rounds + 1):
            start = time.process_time()
            step()
            times.append((time.process_time() - start) * 1e3 / clips)
        return statistics.median(times[1:])

    return {
        "augment": timed(augment, len(crops)),
        "finetune": timed(augment_to_finetune, len(whole)),
        "collate": timed(lambda: collate(items), batch),
    }


def _frames(job: Job) -> torch.Tensor:
    with open_video(job.path, exact=True) as video:
        return video.read(job.frames(len(video.index)))


def _item(clip: torch.Tensor) -> Batch:
    one = torch.zeros(1, dtype=torch.int64)
    return Batch(video=clip[None], label=one, seed=one, index=one, names=["a"], failures={})
