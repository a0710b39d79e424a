"""What a masked autoencoder sees and what it reconstructs, as short animations."""

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tubelet.checkpoints.model_folder import Model
from tubelet.errors import UserError
from tubelet.files import replacing
from tubelet.masking import TokenMask, TubeMasking, take
from tubelet.models.autoencoder import MaskedAutoencoder, clip_patches
from tubelet.patches import unpatchify
from tubelet.run.inference import inference, on_device
from tubelet.run.prediction import require_clip
from tubelet.train.runtime import Runtime
from tubelet.video.encode import write_h264

Frames = npt.NDArray[np.uint8]
MASKED_GRAY = 128
_GUTTER_WHITE = 255
_WEBP_QUALITY = 80
_SHEET_GAP = 16  # pixels


@dataclass(frozen=True, eq=False, repr=False)
class Animation:
    """Frames in time order, with their rate.

    Attributes:
        frames: uint8 (T, H, W, 3), RGB.
        fps: frames per second.
    """

    frames: Frames
    fps: float

    def save(self, path: str | Path) -> None:
        """Write a file of the format that its suffix names; missing folders are created.

        `.gif`, `.webp` and `.mp4` are animations; `.png` is a sheet of all frames, row by row.

        Raises:
            UserError: the suffix is not one of these, or PyAV cannot encode H.264 for `.mp4`.
        """
        path = Path(path)
        content = self.to_bytes(path.suffix.lower().removeprefix("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def to_bytes(self, format: str) -> bytes:
        """Return the content of a file in the format "gif", "webp", "png" or "mp4".

        Raises:
            UserError: the format is not one of these, or PyAV cannot encode H.264 for "mp4".
        """
        if format not in _ENCODERS:
            raise UserError(f"an animation is saved as {', '.join(_ENCODERS)}, found '{format}'")
        return _ENCODERS[format](self)

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        return f"Animation({count} frames of {width} x {height} pixels, {self.fps:g} frames per second)"

    def _repr_html_(self) -> str:
        """Return the animation as an image, for notebooks."""
        return f'<img src="data:image/webp;base64,{base64.b64encode(_webp(self)).decode()}">'


def reconstruction(
    model: Model,
    clip: Tensor,
    mask: TokenMask | None = None,
    *,
    fps: float = 8,
    height: int = 160,
    gutter: int = 6,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> Animation:
    """Show a clip, the visible part of it and its reconstruction, side by side.

    Masked tokens are gray in the middle panel. In the right panel they are the model's predictions, next to
    the visible tokens as they are. A token that is neither visible nor predicted stays gray there.

    Args:
        model: an autoencoder, or a classifier with a decoder, such as MAR's; its mode (training or
            evaluation) does not matter and does not change.
        clip: uint8 (T, C, H, W), of the size that the model takes, on any device.
        mask: a mask with one row; None is the classifier's own, or masks 90 % of the positions, the same in
            all frames.
        fps: frames per second of the animation.
        height: a smaller clip is enlarged by the least integer factor that makes it this high, in pixels.
        gutter: space between the panels in pixels.
        device: where to compute, such as "auto" or "cuda"; None is where the model is.
        precision: "fp32", "bf16" or "fp16"; None is that of the model's recipe, fp32 if its card has no
            recipe.

    Returns:
        T frames, each `factor * H` pixels high and `3 * factor * W + 2 * gutter` wide.

    Raises:
        UserError: the clip is not of the size that the model takes, the model has no decoder, or the device
            or the precision is not available.
    """
    require_decoder(model)
    require_clip(clip, model.config.encoder)
    _, runtime = on_device(model, device, precision)
    video = clip[None].to(runtime.device)
    if mask is None:
        mask = draw_mask(model)
    masked, reconstructed = _reconstruct(model, video, mask.to(runtime.device), runtime)
    panels = [_enlarge(_to_frames(panel[0]), height) for panel in (video, masked, reconstructed)]
    return Animation(_side_by_side(panels, gutter), fps)


def require_decoder(model: Model, source: object = "the model") -> None:
    """Raise a UserError if a model cannot reconstruct."""
    if model.decoder is None:
        raise UserError(
            f"{source} is a classifier without a decoder, which cannot reconstruct: use the pre-trained "
            "autoencoder"
        )


def draw_mask(model: Model, ratio: float | None = None, seed: int = 0) -> TokenMask:
    """Return a mask of one row to show: a classifier's own masking, else the same positions in all frames.

    Args:
        model: the model.
        ratio: fraction of the tokens to mask; None is that of the classifier's training, else 0.9.
        seed: of the random positions; MAR's masks in testing are fixed.
    """
    own = None if isinstance(model, MaskedAutoencoder) else model.config.masking
    if own:
        changed = own if ratio is None else replace(own, ratio=ratio)
        return changed.test_masks(model.grid, torch.tensor([seed]))
    masking = TubeMasking(ratio=0.9 if ratio is None else ratio)
    return masking.sample(model.grid, 1, torch.Generator().manual_seed(seed))


def film_strip(clip: Tensor, count: int, height: int, gutter: int = 2) -> Image.Image:
    """Return a picture of `count` frames of a clip in a row, from the first to the last frame.

    Args:
        clip: uint8 (T, 3, H, W).
        count: how many frames, evenly spread over the clip.
        height: height of the picture in pixels; the frames keep their proportions.
        gutter: space between the frames in pixels.
    """
    chosen = np.linspace(0, len(clip) - 1, count).round().astype(int)
    width = max(1, round(height * clip.shape[-1] / clip.shape[-2]))
    pictures = (Image.fromarray(frame) for frame in _to_frames(clip)[chosen])
    resized = [np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS)) for picture in pictures]
    return Image.fromarray(_side_by_side([frame[None] for frame in resized], gutter)[0])


def _reconstruct(model: Model, video: Tensor, mask: TokenMask, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Return the masked and the reconstructed video, each uint8 (1, T, C, H, W)."""
    config = model.config
    patches = clip_patches(video, config.encoder)
    with inference(model, runtime):
        if isinstance(model, MaskedAutoencoder):
            predicted = model(video, mask).predicted.float()
        else:
            predicted = model.forward_jointly(video, mask)[1].predicted.float()
    with torch.no_grad():
        pixels = config.target.to_pixels(predicted, take(patches, mask.masked), mask.masked, model.encoder)
    masked = torch.full_like(patches, MASKED_GRAY)
    reconstructed = masked.clone()
    reconstructed[0, mask.masked[0]] = (pixels[0] * 255).round().clamp(0, 255).to(torch.uint8)
    for panel in (masked, reconstructed):
        panel[0, mask.visible[0]] = patches[0, mask.visible[0]]
    size = config.encoder.tubelet_size
    return unpatchify(masked, model.grid, size), unpatchify(reconstructed, model.grid, size)


def _to_frames(video: Tensor) -> Frames:
    """Return uint8 (T, 3, H, W) as (T, H, W, 3)."""
    return video.permute(0, 2, 3, 1).cpu().numpy()


def _enlarge(frames: Frames, height: int) -> Frames:
    factor = max(1, math.ceil(height / frames.shape[1]))
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def _side_by_side(panels: list[Frames], gutter: int) -> Frames:
    space = np.full((*panels[0].shape[:2], gutter, 3), _GUTTER_WHITE, dtype=np.uint8)
    return np.concatenate([part for panel in panels for part in (space, panel)][1:], axis=2)


def _gif(animation: Animation) -> bytes:
    """All frames share one palette, without error diffusion: anything else would flicker."""
    frames = animation.frames
    whole = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    palette = whole.quantize(256, method=Image.Quantize.MEDIANCUT)
    pictures = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
    ]
    return _animated(pictures, "GIF", animation.fps)


def _webp(animation: Animation) -> bytes:
    pictures = [Image.fromarray(frame) for frame in animation.frames]
    return _animated(pictures, "WEBP", animation.fps, quality=_WEBP_QUALITY)


def _animated(pictures: list[Image.Image], format: str, fps: float, **options: int) -> bytes:
    file = io.BytesIO()
    pictures[0].save(
        file,
        format,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / fps),
        loop=0,
        **options,
    )
    return file.getvalue()


def _png(animation: Animation) -> bytes:
    """All frames, row by row, in as many columns as make the sheet closest to a square."""
    count, height, width, _ = animation.frames.shape
    columns = min(count, max(1, round(math.sqrt(count * height / width))))
    rows = math.ceil(count / columns)
    size = (columns * (width + _SHEET_GAP) - _SHEET_GAP, rows * (height + _SHEET_GAP) - _SHEET_GAP)
    sheet = Image.new("RGB", size, "white")
    for k, frame in enumerate(animation.frames):
        row, column = divmod(k, columns)
        sheet.paste(Image.fromarray(frame), (column * (width + _SHEET_GAP), row * (height + _SHEET_GAP)))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _mp4(animation: Animation) -> bytes:
    file = io.BytesIO()
    write_h264(file, animation.frames, animation.fps, {"crf": "18"})
    return file.getvalue()


_ENCODERS: dict[str, Callable[[Animation], bytes]] = {"gif": _gif, "webp": _webp, "png": _png, "mp4": _mp4}
