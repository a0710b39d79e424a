"""Which features of a clip an encoder gives: layer, normalization, pooling."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from tubelet.checkpoints.model_folder import Model
from tubelet.errors import UserError
from tubelet.models.autoencoder import clip_patches
from tubelet.models.classifier import VideoClassifier
from tubelet.models.heads import LinearHead

Per = Literal["video", "clip", "frame", "token"]
Pool = Literal["mean", "max", "class"]


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Which features of a model are taken.

    Attributes:
        per: one vector for each `video`, the mean over its clips; for each `clip`; for each `frame`, that is
            for each step of the tokens in time (two frames of VideoMAE); or for each `token`. All but the
            tokens are means over the crops.
        layer: the block after which the tokens are taken: 1 is the first block, 0 the embedding before it, -1
            the last block, -2 the one before it.
        pool: `mean` or largest value (`max`) of the tokens, or the `class` token.
        norm: whether the model's last LayerNorm follows: the encoder's, before pooling, or that of a linear
            head such as VideoMAE's, after it.
    """

    per: Per = "video"
    layer: int = -1
    pool: Pool = "mean"
    norm: bool = True

    def __post_init__(self) -> None:
        for name, kind in (("per", Per), ("pool", Pool)):
            if getattr(self, name) not in get_args(kind):
                choices = ", ".join(get_args(kind))
                raise UserError(f"{name} must be one of {choices}, found '{getattr(self, name)}'")
        if self.per == "token" and self.pool != "mean":
            raise UserError(f"pool={self.pool} and per=token: tokens are not pooled; leave pool out")
        if self.per == "frame" and self.pool == "class":
            raise UserError("pool=class and per=frame: a clip has one class token, use per=clip or per=video")

    def of(self, model: Model) -> "FeatureConfig":
        """Return these settings with the layer counted from 0.

        Raises:
            UserError: the model has no such layer or no class token.
        """
        depth = model.config.encoder.depth
        if not -depth - 1 <= self.layer <= depth:
            raise UserError(
                f"layer must be between {-depth - 1} and {depth}, as the model has {depth} blocks, found "
                f"{self.layer}"
            )
        if self.pool == "class" and not model.config.encoder.class_token:
            raise UserError("pool=class: the model has no class token; use mean or max")
        return replace(self, layer=self.layer % (depth + 1))


def clip_features(model: Model, video: Tensor, config: FeatureConfig) -> Tensor:
    """Return the features of clips, float32 (B, n, D): n is 1, the steps in time or the tokens.

    Args:
        model: whose encoder computes them; all tokens are visible.
        video: uint8 (B, T, C, H, W).
        config: which features, with the layer counted from 0.
    """
    encoder = model.encoder
    tokens = encoder.embed_tokens(clip_patches(video, encoder.config))
    for block in encoder.blocks[: config.layer]:
        tokens = block(tokens)
    if config.norm:
        tokens = encoder.norm(tokens)
    own, tokens = tokens.float().tensor_split([encoder.config.num_class_tokens], dim=1)
    if config.per == "token":
        return tokens
    groups = tokens.unflatten(1, (encoder.grid.t if config.per == "frame" else 1, -1))
    pooled = own if config.pool == "class" else groups.amax(2) if config.pool == "max" else groups.mean(2)
    if config.norm and isinstance(model, VideoClassifier) and isinstance(model.head, LinearHead):
        pooled = model.head.norm(pooled)
    return pooled.float()
