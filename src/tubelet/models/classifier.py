"""The action classifier: an encoder and a head, on all tokens or, as in MAR, on the visible ones."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tubelet.errors import require_at_least
from tubelet.masking import ClassifierMasking, TokenMask
from tubelet.models.autoencoder import Reconstruction, clip_patches, encode_clip, make_decoder, reconstruct
from tubelet.models.card import ModelCard
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig, VideoEncoder
from tubelet.models.heads import AnyHeadConfig, LinearHeadConfig, make_head
from tubelet.models.target import PixelTarget
from tubelet.patches import Size3


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """A classifier's architecture.

    Attributes:
        encoder: the encoder's architecture.
        head: from tokens to class scores.
        classes: number of classes K; with 0 there is no last layer and the output is the normalized mean of
            the tokens (D), as in published encoders without a classifier.
        masking: the model classifies only the visible tokens of this masking; null is all tokens.
        decoder: the decoder that MAR trains beside the head; null: without a decoder.
        target: what the decoder predicts.
    """

    encoder: EncoderConfig
    classes: int
    head: AnyHeadConfig = field(default_factory=LinearHeadConfig)
    masking: ClassifierMasking | None = None
    decoder: DecoderConfig | None = None
    target: PixelTarget = field(default_factory=PixelTarget)

    def __post_init__(self) -> None:
        require_at_least(0, classes=self.classes)


class VideoClassifier(nn.Module):
    """Encoder and classification head (VideoMAE's fine-tuned model; with masking and a bridging head, MAR).

    Args:
        config: the architecture.
        drop_path: drop-path rate of the encoder's last block in training.
    """

    def __init__(self, config: ClassifierConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.card = ModelCard()
        self.encoder = VideoEncoder(config.encoder, drop_path=drop_path)
        self.head = make_head(config.head, dim=config.encoder.dim, classes=config.classes, grid=self.grid)
        self.decoder = make_decoder(config.decoder, config.encoder, config.target) if config.decoder else None

    @property
    def grid(self) -> Size3:
        """The size of a clip in tokens."""
        return self.encoder.grid

    def forward(self, video: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Return logits (B, K).

        Args:
            video: uint8 (B, T, C, H, W).
            mask: the visible tokens; None is the test mask of the model's own masking, with the seed 0 for
                every clip, or all tokens if it has no masking.
        """
        if mask is None and self.config.masking:
            seeds = torch.zeros(len(video), dtype=torch.int64, device=video.device)
            mask = self.config.masking.test_masks(self.grid, seeds)
        return self.head(self.encode(video, mask), mask)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return probabilities (B, K), float32, of logits (B, K): softmax, or sigmoid if multi-label."""
        return logits.float().sigmoid() if self.card.multi_label else logits.float().softmax(1)

    def forward_jointly(self, video: Tensor, mask: TokenMask) -> tuple[Tensor, Reconstruction]:
        """Return logits (B, K) and the reconstruction of the masked tokens, from one pass of the encoder.

        Raises:
            ValueError: the model has no decoder.
        """
        if self.decoder is None:
            raise ValueError("this classifier has no decoder: it cannot reconstruct")
        patches = clip_patches(video, self.config.encoder, mask)
        encoded = self.encoder(patches, mask.visible)
        reconstruction = reconstruct(self.encoder, self.decoder, self.config.target, encoded, patches, mask)
        tokens = encoded[:, self.config.encoder.num_class_tokens :]
        return self.head(tokens, mask), reconstruction

    def encode(self, video: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Return features of all tokens (B, N, D), or of the visible ones (B, V, D); none of the class token.

        Args:
            video: uint8 (B, T, C, H, W).
            mask: the visible tokens; None is all.
        """
        return encode_clip(self.encoder, video, mask)

    @property
    def blocks(self) -> list[nn.Module]:
        """All transformer blocks, the units of sharding and compilation."""
        return self.encoder.blocks + self.head.blocks + (self.decoder.blocks if self.decoder else [])

    @property
    def num_layers(self) -> int:
        """Layers for layer-wise learning rates: the encoder's; head and decoder are in the last one."""
        return self.encoder.num_layers

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter, 0 (embedding) to num_layers - 1 (head)."""
        part, _, rest = name.partition(".")
        return self.encoder.layer_of(rest) if part == "encoder" else self.num_layers - 1

    def learned_tokens(self) -> set[str]:
        """Return the names of the learned tokens and positions."""
        names = {f"encoder.{name}" for name in self.encoder.learned_tokens()}
        names |= {f"head.{name}" for name in self.head.learned_tokens()}
        if self.decoder is not None:
            names |= {f"decoder.{name}" for name in self.decoder.learned_tokens()}
        return names
