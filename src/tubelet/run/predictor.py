"""Video files in, class names out: one file, a list, or a stream of them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import count, islice
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from tubelet.checkpoints.model_folder import Model
from tubelet.clips import AnyClip, Views
from tubelet.data.dataset import Batch, SampleViews, collate
from tubelet.data.loader import default_workers
from tubelet.data.manifest import Sample, segment_times
from tubelet.data.windows import SlidingWindows, WindowViews
from tubelet.data.workers import Workers
from tubelet.errors import UserError, require_at_least, require_between
from tubelet.machine import MAX_PROCESSES
from tubelet.run.inference import (
    combined_probabilities,
    inference,
    on_device,
    require_classifier,
    require_finite,
    scored_batches,
)
from tubelet.run.prediction import (
    Prediction,
    UnreadableVideo,
    clip_and_views,
    precision_of_test,
    require_clip,
)
from tubelet.run.segments import smoothed
from tubelet.run.tested_videos import require_frames
from tubelet.video.reader import VideoError

VideoFile = str | Path | Sample
_ROUND = 256  # videos that are taken at a time from an iterator
_GPU_BATCH = 8  # videos
_ITEMS = 16  # batches of windows that are requested at a time


class Predictor:
    """Recognizes the actions in videos with a model that stays loaded, and with warm decoding processes.

    The processes start when the first video is read and end with the object. A video that crashes or hangs
    one of them is reported like one that cannot be read.

    Args:
        model: a classifier, or anything that `load_model` reads.
        protocol: the published test whose clips and views to take, as for `evaluate`; None is as the model's
            card says.
        clip: which frames make a clip; None is what the protocol or the card says.
        views: clips and crops to average over; None is what the protocol or the card says.
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "mps", "cuda" or a certain GPU such as "cuda:1".
            With None a model that is given as an object stays where it is, and one that is read goes to the
            best device.
        precision: "fp32", "bf16" or "fp16"; None is that of the protocol, else that of the model's recipe,
            fp32 if its card has no recipe.
        batch_size: videos that the model takes at a time; None is 8 on a GPU and 1 on the CPU.
        workers: decoding processes; None is one for each core, or half as many where the model computes on
            the CPU, too. With 0 this process decodes, and a video that crashes its decoder ends it.

    Raises:
        UserError: the model is not a classifier or cannot be read, there is no such protocol, or the device
            or precision is not available.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        protocol: str | None = None,
        clip: AnyClip | None = None,
        views: Views | None = None,
        device: str | torch.device | None = None,
        precision: str | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> None:
        require_at_least(1, batch_size=batch_size)
        require_between(0, MAX_PROCESSES, workers=workers)
        source = model if isinstance(model, str | Path) else "the model"
        loaded, self._runtime = on_device(model, device, precision_of_test(precision, protocol))
        self.model = require_classifier(loaded, source)
        self._find_clip_and_views = partial(
            clip_and_views, self.model, protocol=protocol, clip=clip, views=views
        )
        device_type = self._runtime.device.type
        self._batch_size = batch_size or (1 if device_type == "cpu" else _GPU_BATCH)
        self._num_workers = default_workers(device_type) if workers is None else workers
        self._idle: dict[SlidingWindows | None, Workers] = {}  # by the last windows; None: of whole videos
        self._numbers = count()  # of the videos

    def __call__(
        self, video: str | Path | Sample | Tensor, *, start: float | None = None, end: float | None = None
    ) -> Prediction:
        """Recognize the action in one video.

        Args:
            video: a file, a folder of images or a URL; or a clip as `read_clip` gives it, uint8 (T, C, H, W)
                of the model's size, which is one view.
            start: seconds at which the segment to recognize begins; None for the start of the video.
            end: seconds at which it ends (exclusive); None for the end of the video.

        Raises:
            UserError: as `stream`; or the clip is not of the model's size.
            VideoError: the video cannot be read.
        """
        if isinstance(video, Tensor):
            return self._of_clip(video)
        sample = video if isinstance(video, Sample) else Sample(str(video), start=start, end=end)
        (found,) = self.stream([sample])
        return _readable(found)

    def stream(self, videos: Iterable[VideoFile]) -> Iterator[Prediction | UnreadableVideo]:
        """Yield the prediction of each video in order, or why it cannot be read, as soon as it is known.

        Processes decode ahead of the model. Of an iterator, which may be endless, 256 videos are taken at a
        time. Streams that are used in turns have processes of their own each.

        Args:
            videos: files, folders of images and URLs; or `Sample`s, which may be segments.

        Raises:
            UserError: neither the arguments nor the model's card say how clips are sampled, a clip does not
                have the model's number of frames, the probabilities of a video are not finite, or a decoding
                process was killed.
        """
        with self._workers() as workers:
            if isinstance(videos, Sequence):
                yield from self._round([_sample(video) for video in videos], workers)
                return
            iterator = iter(videos)
            while samples := [_sample(video) for video in islice(iterator, _ROUND)]:
                yield from self._round(samples, workers)

    def windows(
        self, video: str | Path, window: float | str, hop: float | str | None = None, *, smooth: int = 1
    ) -> Iterator[Prediction]:
        """Yield the prediction of each window of a video, as the video is decoded, once.

        A window is predicted like the segment of the video from its `start` to its `end`. The memory in use
        does not grow with the video. The last window is moved back so that it ends with the video; a shorter
        video is one window.

        Args:
            video: a file or a URL.
            window: length of a window in seconds, or as text: `2s`, or `16f` in frames.
            hop: from the start of a window to the start of the next; None is half of a window.
            smooth: average the probabilities of this many windows around each one (a moving average, of fewer
                at the ends of the video).

        Raises:
            UserError: as `stream`; or an argument is not a length.
            VideoError: the video, or the rest of it, cannot be read.
        """
        require_at_least(1, smooth=smooth)
        return smoothed(self._windows(str(video), SlidingWindows.parse(window, hop)), smooth)

    def _windows(self, video: str, windows: SlidingWindows) -> Iterator[Prediction]:
        number = next(self._numbers)
        with self._workers(windows) as workers:
            for first in count(0, _ITEMS * self._batch_size):  # how many there are, only the worker knows
                keys = [[(number, video, first + k * self._batch_size)] for k in range(_ITEMS)]
                batches = workers.batches(keys)
                for scored in scored_batches(batches, self._probabilities, self.clip_and_views[1].count):
                    for reason in scored.failures.values():
                        raise VideoError(reason)
                    if not scored.num_views:
                        return
                    for name, probabilities in zip(scored.names, scored.values, strict=True):
                        start, end = segment_times(name)
                        yield self._prediction(probabilities, Sample(video, start=start, end=end))

    def _round(self, samples: Sequence[Sample], workers: Workers) -> Iterator[Prediction | UnreadableVideo]:
        """Yield the results of videos that are all known."""
        keys = list(zip(self._numbers, samples, strict=False))
        batches = self._grouped(workers.batches([[key] for key in keys]))
        of_batches = scored_batches(batches, self._probabilities, self.clip_and_views[1].count)
        for first, scored in zip(range(0, len(keys), self._batch_size), of_batches, strict=True):
            found = dict(zip(scored.index.tolist(), scored.values, strict=True))
            for number, sample in keys[first : first + self._batch_size]:
                if number in found:
                    yield self._prediction(found[number], sample)
                else:
                    yield UnreadableVideo(sample.name, scored.failures[sample.name])

    @cached_property
    def clip_and_views(self) -> tuple[AnyClip, Views]:
        """Which frames of a video make a clip, and the clips and crops that are averaged over.

        A model whose card does not say it can only predict clips.
        """
        clip, views = self._find_clip_and_views()
        require_frames(clip, self.model.config.encoder, setting="clip.frames")
        return clip, views

    @contextmanager
    def _workers(self, windows: SlidingWindows | None = None) -> Iterator[Workers]:
        """Take decoding processes that no other stream uses, and keep them for the next one."""
        workers = self._idle.pop(windows, None) or self._start_workers(windows)
        try:
            yield workers
        finally:
            self._idle = {key: kept for key, kept in self._idle.items() if key is None}
            self._idle[windows] = workers

    def _start_workers(self, windows: SlidingWindows | None) -> Workers:
        size, (clip, views) = self.model.config.encoder.image_size, self.clip_and_views
        for_gpu = self._runtime.device.type == "cuda"
        if windows is None:
            return Workers(SampleViews(clip, views, size=size), self._num_workers, for_gpu=for_gpu)
        dataset = WindowViews(windows, clip, views, size=size, count=self._batch_size)
        return Workers(dataset, min(self._num_workers, 1), for_gpu=for_gpu)

    def _grouped(self, videos: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches for the model, on its device, of one video each as they are read."""
        while group := [batch.to(self._runtime.device) for batch in islice(videos, self._batch_size)]:
            yield collate(group)

    def _probabilities(self, batch: Batch) -> Tensor:
        return self._of_views(batch.video, self.clip_and_views[1])

    def _of_views(self, video: Tensor, views: Views) -> Tensor:
        """Return the class probabilities (videos, K) of all views (videos * V, T, C, H, W) of videos."""
        with inference(self.model, self._runtime):
            logits = self.model(video.to(self._runtime.device))
            return combined_probabilities(self.model, logits, views).cpu()

    def _of_clip(self, clip: Tensor) -> Prediction:
        require_clip(clip, self.model.config.encoder)
        probabilities = self._of_views(clip[None], Views())
        require_finite(probabilities, ["clip"])
        return self._prediction(probabilities[0], Sample("clip"))

    def _prediction(self, probabilities: Tensor, sample: Sample) -> Prediction:
        classes = self.model.card.classes or tuple(map(str, range(len(probabilities))))
        return Prediction(probabilities.numpy(), classes, sample.path, sample.start, sample.end)


def _sample(video: VideoFile) -> Sample:
    return video if isinstance(video, Sample) else Sample(str(video))


def _readable(found: Prediction | UnreadableVideo) -> Prediction:
    if isinstance(found, UnreadableVideo):
        raise VideoError(found.reason)
    return found


VideoSource = str | Path | Tensor


@overload
def predict(  # type: ignore[overload-overlap]  # a path as text is a sequence of text, too
    model: Model | str | Path,
    video: VideoSource,
    *,
    protocol: str | None = None,
    clip: AnyClip | None = None,
    views: Views | None = None,
    start: float | None = None,
    end: float | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> Prediction: ...


@overload
def predict(
    model: Model | str | Path,
    video: Sequence[VideoSource],
    *,
    protocol: str | None = None,
    clip: AnyClip | None = None,
    views: Views | None = None,
    start: float | None = None,
    end: float | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> list[Prediction]: ...


def predict(
    model: Model | str | Path,
    video: VideoSource | Sequence[VideoSource],
    *,
    protocol: str | None = None,
    clip: AnyClip | None = None,
    views: Views | None = None,
    start: float | None = None,
    end: float | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> Prediction | list[Prediction]:
    """Recognize the action in a video, or in each video of a list.

    For more than one call, and to continue past videos that cannot be read, keep a `Predictor`.

    Args:
        model: a classifier, or anything that `load_model` reads.
        video: a file, a folder of images or a URL; a clip as `read_clip` gives it, uint8 (T, C, H, W) of the
            model's size, which is one view; or a list of these. A single file is decoded in this process,
            the files of a list in worker processes.
        protocol: the published test whose clips and views to take, as for `evaluate`; None is as the model's
            card says.
        clip: which frames make a clip; None is what the protocol or the card says.
        views: clips and crops to average over; None is what the protocol or the card says.
        start: seconds at which the segment to recognize begins; None for the start of the video.
        end: seconds at which it ends (exclusive); None for the end of the video.
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "mps", "cuda" or a certain GPU such as "cuda:1".
            With None a model that is given as an object stays where it is, and one that is read goes to the
            best device.
        precision: "fp32", "bf16" or "fp16"; None is that of the protocol, else that of the model's recipe,
            fp32 if its card has no recipe.

    Raises:
        UserError: as `Predictor`; or a clip is not of the model's size or is given with other arguments about
            clips, or its probabilities are not finite.
        VideoError: a video cannot be read.
    """
    videos = [video] if isinstance(video, VideoSource) else list(video)
    others = (protocol, clip, views, start, end)
    if any(isinstance(each, Tensor) for each in videos) and others != (None,) * 5:
        raise UserError(
            "a clip is one view: give the video's file to use protocol, clip, views, start or end"
        )
    files = [Sample(str(each), start=start, end=end) for each in videos if not isinstance(each, Tensor)]
    predictor = Predictor(
        model, protocol=protocol, clip=clip, views=views, device=device, precision=precision,
        workers=None if len(files) > 1 else 0,
    )  # fmt: skip
    of_files = predictor.stream(files)
    found = [predictor(each) if isinstance(each, Tensor) else _readable(next(of_files)) for each in videos]
    return found[0] if isinstance(video, VideoSource) else found
