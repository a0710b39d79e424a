"""Other projects' ways of reading a clip, to measure beside Tubelet's.

All read the same clip with one thread. Each follows its project's steps: whole frames, then crop and resize,
then what the project does before it makes a batch.
"""

from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tubelet.bench.measure import ClipRequest, Loader
from tubelet.video.crop import crop_resize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def peer_loaders() -> tuple[dict[str, Loader], dict[str, str]]:
    """Return the loaders whose libraries are installed, and for the others the reason why not."""
    loaders: dict[str, Loader] = {}
    missing: dict[str, str] = {}
    for name, make in {
        "decord + PIL, as VideoMAE": _decord_pil,
        "decord + OpenCV": _decord_opencv,
        "TorchCodec, exact": _torchcodec,
        "PyAV from frame 0, as Hugging Face": _pyav_loop,
    }.items():
        try:
            loaders[name] = make()
        except (ImportError, RuntimeError, OSError) as error:
            missing[name] = str(error).strip().partition("\n")[0]
    return loaders, missing


def _decord_pil() -> Loader:
    """VideoMAE's pre-training: decord, PIL's crop and resize, Stack, ToTorchFormatTensor, GroupNormalize."""
    import decord

    def load(request: ClipRequest) -> Tensor:
        reader = decord.VideoReader(str(request.path), num_threads=1, ctx=decord.cpu(0))
        images = _pil_crops(request, reader.get_batch(request.frames(len(reader))).asnumpy())
        stacked = np.concatenate([np.asarray(image) for image in images], axis=2)
        clip = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255.0)
        mean, std = (torch.tensor(numbers * len(images))[:, None, None] for numbers in (MEAN, STD))
        clip = clip.sub_(mean).div_(std)
        return clip.view(len(images), 3, request.size, request.size).transpose(0, 1)

    return load


def _decord_opencv() -> Loader:
    import cv2
    import decord

    cv2.setNumThreads(1)

    def load(request: ClipRequest) -> Tensor:
        reader = decord.VideoReader(str(request.path), num_threads=1, ctx=decord.cpu(0))
        return _opencv_clip(cv2, request, reader.get_batch(request.frames(len(reader))).asnumpy())

    return load


def _torchcodec() -> Loader:
    """Exact frames from TorchCodec, then torchvision's crop and resize."""
    from torchcodec.decoders import VideoDecoder

    try:
        VideoDecoder(b"")
    except (RuntimeError, ValueError) as error:
        if "libtorchcodec" in str(error):  # FFmpeg's shared libraries are missing
            raise

    def load(request: ClipRequest) -> Tensor:
        decoder = VideoDecoder(str(request.path), seek_mode="exact", num_ffmpeg_threads=1)
        clip = decoder.get_frames_at(request.frames(len(decoder))).data
        clip = crop_resize(clip, request.box(*clip.shape[-2:]), (request.size, request.size))
        return clip.flip(-1) if request.flip() else clip

    return load


def _pyav_loop() -> Loader:
    """The loop of Hugging Face's video classification guide with one thread, then OpenCV or else PIL."""
    try:
        import cv2

        cv2.setNumThreads(1)
    except ImportError:
        cv2 = None

    def load(request: ClipRequest) -> Tensor:
        with av.open(str(request.path)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            seconds, rate = (container.duration or 0) / 1e6, float(stream.average_rate or 0)
            wanted = request.frames(stream.frames or int(seconds * rate))
            frames = []
            for k, frame in enumerate(container.decode(video=0)):
                if k > wanted[-1]:
                    break
                if k >= wanted[0] and k in wanted:
                    frames.append(frame)
            video = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        if cv2 is not None:
            return _opencv_clip(cv2, request, video)
        clip = np.stack([np.asarray(image) for image in _pil_crops(request, video)])
        return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))

    return load


def _pil_crops(request: ClipRequest, video: np.ndarray) -> list[Image.Image]:
    """Crop, resize and flip frames, uint8 (T, H, W, C)."""
    top, left, height, width = request.box(*video.shape[1:3])
    images = [Image.fromarray(frame).crop((left, top, left + width, top + height)) for frame in video]
    images = [image.resize((request.size, request.size), Image.Resampling.BILINEAR) for image in images]
    if request.flip():
        images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    return images


def _opencv_clip(cv2: Any, request: ClipRequest, video: np.ndarray) -> Tensor:
    """Crop, resize and flip frames, uint8 (T, H, W, C) to uint8 (T, C, H, W)."""
    top, left, height, width = request.box(*video.shape[1:3])
    crops = video[:, top : top + height, left : left + width]
    clip = np.stack([cv2.resize(frame, (request.size, request.size)) for frame in crops])
    if request.flip():
        clip = clip[:, :, ::-1]
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))
