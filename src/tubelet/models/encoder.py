"""The video encoder: a plain vision transformer over the visible tubelets."""

from dataclasses import InitVar, dataclass

import torch
from torch import Tensor, nn

from tubelet.errors import require_at_least, require_between
from tubelet.masking import take
from tubelet.models.layers import NORM_EPS, Transformer, init_weights
from tubelet.models.positions import PositionKind, Positions
from tubelet.models.sizes import BY_SIZE, ENCODER_SIZES, MAX_DEPTH, MAX_WIDTH, SizeName, fill_by_size
from tubelet.patches import Size3, token_grid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_STATISTIC, MIN_STD = 1e4, 1e-6
"""Bounds of mean and deviation: far beyond those of any pixels in [0, 1], yet inputs stay finite."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """An encoder's architecture; the defaults are VideoMAE's ViT-B.

    Attributes:
        size: small, base, large, huge (VideoMAE's ViT-S to ViT-H) or giant (VideoMAE V2's ViT-g): sets those
            of dim, depth, heads, mlp_dim and patch_size that are not given; null is base. It is not stored.
        frames: frames of a clip.
        image_size: side of the square frames, in pixels.
        tubelet: frames of a token.
        patch_size: side of a token, in pixels.
        dim: width of the tokens.
        depth: number of transformer blocks.
        heads: attention heads of a block.
        mlp_dim: hidden width of a block's MLP.
        positions: fixed ones are `sinusoid` over the flat token index (VideoMAE, MAR) and `sinusoid_3d` over
            time, row and column separately; learned ones (MAE-ST) are `joint`, one for each token, and
            `separable`, one for each position in the frame plus one for each time.
        position_grid: the grid of tokens (time, height, width) that a fixed table is computed for before it
            is resized to the clip's grid; null is the clip's grid.
        class_token: whether a learned token comes before the others (MAE-ST).
        key_bias: whether keys have a bias: MAE-ST's do, VideoMAE's do not.
        layer_scale: first value of learned factors on the blocks' branches; null: without factors.
        final_norm: whether a LayerNorm follows the last block. Pre-trained encoders and MAR's have it;
            classifiers that normalize the mean of the tokens instead do not.
        norm_eps: epsilon of the LayerNorms.
        mean: pixel mean of each channel, for pixels in [0, 1].
        std: pixel standard deviation of each channel, for pixels in [0, 1].
    """

    size: InitVar[SizeName | None] = None
    frames: int = 16
    image_size: int = 224
    tubelet: int = 2
    patch_size: int = BY_SIZE
    dim: int = BY_SIZE
    depth: int = BY_SIZE
    heads: int = BY_SIZE
    mlp_dim: int = BY_SIZE
    positions: PositionKind = "sinusoid"
    position_grid: tuple[int, int, int] | None = None
    class_token: bool = False
    key_bias: bool = False
    layer_scale: float | None = None
    final_norm: bool = True
    norm_eps: float = NORM_EPS
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self, size: SizeName | None) -> None:
        fill_by_size(self, ENCODER_SIZES, size)
        require_between(1, MAX_WIDTH, frames=self.frames, image_size=self.image_size)
        require_between(1, MAX_WIDTH, tubelet=self.tubelet, patch_size=self.patch_size)
        require_between(1, MAX_WIDTH, dim=self.dim, heads=self.heads, mlp_dim=self.mlp_dim)
        require_between(0, MAX_DEPTH, depth=self.depth)
        require_at_least(1, position_grid=min(self.position_grid) if self.position_grid else None)
        require_at_least(0, norm_eps=self.norm_eps)
        for mean, std in zip(self.mean, self.std, strict=True):
            require_between(-MAX_STATISTIC, MAX_STATISTIC, mean=mean)
            require_between(MIN_STD, MAX_STATISTIC, std=std)

    @property
    def tubelet_size(self) -> Size3:
        """The size of a token in frames and pixels."""
        return Size3(self.tubelet, self.patch_size, self.patch_size)

    @property
    def grid(self) -> Size3:
        """The size of a clip in tokens."""
        return token_grid(Size3(self.frames, self.image_size, self.image_size), self.tubelet_size)

    @property
    def patch_values(self) -> int:
        """Numbers in a token's pixels."""
        return self.tubelet_size.volume * len(self.mean)

    @property
    def num_class_tokens(self) -> int:
        """Tokens before those of the clip: 1 with a class token, else 0."""
        return int(self.class_token)


class PatchEmbedding(nn.Module):
    """Pixels to tokens: normalization by the model's own pixel statistics, then one linear map."""

    scale: Tensor
    shift: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        mean, std = (torch.tensor(x, dtype=torch.float64, device="cpu") for x in (config.mean, config.std))
        repeats = config.tubelet_size.volume
        self.register_buffer("scale", (1 / (255 * std)).float().repeat(repeats), persistent=False)
        self.register_buffer("shift", (-mean / std).float().repeat(repeats), persistent=False)
        self.project = nn.Linear(config.patch_values, config.dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Embed uint8 (B, N, P) as (B, N, D)."""
        return self.project(self.normalize(patches))

    def normalize(self, patches: Tensor) -> Tensor:
        """Subtract each channel's pixel mean and divide by its deviation: uint8 (B, N, P) to float32."""
        return torch.addcmul(self.shift, patches.float(), self.scale)


class VideoEncoder(nn.Module):
    """A vision transformer: tokens of pixels to tokens of features.

    Args:
        config: the architecture.
        drop_path: drop-path rate of the last block in training.
    """

    def __init__(self, config: EncoderConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.grid = config.grid
        self.embed = PatchEmbedding(config)
        self.positions = Positions(
            config.positions,
            self.grid,
            config.dim,
            class_token=config.class_token,
            native_grid=Size3(*config.position_grid) if config.position_grid else None,
        )
        self.class_token = nn.Parameter(torch.empty(1, 1, config.dim)) if config.class_token else None
        self.transformer = Transformer(
            config.dim,
            config.depth,
            config.heads,
            config.mlp_dim,
            key_bias=config.key_bias,
            layer_scale=config.layer_scale,
            norm_eps=config.norm_eps,
            drop_path=drop_path,
        )
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.final_norm else nn.Identity()
        init_weights(self.transformer)
        if self.class_token is not None:
            nn.init.trunc_normal_(self.class_token, std=0.02)

    def forward(self, patches: Tensor, visible: Tensor | None = None) -> Tensor:
        """Encode all tokens, or only the visible ones: the others are dropped before the embedding.

        Args:
            patches: uint8 (B, N, P), the whole clip in raster order.
            visible: int64 (B, V), the visible tokens; None is all.

        Returns:
            (B, num_class_tokens + V, D), in the order of `visible`.
        """
        return self.norm(self.transformer(self.embed_tokens(patches, visible)))

    def embed_tokens(self, patches: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the tokens before the first block; arguments and result as those of `forward`."""
        position = self.positions()
        if visible is not None:
            patches, position = take(patches, visible), take(position, visible)
        tokens = self.embed(patches) + position
        if self.class_token is not None and self.positions.class_position is not None:
            class_token = self.class_token + self.positions.class_position
            tokens = torch.cat([class_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
        return tokens

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, first to last."""
        return list(self.transformer.blocks)

    @property
    def num_layers(self) -> int:
        """Layers for layer-wise learning rates: the embedding, each block, and all that follows them."""
        return self.config.depth + 2

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter, 0 to num_layers - 1; class token and positions are in layer 0."""
        part, _, rest = name.partition(".")
        if part in ("embed", "positions", "class_token"):
            return 0
        return self.transformer.block_of(rest) + 1 if part == "transformer" else self.num_layers - 1

    def learned_tokens(self) -> set[str]:
        """Return the names of the class token and learned positions."""
        tokens = set() if self.class_token is None else {"class_token"}
        return tokens | {f"positions.{name}" for name in self.positions.learned_tokens()}
