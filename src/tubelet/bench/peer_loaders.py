"""The loaders to compare: ours, and those that other projects use, as far as their libraries are installed.

All do the same job with one thread. Each of the others follows its project's own steps: whole frames, then
crop and resize, then whatever the project does before a batch is made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tubelet.clips import DenseClip
from tubelet.data.augment import MultiScaleCrop
from tubelet.video.crop import Box, crop_resize
from tubelet.video.reader import Crop, open_video

_PLACES = 10_000
_GOLDEN = 0.618  # multiples of it lie evenly between 0 and 1, however many
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Job:
    """One clip to read.

    Attributes:
        path: the file.
        clip: its frames' spacing.
        size: side of the clip in pixels.
        seed: of the crop and whether it is mirrored.
        part: how far into the video the clip begins, from 0 to 1 for the last place where it fits.
    """

    path: Path
    clip: DenseClip
    size: int
    seed: int
    part: float

    def frames(self, length: int, view: int = 0) -> list[int]:
        """The frame numbers of the clip; of further ones, begun elsewhere."""
        part = (self.part + view * _GOLDEN) % 1
        return self.clip.view(length, round(part * _PLACES), _PLACES + 1)

    def box(self, height: int, width: int, view: int = 0) -> Box:
        """VideoMAE's crop of a view."""
        return MultiScaleCrop().box(height, width, self.size, np.random.default_rng((self.seed, 1, view)))

    def flip(self, view: int = 0) -> bool:
        """Whether a view is mirrored."""
        return bool(np.random.default_rng((self.seed, 2, view)).integers(2))


Loader = Callable[[Job], Any]


def ours(repeats: int = 1, crops: int = 1) -> Loader:
    """Tubelet: clips begun at `repeats` times of a video, `crops` of each, all from one decode."""

    def load(job: Job) -> list[Tensor]:
        with open_video(job.path) as video:
            return video.read_crops(
                [
                    Crop(
                        job.frames(len(video.index), view // crops),
                        job.box(video.index.height, video.index.width, view),
                        (job.size, job.size),
                        job.flip(view),
                    )
                    for view in range(repeats * crops)
                ]
            )

    return load


def peers() -> tuple[dict[str, Loader], dict[str, str]]:
    """The loaders that can be run, and of the others why not."""
    found: dict[str, Loader] = {}
    missing: dict[str, str] = {}
    for name, make in {
        "decord + PIL, as VideoMAE": _decord_pil,
        "decord + OpenCV": _decord_cv2,
        "TorchCodec, exact": _torchcodec,
        "PyAV from frame 0, as Hugging Face": _pyav_loop,
    }.items():
        try:
            found[name] = make()
        except (ImportError, RuntimeError, OSError) as error:
            missing[name] = str(error).strip().partition("\n")[0]
    return found, missing


def _decord_pil() -> Loader:
    """VideoMAE's pre-training: decord, PIL's crop and resize, Stack, ToTorchFormatTensor, GroupNormalize."""
    import decord

    def load(job: Job) -> Tensor:
        reader = decord.VideoReader(str(job.path), num_threads=1, ctx=decord.cpu(0))
        video = reader.get_batch(job.frames(len(reader))).asnumpy()
        images = [Image.fromarray(frame).convert("RGB") for frame in video]
        top, left, height, width = job.box(*video.shape[1:3])
        images = [image.crop((left, top, left + width, top + height)) for image in images]
        images = [image.resize((job.size, job.size), Image.Resampling.BILINEAR) for image in images]
        if job.flip():
            images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
        stacked = np.concatenate([np.asarray(image) for image in images], axis=2)
        clip = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255.0)
        mean, std = (torch.tensor(numbers * len(images))[:, None, None] for numbers in (_MEAN, _STD))
        clip = clip.sub_(mean).div_(std)
        return clip.view(len(images), 3, job.size, job.size).transpose(0, 1)

    return load


def _decord_cv2() -> Loader:
    import cv2
    import decord

    cv2.setNumThreads(1)

    def load(job: Job) -> Tensor:
        reader = decord.VideoReader(str(job.path), num_threads=1, ctx=decord.cpu(0))
        return _cv2_clip(cv2, job, reader.get_batch(job.frames(len(reader))).asnumpy())

    return load


def _torchcodec() -> Loader:
    """Exact frames as TorchCodec gives them, then torchvision's crop and resize."""
    from torchcodec.decoders import VideoDecoder

    def load(job: Job) -> Tensor:
        decoder = VideoDecoder(str(job.path), seek_mode="exact", num_ffmpeg_threads=1)
        clip = decoder.get_frames_at(job.frames(len(decoder))).data
        clip = crop_resize(clip, job.box(*clip.shape[-2:]), (job.size, job.size))
        return clip.flip(-1) if job.flip() else clip

    _needs_ffmpeg(VideoDecoder)
    return load


def _needs_ffmpeg(decoder: Any) -> None:
    try:
        decoder(b"")
    except (RuntimeError, ValueError) as error:
        if "libtorchcodec" in str(error):
            raise


def _pyav_loop() -> Loader:
    """The loop of Hugging Face's video classification guide, with one thread; then OpenCV, or PIL."""
    try:
        import cv2

        cv2.setNumThreads(1)
    except ImportError:
        cv2 = None

    def load(job: Job) -> Tensor:
        with av.open(str(job.path)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            seconds, rate = (container.duration or 0) / 1e6, float(stream.average_rate or 0)
            wanted = job.frames(stream.frames or int(seconds * rate))
            frames = []
            for k, frame in enumerate(container.decode(video=0)):
                if k > wanted[-1]:
                    break
                if k >= wanted[0] and k in wanted:
                    frames.append(frame)
            video = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        if cv2 is not None:
            return _cv2_clip(cv2, job, video)
        top, left, height, width = job.box(*video.shape[1:3])
        size, part = (job.size, job.size), (left, top, left + width, top + height)
        images = [Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, part) for frame in video]
        clip = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
        return clip.flip(-1) if job.flip() else clip.contiguous()

    return load


def _cv2_clip(cv2: Any, job: Job, video: np.ndarray) -> Tensor:
    """uint8 (T, C, H, W) of uint8 (T, H, W, C)."""
    top, left, height, width = job.box(*video.shape[1:3])
    part = video[:, top : top + height, left : left + width]
    clip = np.stack([cv2.resize(frame, (job.size, job.size)) for frame in part])
    if job.flip():
        clip = clip[:, :, ::-1]
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))
