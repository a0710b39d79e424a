"""What the shapes of a foreign checkpoint tell of its architecture, and what they do not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tubelet.errors import UserError
from tubelet.patches import Size3

HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
"""Width -> attention heads, of every published encoder (small, base, large, huge, giant)."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the user says of a file because its shapes cannot.

    Attributes:
        heads: attention heads of the encoder.
        decoder_heads: attention heads of the decoder.
        bridge_heads: attention heads of the bridging classifier.
        image_size: side of the frames that the model was made for, in pixels.
        frames: frames of the clips that it was made for.
        norm_eps: epsilon of all LayerNorms.
    """

    heads: int | None = None
    decoder_heads: int | None = None
    bridge_heads: int | None = None
    image_size: int | None = None
    frames: int | None = None
    norm_eps: float | None = None


def encoder_heads(given: Given, dim: int, source: str) -> int:
    """The encoder's heads: as given, or those of the published model of this width."""
    if given.heads is None and dim not in HEADS:
        raise UserError(
            f"{source}: the shapes do not tell the encoder's attention heads, and no published model is "
            f"{dim} wide: {_how_to_give(source, 'heads')}"
        )
    return _divides("heads", given.heads or HEADS[dim], dim, source)


def decoder_heads(given: Given, dim: int, width: int, source: str) -> int:
    """The decoder's heads: as given, or of the published `width`."""
    if given.decoder_heads is None and dim % width:
        raise UserError(
            f"{source}: the shapes do not tell the decoder's attention heads, and its {dim} features are not "
            f"a multiple of {width}: {_how_to_give(source, 'decoder_heads')}"
        )
    return _divides("decoder_heads", given.decoder_heads or dim // width, dim, source)


def bridge_heads(given: Given, dim: int, source: str) -> int:
    """The bridging classifier's heads: as given, or 128 wide, as published."""
    if given.bridge_heads is None and dim % 128:
        raise UserError(
            f"{source}: the shapes do not tell the bridging classifier's attention heads, and its {dim} "
            f"features are not a multiple of 128: {_how_to_give(source, 'bridge_heads')}"
        )
    return _divides("bridge_heads", given.bridge_heads or dim // 128, dim, source)


def _how_to_give(source: str, *names: str) -> str:
    """How to say what a file does not: not all commands ask for it."""
    options = " ".join(f"--{name.replace('_', '-')} N" for name in names)
    return (
        f"say load_model(..., {', '.join(f'{name}=N' for name in names)}) in Python, or once "
        f"`tubelet convert {source} OUT {options}` and then use OUT"
    )


def _divides(name: str, heads: int, dim: int, source: str) -> int:
    if heads < 1 or dim % heads:
        raise UserError(f"{source}: {name}={heads} does not divide the width {dim}")
    return heads


def depth(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many blocks `prefix.0.`, `prefix.1.`, ... there are."""
    start = prefix + "."
    numbers = {name.removeprefix(start).split(".")[0] for name in weights if name.startswith(start)}
    return sum(number.isdigit() for number in numbers)


def width(weights: Mapping[str, Tensor], name: str, axis: int, source: str) -> int:
    """The size of a tensor that must be there.

    Raises:
        UserError: it is not, or has fewer axes.
    """
    if name not in weights or weights[name].ndim <= axis:
        found = tuple(weights[name].shape) if name in weights else "nothing"
        raise UserError(f"{source} does not fit its own architecture: expected {name}, found {found}")
    return weights[name].shape[axis]


def tubelet(weights: Mapping[str, Tensor], name: str, source: str) -> Size3:
    """The size of a token, from the kernel of the patch embedding (D, C, t, h, w)."""
    width(weights, name, 4, source)
    return Size3(*weights[name].shape[2:])


def made_for(tokens: int, size: Size3, given: Given, source: str) -> tuple[int, int]:
    """Image size and frames of the clips that a position table was made for.

    What is given counts where it fits the table exactly; else the published 16 frames of 224 pixels, else
    16 (or the frames given) of the square that fits, else the image size given and the frames that fit.

    Returns:
        (image_size, frames): the table's own, which may be other than given.
    """
    frames = given.frames or 16
    for image_size, count in ((given.image_size or 224, frames), (224, 16)):
        if (image_size // size.h) ** 2 * (count // size.t) == tokens:
            return image_size, count
    times = frames // size.t
    side = math.isqrt(tokens // times) if times and tokens % times == 0 else 0
    if side and side * side * times == tokens:
        return side * size.h, frames
    area = (given.image_size // size.h) ** 2 if given.image_size else 0
    if given.image_size and area and tokens % area == 0:
        return given.image_size, tokens // area * size.t
    raise UserError(
        f"{source} has positions for {tokens} tokens, which {frames} frames of {given.image_size or 224} "
        f"pixels do not make; as they were in training, {_how_to_give(source, 'image_size', 'frames')}"
    )


def clip_of(
    weights: Mapping[str, Tensor], table: str, size: Size3, given: Given, source: str
) -> tuple[int, int]:
    """(image_size, frames): what the position table was made for; without one as given, or published."""
    if table not in weights:
        return given.image_size or 224, given.frames or 16
    return made_for(width(weights, table, 1, source), size, given, source)


def square(count: int, what: str, source: str) -> int:
    """The side of a square of tokens."""
    side = math.isqrt(count)
    if side * side != count:
        raise UserError(f"{source}: expected {what} for a square of tokens, found {count}")
    return side
