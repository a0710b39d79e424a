"""What the shapes of a foreign checkpoint say about its architecture; hints for what they don't say."""

import math
from typing import Literal

from tubelet.checkpoints.hints import ArchitectureHints
from tubelet.checkpoints.read_file import Checkpoint
from tubelet.errors import UserError
from tubelet.models.encoder import EncoderConfig
from tubelet.models.sizes import ENCODER_SIZES
from tubelet.patches import Size3

_ENCODER_HEADS = {size["dim"]: size["heads"] for size in ENCODER_SIZES.values()}  # by width


def read_encoder(
    file: Checkpoint,
    hints: ArchitectureHints,
    *,
    prefix: str = "",
    embed: str = "patch_embed.proj",
    up: str = "mlp.fc1",
) -> EncoderConfig:
    """Return the architecture of an encoder, with VideoMAE's settings where shapes say nothing.

    Args:
        file: the checkpoint.
        hints: these give the size of the clips, else 16 frames of 224 pixels.
        prefix: the prefix of the encoder's names.
        embed: the name of the patch embedding.
        up: the name of the MLP's first layer in a block.
    """
    kernel = f"{prefix}{embed}.weight"
    size, dim = tubelet(file, kernel), file.weights[kernel].shape[0]
    return EncoderConfig(
        frames=hints.get("frames") or 16,
        image_size=hints.get("image_size") or 224,
        tubelet=size.t,
        patch_size=size.h,
        dim=dim,
        depth=depth(file, f"{prefix}blocks"),
        heads=num_heads(file, hints, "heads", dim),
        mlp_dim=width(file, f"{prefix}blocks.0.{up}.weight"),
    )


def num_heads(
    file: Checkpoint,
    hints: ArchitectureHints,
    name: Literal["heads", "decoder_heads", "bridge_heads"],
    dim: int,
    head_width: int | None = None,
) -> int:
    """Return the attention heads of a part: the hint `name`, or those of the published models.

    Args:
        file: the checkpoint.
        hints: the hints.
        name: the hint.
        dim: the width of the part.
        head_width: the width of one head in published models; None for encoders, where it varies.
    """
    published = _ENCODER_HEADS.get(dim) if head_width is None else dim // head_width
    heads = hints.get(name)
    if heads is None:
        if published is None or (head_width and dim % head_width):
            raise UserError(
                f"{file.source} does not record {name}, and for the width {dim} there is no published "
                f"number: {_how_to_give(file, name)}"
            )
        heads = published
    if heads < 1 or dim % heads:
        raise UserError(f"{file.source}: {name}={heads} does not divide the width {dim}")
    return heads


def _how_to_give(file: Checkpoint, *names: str) -> str:
    """How to give hints; a recipe's `init`, which has no options for them, takes the converted model."""
    options = " ".join(f"--{name.replace('_', '-')} N" for name in names)
    return (
        f"add {options}, in Python load_model(..., {', '.join(f'{name}=N' for name in names)}); for init= in "
        f"a recipe, once `tubelet convert {file.source} OUT {options}` and then init=OUT"
    )


def depth(file: Checkpoint, prefix: str) -> int:
    """Return the number of blocks `prefix.0.`, `prefix.1.`, ..."""
    start = prefix + "."
    numbers = {name.removeprefix(start).split(".")[0] for name in file.weights if name.startswith(start)}
    return sum(number.isdigit() for number in numbers)


def width(file: Checkpoint, name: str, axis: int = 0) -> int:
    """Return the size of a required tensor along an axis.

    Raises:
        UserError: the tensor is missing or has fewer axes.
    """
    found = tuple(file.weights[name].shape) if name in file.weights else "nothing"
    if isinstance(found, str) or len(found) <= axis:
        raise UserError(
            f"{file.source} does not fit its architecture: expected {name} with at least {axis + 1} axes, "
            f"found {found}"
        )
    return found[axis]


def tubelet(file: Checkpoint, kernel: str) -> Size3:
    """Return the size of a token, from the kernel of the patch embedding (D, C, t, h, w)."""
    width(file, kernel, 4)
    return Size3(*file.weights[kernel].shape[2:])


def clip_size(file: Checkpoint, hints: ArchitectureHints, table: str, size: Size3) -> ArchitectureHints:
    """Return the hints with the clip size of a position table, if the file has that table."""
    if table not in file.weights:
        return hints
    return clip_size_of_tokens(file, hints, width(file, table, 1), size)


def clip_size_of_tokens(
    file: Checkpoint, hints: ArchitectureHints, tokens: int, size: Size3
) -> ArchitectureHints:
    """Return the hints with the clip size that a position table was made for.

    It is the first of these that gives this number of tokens: the hints; the published 16 frames of 224
    pixels; 16 frames (or the hinted number) of any square size; the hinted image size with any number of
    frames.

    Raises:
        UserError: none of them does.
    """
    hinted_size = hints.get("image_size")
    frames, image_size = hints.get("frames") or 16, hinted_size or 224
    for side, count in ((image_size, frames), (224, 16)):
        if (side // size.h) ** 2 * (count // size.t) == tokens:
            return hints | {"image_size": side, "frames": count}
    times = frames // size.t
    side = math.isqrt(tokens // times) if times and tokens % times == 0 else 0
    if side and side * side * times == tokens:
        return hints | {"image_size": side * size.h, "frames": frames}
    area = (hinted_size // size.h) ** 2 if hinted_size else 0
    if area and tokens % area == 0:
        return hints | {"frames": tokens // area * size.t}
    raise UserError(
        f"{file.source} has positions for {tokens} tokens, which {frames} frames of {image_size} pixels do "
        f"not make; for the size it was trained on, {_how_to_give(file, 'image_size', 'frames')}"
    )


def square_side(file: Checkpoint, table: str) -> int:
    """Return the side of the square of tokens that a position table has."""
    count = width(file, table, 1)
    side = math.isqrt(count)
    if side * side != count:
        raise UserError(f"{file.source}: expected {table} for a square of tokens, found {count}")
    return side
