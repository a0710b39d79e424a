"""How fast videos are read for training, and where the time goes.

Times are CPU times of this process with one thread, so that other work on the machine has little influence.
"""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tubelet.bench.report import MeasuredVideo, ReadingReport, StageTimes
from tubelet.clips import DenseClip
from tubelet.data.augment import Augment, MultiScaleCrop, RandomErasing, ResizedCrop
from tubelet.data.dataset import Batch, TrainDataset, collate, read_again
from tubelet.data.loader import TrainLoader
from tubelet.data.manifest import Manifest, Sample, read_manifest
from tubelet.data.randaugment import RandAugment
from tubelet.errors import UserError, plural
from tubelet.machine import available_cores, processor
from tubelet.video.crop import Box
from tubelet.video.folder_videos import videos_in
from tubelet.video.index import VideoIndex, video_stream
from tubelet.video.packets import Decoding
from tubelet.video.reader import Crop, Video, VideoError, open_video
from tubelet.video.remote import remote_url
from tubelet.video.sources import TIME_LIMIT_S, Deadline, open_container, video_errors

SETTINGS = {"data.augmented_copies=2": (1, 2), "data.augmented_copies=4": (1, 4), "data.repeats=4": (4, 1)}
"""Settings that take more than one clip from a decoding -> clips of different frames, copies of each."""
_DEMO_DATA = (Path("runs/demo/data"), Path("runs/demo-quick/data"))
_BATCH_SIZE = 8
_BATCHES_MIN_SECONDS = 3.0
_WARM_UP_DRAWS = 100
_STARTS = 10_000  # a clip begins at one of so many positions of a video
_GOLDEN = 0.618  # its multiples modulo 1 are spread evenly, however many


@dataclass(frozen=True)
class ClipRequest:
    """A clip to read, the same for every loader.

    Attributes:
        path: the video.
        clip: the spacing of its frames.
        size: side of the clip in pixels.
        seed: of the crop and the flip.
        start: where the clip begins, from 0 for the start of the video to 1 for the last possible frame.
    """

    path: str | Path
    clip: DenseClip
    size: int
    seed: int
    start: float

    def frames(self, num_frames: int, view: int = 0) -> list[int]:
        """Return the frame numbers of the clip, or of further clips of the same video."""
        start = (self.start + view * _GOLDEN) % 1
        return self.clip.view(num_frames, round(start * _STARTS), _STARTS + 1)

    def box(self, height: int, width: int, view: int = 0) -> Box:
        """Return the crop, which VideoMAE draws in pre-training."""
        return MultiScaleCrop().box(height, width, self.size, np.random.default_rng((self.seed, 1, view)))

    def flip(self, view: int = 0) -> bool:
        """Return whether to flip the clip."""
        return bool(np.random.default_rng((self.seed, 2, view)).integers(2))


Loader = Callable[[ClipRequest], object]


def our_loader(repeats: int = 1, copies: int = 1) -> Callable[[ClipRequest], list[Tensor]]:
    """Return Tubelet's loader of `repeats` clips of a video and `copies` crops of each, from one decoding."""

    def load(request: ClipRequest) -> list[Tensor]:
        def read(video: Video) -> list[Tensor]:
            index, views = video.index, range(repeats * copies)
            frames = [request.frames(len(index), view // copies) for view in views]
            boxes = [request.box(index.height, index.width, view) for view in views]
            size = (request.size, request.size)
            return video.read_crops([Crop(frames[k], boxes[k], size, request.flip(k)) for k in views])

        with open_video(request.path) as video:
            return read_again(read, video)

    return load


def bench_data(
    sources: Sequence[str | Path] = (),
    *,
    files: int = 8,
    rounds: int = 5,
    frames: int = 16,
    stride: int = 4,
    size: int = 224,
    workers: Sequence[int] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> ReadingReport:
    """Measure reading training clips from videos.

    Args:
        sources: data sets' folders (with train.csv), folders of videos, and videos; by default the demo's
            data set in runs/.
        files: number of videos to read, at most.
        rounds: number of measurements after one to warm up; results are medians.
        frames: of a clip, `stride` frames of the video apart.
        size: side of the clip in pixels.
        workers: numbers of worker processes for whole batches; by default 0 and one per core.
        progress: called with the number of finished rounds and of all rounds.

    Raises:
        UserError: there are no videos, or none of them can be read.
    """
    indices, unreadable = readable_videos(sources, files)
    requests = clip_requests(list(indices), frames=frames, stride=stride, size=size)
    loaders = {"": our_loader()} | {name: our_loader(*views) for name, views in SETTINGS.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ms = cpu_ms_per_request(loaders, requests, rounds, progress)
        measured = [_read_stages(request, indices[request.path], rounds) for request in requests]
        opening, reading, decoding, decoded, spanned = map(statistics.mean, zip(*measured, strict=True))
        stages = StageTimes(
            open=opening,
            read=reading,
            decode=decoding,
            convert=ms.pop("") - opening - reading - decoding,
            **_later_stages(requests, rounds),
        )
        counts = (0, available_cores()) if workers is None else workers
        clips_per_second = {count: _clips_per_second(requests, count) for count in counts}
    finally:
        torch.set_num_threads(threads)
    return ReadingReport(
        machine=f"{processor()}, {available_cores()} cores, Python {platform.python_version()}",
        videos=tuple(MeasuredVideo.of(path, index) for path, index in indices.items()),
        unreadable=unreadable,
        frames=frames,
        stride=stride,
        size=size,
        decoded=decoded,
        spanned=spanned,
        stages=stages,
        settings_ms={name: ms[name] / (repeats * copies) for name, (repeats, copies) in SETTINGS.items()},
        clips_per_second=clips_per_second,
    )


def cpu_ms_per_request(
    loaders: Mapping[str, Loader],
    requests: Sequence[ClipRequest],
    rounds: int,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, float]:
    """Run the loaders in turn, once to warm up and then `rounds` times; return median CPU ms per request."""
    times: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(rounds + 1):
        for name, load in loaders.items():
            start = time.process_time()
            for request in requests:
                load(request)
            times[name].append((time.process_time() - start) * 1000 / len(requests))
        if progress:
            progress(number, rounds)
    return {name: statistics.median(measured[1:]) for name, measured in times.items()}


def find_videos(sources: Sequence[str | Path]) -> list[str | Path]:
    """Return the videos of data sets, of folders, and those given.

    Raises:
        UserError: a source does not exist or has no videos.
    """
    if not sources:
        sources = [folder for folder in _DEMO_DATA if (folder / "train.csv").exists()][:1]
    if not sources:
        raise UserError("no videos to read: give a data set's folder, a folder of videos, or videos")
    found: list[str | Path] = []
    for source in sources:
        path = Path(source)
        if url := remote_url(str(source)):
            videos: list[str | Path] = [url]
        elif (path / "train.csv").exists():
            manifest = read_manifest(path, "train")
            videos = [manifest.locate(sample) for sample in manifest.samples]
        elif path.is_dir():
            videos = [*videos_in(path)]
        elif path.exists():
            videos = [path]
        else:
            raise UserError(f"{source} not found; give a data set's folder, a folder of videos, or videos")
        found += videos
    return found


def readable_videos(
    sources: Sequence[str | Path], count: int
) -> tuple[dict[str | Path, VideoIndex], dict[str, str]]:
    """Return the exact index of each of `count` videos of the sources, and why others of these have none.

    Raises:
        UserError: there are no videos, or none of them can be read.
    """
    videos = find_videos(sources)
    count = min(count, len(videos))
    indices: dict[str | Path, VideoIndex] = {}
    unreadable: dict[str, str] = {}
    for path in (videos[k * len(videos) // count] for k in range(count)):
        if Path(path).is_dir():
            unreadable[str(path)] = "a folder of images, and only video files are measured"
            continue
        try:
            with open_video(path, exact=True) as video:
                video.read([k * (len(video.index) - 1) // 15 for k in range(16)])
                indices[path] = video.index
        except VideoError as error:
            unreadable[str(path)] = str(error).removeprefix(f"{path}: ")
    if not indices:
        path, reason = next(iter(unreadable.items()))
        raise UserError(f"none of {plural(count, 'video')} can be read; the first, {path}: {reason}")
    return indices, unreadable


def clip_requests(videos: Sequence[str | Path], *, frames: int, stride: int, size: int) -> list[ClipRequest]:
    """Return a request for each video, at positions that are spread over the videos' lengths."""
    clip = DenseClip(frames=frames, stride=stride)
    return [ClipRequest(path, clip, size, k, (k + 0.5) / len(videos)) for k, path in enumerate(videos)]


def _read_stages(request: ClipRequest, index: VideoIndex, rounds: int) -> tuple[float, ...]:
    """Return the CPU ms to open a video, read packets and decode, and the frames decoded and spanned."""
    wanted = set(request.frames(len(index)))
    times = []
    for _ in range(rounds + 1):
        deadline = Deadline(request.path, TIME_LIMIT_S)
        begin = time.process_time()
        with open_video(request.path):
            opened = time.process_time()
        with open_container(request.path, deadline) as (container, _), video_errors(deadline):
            stream = video_stream(container, request.path)
            reading = time.process_time()
            for _packet in Decoding(container, stream, index, wanted, deadline).packets():
                pass
            read = time.process_time()
            container.seek(0)
            decoding = Decoding(container, stream, index, wanted, deadline)
            restarted = time.process_time()
            for _frame in decoding.frames():  # reads the packets again
                pass
            decoded = time.process_time() - restarted - (read - reading)
        times.append((1000 * (opened - begin), 1000 * (read - reading), 1000 * max(decoded, 0.0)))
    medians = (statistics.median(stage) for stage in zip(*times[1:], strict=True))
    return (*medians, decoding.num_decoded, decoding.num_spanned)


def _later_stages(requests: Sequence[ClipRequest], rounds: int) -> dict[str, float]:
    """Return the CPU ms per clip of what happens after reading."""
    pretrain = Augment(flip=0.5)
    finetune = Augment(
        randaugment=RandAugment(), crop=ResizedCrop(scale=(0.08, 1)), flip=0.5, erasing=RandomErasing()
    )
    rng, size, one = np.random.default_rng(0), requests[0].size, torch.zeros(1, dtype=torch.int64)
    whole, cropped = {}, {}
    for request in requests[:2]:
        with open_video(request.path, exact=True) as video:
            whole[request] = video.read(request.frames(len(video.index)))
        (cropped[request],) = our_loader()(request)

    small = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    for _ in range(_WARM_UP_DRAWS):  # the first use of each of RandAugment's operations takes long
        finetune(small, 32, rng)

    def augment(request: ClipRequest) -> None:
        pretrain.draw_crop(size, size, size, rng)
        pretrain.finish(cropped[request], rng)

    def collate_batch(request: ClipRequest) -> None:
        item = Batch(video=cropped[request][None], label=one, seed=one, index=one, names=["a"], failures={})
        collate([item] * _BATCH_SIZE)

    ms = cpu_ms_per_request(
        {
            "augment": augment,
            "finetune": lambda request: finetune(whole[request], size, rng),
            "collate": collate_batch,
        },
        requests[:2],
        rounds,
    )
    return ms | {"collate": ms["collate"] / _BATCH_SIZE}


def _clips_per_second(requests: Sequence[ClipRequest], workers: int) -> float:
    """Return clips per second of wall time from the training loader, without its first two batches."""
    paths = [remote_url(request.path) or str(Path(request.path).resolve()) for request in requests]
    samples = tuple(map(Sample, paths))
    samples *= 512 // len(samples) + 1  # long epochs, because the loader waits at their ends
    manifest = Manifest(Path("/"), "bench", samples, ())
    dataset = TrainDataset(manifest, requests[0].clip, Augment(), size=requests[0].size)
    loader = TrainLoader(dataset, batch=_BATCH_SIZE, workers=workers)
    count, start, epoch = 0, 0.0, 0
    while True:
        for number, batch in enumerate(loader.batches(epoch)):
            if epoch == 0 and number == 1:
                start = time.perf_counter()
            elif epoch or number > 1:
                count += len(batch)
            if count and (seconds := time.perf_counter() - start) > _BATCHES_MIN_SECONDS:
                return count / seconds
        epoch += 1
