"""Videos in, feature vectors out: what an encoder makes of a video, for probes, search and other tools."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.checkpoints.model_folder import Model
from tubelet.clips import AnyClip, Views
from tubelet.data.dataset import ViewDataset, label_rows, read_views
from tubelet.errors import UserError, plural, require_at_least, require_between
from tubelet.machine import MAX_PROCESSES, version
from tubelet.results.features import Features
from tubelet.results.stored import stored_results, weights_digest
from tubelet.run.clip_features import FeatureConfig, Per, Pool, clip_features
from tubelet.run.inference import inference, on_device, require_finite
from tubelet.run.prediction import clip_and_views, precision_of_test, require_clip
from tubelet.run.predictor import VideoSource
from tubelet.run.shares import broken_videos, compute_share
from tubelet.run.video_list import VideoList
from tubelet.settings import to_plain
from tubelet.train.runtime import Runtime


def embed(
    model: Model | str | Path,
    video: VideoSource | Sequence[VideoSource],
    *,
    per: Per = "video",
    layer: int = -1,
    pool: Pool = "mean",
    norm: bool = True,
    protocol: str | None = None,
    views: Views | None = None,
    start: float | None = None,
    end: float | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> np.ndarray:
    """Return the features of a video, or of each video of a list; all tokens are visible to the encoder.

    Args:
        model: an autoencoder or a classifier, or anything that `load_model` reads.
        video: a file, a folder of images or a URL; a clip as `read_clip` gives it, uint8 (T, C, H, W) of the
            model's size, which is one view; or a list of these.
        per: one vector for each "video", "clip", "frame" (step of the tokens in time) or "token".
        layer: the block after which the tokens are taken: 1 is the first, 0 the embedding, -1 the last block.
        pool: "mean" or "max" of the tokens, or the "class" token.
        norm: whether the model's last LayerNorm follows: the encoder's, before pooling, or that of a linear
            head, after it.
        protocol: the published test whose clips and views to take; None is as the model's card says.
        views: clips and crops; None is what the protocol or the card says, or else one view.
        start: seconds at which the segment begins; None for the start of the video.
        end: seconds at which it ends (exclusive); None for the end of the video.
        device: as in `predict`.
        precision: "fp32", "bf16" or "fp16"; None is as in `predict`.

    Returns:
        float32 (D,) of a video; with another `per` than "video" (R, D), clip by clip and tokens in raster
        order. Of a list (N, D) or (N, R, D).

    Raises:
        UserError: an argument is out of range, or as `predict`.
        VideoError: the video cannot be read.
    """
    loaded, runtime = on_device(model, device, precision_of_test(precision, protocol))
    config = FeatureConfig(per=per, layer=layer, pool=pool, norm=norm).of(loaded)
    found = []
    for each in [video] if isinstance(video, VideoSource) else video:
        if not isinstance(each, Tensor):
            clip, chosen = clip_and_views(loaded, protocol=protocol, views=views)
            found.append(embed_views(loaded, runtime, each, config, clip, chosen, start=start, end=end))
            continue
        if (protocol, views, start, end) != (None,) * 4:
            raise UserError("a clip is one view: give the video's file to use protocol, views, start or end")
        require_clip(each, loaded.config.encoder)
        found.append(_of_one(loaded, each[None], config, Views(), runtime, "a clip"))
    return (found[0] if isinstance(video, VideoSource) else torch.stack(found)).numpy()


def embed_views(
    model: Model,
    runtime: Runtime,
    video: str | Path,
    config: FeatureConfig,
    clip: AnyClip,
    views: Views,
    *,
    start: float | None = None,
    end: float | None = None,
) -> Tensor:
    """Return the features of a video file from these clips and crops, float32 (D,) or (R, D) on the CPU."""
    _require_one_crop(config, views)
    clips = read_views(video, clip, views, model.config.encoder.image_size, start=start, end=end)
    return _of_one(model, clips, config, views, runtime, str(video))


def _of_one(
    model: Model, clips: Tensor, config: FeatureConfig, views: Views, runtime: Runtime, name: str
) -> Tensor:
    vectors = _vectors(model, clips, config, views, runtime)
    require_finite(vectors.flatten(1), [name], "features")
    return vectors[0, 0] if config.per == "video" else vectors[0]


def _vectors(model: Model, video: Tensor, config: FeatureConfig, views: Views, runtime: Runtime) -> Tensor:
    """Return the features of videos, float32 (videos, R, D) on the CPU, from all their views."""
    with inference(model, runtime):
        found = clip_features(model, video.to(runtime.device, non_blocking=True), config)
    found = found.unflatten(0, (-1, views.clips, views.crops)).mean(2)
    return (found.mean(1) if config.per == "video" else found.flatten(1, 2)).cpu()


def _require_one_crop(config: FeatureConfig, views: Views) -> None:
    if config.per == "token" and views.crops > 1:
        raise UserError(f"per=token needs views.crops=1, found {views.crops}: crops show different tokens")


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """How a list of videos is embedded.

    Attributes:
        features: which features of the model.
        clip: which frames make a clip.
        views: clips and crops of a video.
        batch_size: videos of each process at a time.
        workers: decoding processes of each process; None is one for each core, or half as many where the
            model computes on the CPU, too.
    """

    features: FeatureConfig = field(default_factory=FeatureConfig)
    clip: AnyClip
    views: Views
    batch_size: int = 8
    workers: int | None = None

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size)
        require_between(0, MAX_PROCESSES, workers=self.workers)


def embed_list(
    model: Model,
    videos: VideoList,
    config: EmbeddingConfig,
    runtime: Runtime,
    out: Path,
    *,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """Embed a list of videos into a file; with more processes each embeds its share.

    Until the file is complete, finished videos are kept in the folder `OUT.parts`, from which the same call
    resumes; it also stays if a video could not be read, so that only that one is tried again.

    Args:
        model: an autoencoder or a classifier.
        videos: the videos or windows.
        config: how.
        runtime: device, precision and processes.
        out: the .npz or .parquet file.
        source: what the user calls the model, for the file's header.
        progress: called with (finished videos, all videos) of this process in this call.

    Raises:
        UserError: an argument does not fit the model, no video can be read, features are not finite, or the
            same file is being written.
        OSError: the file or the folder cannot be written.
    """
    chosen, manifest = config.features.of(model), videos.manifest
    _require_one_crop(chosen, config.views)
    header = _header(model, chosen, config, runtime)
    shape = _shape(model, chosen, config.views)
    dataset = ViewDataset(manifest, config.clip, config.views, size=model.config.encoder.image_size)
    parts = out.with_name(f"{out.name}.parts")
    asked = {**header, "encoder": to_plain(model.config.encoder)}
    with stored_results(parts, asked, manifest, int(np.prod(shape)), runtime) as results:
        share = compute_share(
            dataset,
            results,
            lambda batch: _vectors(model, batch.video, chosen, config.views, runtime).flatten(1),
            runtime,
            batch_size=config.batch_size,
            workers=config.workers,
            progress=progress,
            what="features",
        )
        index, values = results.join(runtime)
        broken = broken_videos(runtime.gather(share), manifest)
        if not len(index):
            reason = next(iter(broken.values()))
            raise UserError(f"none of the {plural(len(manifest), 'video')} can be read; the first: {reason}")
        samples = [manifest.samples[number] for number in index.tolist()]
        features = Features(
            vectors=values.reshape(len(index), *shape),
            names=[sample.name for sample in samples],
            labels=label_rows(
                [sample.classes for sample in samples],
                len(manifest.classes) if manifest.multi_label else None,
            ).numpy(),
            classes=manifest.classes,
            splits=[videos.splits[number] for number in index.tolist()],
            start=_times(sample.start for sample in samples),
            end=_times(sample.end for sample in samples),
            header={"model": source, **header, "windows": videos.windows and asdict(videos.windows)},
            broken=broken,
        )
        runtime.on_main(lambda: features.save(out))
    if not broken:
        runtime.on_main(lambda: shutil.rmtree(parts))
    return features


def _times(seconds: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if time is None else time for time in seconds], dtype=np.float64)


def _header(
    model: Model, features: FeatureConfig, config: EmbeddingConfig, runtime: Runtime
) -> dict[str, Any]:
    """Return what the features depend on, as plain data."""
    return {
        "tubelet": version(),
        "weights": weights_digest(model),
        **asdict(features),
        "depth": model.config.encoder.depth,
        "clip": to_plain(config.clip),
        "views": to_plain(config.views),
        "image_size": model.config.encoder.image_size,
        "precision": str(runtime.dtype).removeprefix("torch."),
    }


def _shape(model: Model, features: FeatureConfig, views: Views) -> tuple[int, ...]:
    """Return the shape of a video's features: (D,) or (R, D)."""
    grid, dim = model.encoder.grid, model.config.encoder.dim
    if features.per == "video":
        return (dim,)
    of_clip = {"clip": 1, "frame": grid.t, "token": grid.volume}[features.per]
    return (views.clips * of_clip, dim)
