"""The published sizes of encoders and decoders, by name."""

from collections.abc import Mapping
from typing import Literal

from tubelet.errors import UserError

SizeName = Literal["small", "base", "large", "huge", "giant"]

MAX_WIDTH, MAX_DEPTH = 2**16, 2**10
"""Of the sides and widths of a model, and of its number of blocks; larger numbers are taken for mistakes."""


class _BySize(int):
    """The number of a setting that is not given; there is one such object."""


BY_SIZE: int = _BySize()
"""The default of a setting that the size decides; it is replaced when the settings are built."""

ENCODER_SIZES: Mapping[SizeName, Mapping[str, int]] = {
    "small": {"dim": 384, "depth": 12, "heads": 6, "mlp_dim": 1536, "patch_size": 16},
    "base": {"dim": 768, "depth": 12, "heads": 12, "mlp_dim": 3072, "patch_size": 16},
    "large": {"dim": 1024, "depth": 24, "heads": 16, "mlp_dim": 4096, "patch_size": 16},
    "huge": {"dim": 1280, "depth": 32, "heads": 16, "mlp_dim": 5120, "patch_size": 16},
    "giant": {"dim": 1408, "depth": 40, "heads": 16, "mlp_dim": 6144, "patch_size": 14},
}
"""ViT-S to ViT-H as in VideoMAE (arXiv 2203.12602), ViT-g as in VideoMAE V2 (arXiv 2303.16727)."""

DECODER_SIZES: Mapping[SizeName, Mapping[str, int]] = {
    "small": {"dim": 192, "depth": 4, "heads": 3, "mlp_dim": 768},
    "base": {"dim": 384, "depth": 4, "heads": 6, "mlp_dim": 1536},
    "large": {"dim": 512, "depth": 12, "heads": 8, "mlp_dim": 2048},
    "huge": {"dim": 640, "depth": 12, "heads": 8, "mlp_dim": 2560},
    "giant": {"dim": 512, "depth": 4, "heads": 8, "mlp_dim": 2234},
}
"""The decoders of the same papers. VideoMAE V2 has others for ViT-L and ViT-H: 512 wide, 4 blocks deep."""


def fill_by_size(config: object, sizes: Mapping[SizeName, Mapping[str, int]], size: SizeName | None) -> None:
    """Set the fields of a frozen config that are not given as the size says, by default `base`.

    Raises:
        UserError: a size is given beside all of the settings that it would decide.
    """
    missing = {
        name: value for name, value in sizes[size or "base"].items() if getattr(config, name) is BY_SIZE
    }
    if size and not missing:
        raise UserError(f"size={size} has no effect beside {', '.join(sizes[size])}: remove it or them")
    for name, value in missing.items():
        object.__setattr__(config, name, value)
