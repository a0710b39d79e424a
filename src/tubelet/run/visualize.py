"""What the network sees and what it paints, as short animations."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from tubelet.errors import UserError
from tubelet.files import replacing
from tubelet.masking import TokenMask, TubeMasking, take
from tubelet.models.autoencoder import MaskedAutoencoder, clip_patches
from tubelet.patches import unpatchify
from tubelet.video.encode import write_h264

Frames = npt.NDArray[np.uint8]
GRAY = 128
"""The value of hidden pixels."""
_WHITE = 255  # of gutters
_QUALITY = 80  # of WebP
_GAP = 16  # pixels between the frames of a sheet


@dataclass(frozen=True, eq=False)
class Animation:
    """Pictures that follow one another.

    Attributes:
        frames: uint8 (T, H, W, 3), RGB.
        fps: frames per second.
    """

    frames: Frames
    fps: float

    def save(self, path: str | Path) -> None:
        """Write the file that the suffix of `path` asks for; folders that are missing are made.

        `.gif`, `.webp` and `.mp4` play; `.png` is a sheet of all frames, row by row.

        Raises:
            UserError: the suffix is none of these, or PyAV cannot encode H.264 for an mp4.
        """
        path = Path(path)
        content = self.to_bytes(path.suffix.lower().removeprefix("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def to_bytes(self, format: str) -> bytes:
        """The content of a file of format "gif", "webp", "png" or "mp4".

        Raises:
            UserError: the format is none of these, or PyAV cannot encode H.264 for an mp4.
        """
        if format not in _ENCODERS:
            raise UserError(f"an animation is saved as {', '.join(_ENCODERS)}, found '{format}'")
        return _ENCODERS[format](self)


def reconstruction(
    model: MaskedAutoencoder,
    clip: Tensor,
    mask: TokenMask | None = None,
    *,
    fps: float = 8,
    height: int = 160,
    gutter: int = 6,
) -> Animation:
    """Original, masked and painted, side by side.

    In the middle hidden tokens are gray; on the right they are the model's predictions, beside the visible
    tokens as they are. Nothing is drawn for a token that the mask neither shows nor asks for.

    Args:
        model: the autoencoder; it runs where its parameters are, in evaluation mode, and is left as it was.
        clip: uint8 (T, C, H, W), as the model takes it, on any device.
        mask: of one row; None hides 90 % of the positions at all times, always the same ones.
        fps: frames per second of the animation.
        height: a smaller clip is enlarged by the least whole factor that makes it this many pixels high.
        gutter: pixels between the panels.

    Returns:
        T frames, each `factor * H` pixels high and `3 * factor * W + 2 * gutter` wide.

    Raises:
        ValueError: the clip is not what the model takes.
    """
    device = next(model.parameters()).device
    video = clip[None].to(device)
    if mask is None:
        mask = TubeMasking(ratio=0.9).sample(model.grid, 1, torch.Generator().manual_seed(0))
    masked, painted = _paint(model, video, mask.to(device))
    panels = [_enlarge(_to_frames(panel[0]), height) for panel in (video, masked, painted)]
    return Animation(_side_by_side(panels, gutter), fps)


def film_strip(clip: Tensor, count: int, height: int, gutter: int = 2) -> Image.Image:
    """`count` frames of a clip in a row, from its first to its last.

    Args:
        clip: uint8 (T, 3, H, W).
        count: how many frames, evenly spread over the clip.
        height: of the picture, in pixels; the frames keep their proportions.
        gutter: pixels between the frames.
    """
    chosen = np.linspace(0, len(clip) - 1, count).round().astype(int)
    width = max(1, round(height * clip.shape[-1] / clip.shape[-2]))
    pictures = (Image.fromarray(frame) for frame in _to_frames(clip)[chosen])
    resized = [np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS)) for picture in pictures]
    return Image.fromarray(_side_by_side([frame[None] for frame in resized], gutter)[0])


@torch.no_grad()
def _paint(model: MaskedAutoencoder, video: Tensor, mask: TokenMask) -> tuple[Tensor, Tensor]:
    """The masked and the painted video, each uint8 (1, T, C, H, W)."""
    config = model.config
    patches = clip_patches(video, config.encoder)
    with _evaluating(model):
        predicted = model(video, mask).predicted.float()
    pixels = config.target.to_pixels(predicted, take(patches, mask.masked), mask.masked, model.encoder)
    masked = torch.full_like(patches, GRAY)
    painted = masked.clone()
    painted[0, mask.masked[0]] = (pixels[0] * 255).round().clamp(0, 255).to(torch.uint8)
    for panel in (masked, painted):
        panel[0, mask.visible[0]] = patches[0, mask.visible[0]]
    size = config.encoder.tubelet_size
    return unpatchify(masked, model.grid, size), unpatchify(painted, model.grid, size)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; then each module's own mode again, as parts may be frozen."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _to_frames(video: Tensor) -> Frames:
    """uint8 (T, 3, H, W) to (T, H, W, 3)."""
    return video.permute(0, 2, 3, 1).cpu().numpy()


def _enlarge(frames: Frames, height: int) -> Frames:
    factor = max(1, math.ceil(height / frames.shape[1]))
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def _side_by_side(panels: list[Frames], gutter: int) -> Frames:
    space = np.full((*panels[0].shape[:2], gutter, 3), _WHITE, dtype=np.uint8)
    return np.concatenate([part for panel in panels for part in (space, panel)][1:], axis=2)


def _gif(animation: Animation) -> bytes:
    """One palette for all frames, and no error diffusion: both would flicker."""
    frames = animation.frames
    whole = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    palette = whole.quantize(256, method=Image.Quantize.MEDIANCUT)
    pictures = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
    ]
    return _moving(pictures, "GIF", animation.fps)


def _webp(animation: Animation) -> bytes:
    return _moving([Image.fromarray(x) for x in animation.frames], "WEBP", animation.fps, quality=_QUALITY)


def _moving(pictures: list[Image.Image], format: str, fps: float, **options: int) -> bytes:
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
    """All frames row by row, in as many columns as bring the sheet closest to a square."""
    count, height, width, _ = animation.frames.shape
    columns = min(count, max(1, round(math.sqrt(count * height / width))))
    rows = math.ceil(count / columns)
    size = (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP)
    sheet = Image.new("RGB", size, "white")
    for k, frame in enumerate(animation.frames):
        row, column = divmod(k, columns)
        sheet.paste(Image.fromarray(frame), (column * (width + _GAP), row * (height + _GAP)))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _mp4(animation: Animation) -> bytes:
    file = io.BytesIO()
    write_h264(file, animation.frames, animation.fps, {"crf": "18"})
    return file.getvalue()


_ENCODERS: dict[str, Callable[[Animation], bytes]] = {"gif": _gif, "webp": _webp, "png": _png, "mp4": _mp4}
