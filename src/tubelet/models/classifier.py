"""The action classifier: an encoder and a head, on all tokens or, as MAR does, on some of them."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from tubelet.errors import require_at_least
from tubelet.masking import RunningCellMasking, TokenMask
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
        encoder: the encoder.
        head: how tokens become class scores.
        classes: number of classes K; 0 has no last layer and gives the normalised mean of the tokens (D), as
            published encoders without a classifier do.
        masking: recognise on the tokens that this leaves visible; None uses all.
        decoder: the reconstruction branch that MAR trains beside the head; None has none.
        target: what that branch predicts.
    """

    encoder: EncoderConfig
    classes: int
    head: AnyHeadConfig = field(default_factory=LinearHeadConfig)
    masking: RunningCellMasking | None = None
    decoder: DecoderConfig | None = None
    target: PixelTarget = field(default_factory=PixelTarget)

    def __post_init__(self) -> None:
        require_at_least(0, classes=self.classes)


class VideoClassifier(nn.Module):
    """Clips to class scores (VideoMAE's fine-tuned model; with masking and a bridging head, MAR).

    Args:
        config: the architecture.
        drop_path: the encoder's last drop-path rate while training.
    """

    def __init__(self, config: ClassifierConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.card = ModelCard()
        self.encoder = VideoEncoder(config.encoder, drop_path=drop_path)
        self.head = make_head(config.head, dim=config.encoder.dim, classes=config.classes)
        self.decoder = make_decoder(config.decoder, config.encoder, config.target) if config.decoder else None

    @property
    def grid(self) -> Size3:
        """The clip, in tokens."""
        return self.encoder.grid

    def forward(self, video: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Class scores.

        Args:
            video: uint8 (B, T, C, H, W).
            mask: the tokens to look at; without one, the model's own masking in its fixed form for
                testing, or all tokens where it has none.

        Returns:
            (B, K) logits.
        """
        if mask is None and self.config.masking:
            mask = self.config.masking.fixed(self.grid, video.shape[0], video.device)
        return self.head(self.encode(video, mask))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities, float32 (B, K), of logits (B, K).

        Those of a clip add up to 1; of a multi-label model each class has its own.
        """
        return logits.float().sigmoid() if self.card.multi_label else logits.float().softmax(1)

    def forward_jointly(self, video: Tensor, mask: TokenMask) -> tuple[Tensor, Reconstruction]:
        """Class scores (B, K) and the masked tokens painted back, from one pass of the encoder.

        Raises:
            ValueError: the model has no decoder.
        """
        if self.decoder is None:
            raise ValueError("this classifier has no decoder: it cannot reconstruct")
        patches = clip_patches(video, self.config.encoder, mask)
        encoded = self.encoder(patches, mask.visible)
        painted = reconstruct(self.encoder, self.decoder, self.config.target, encoded, patches, mask)
        return self.head(encoded[:, self.config.encoder.num_class_tokens :]), painted

    def encode(self, video: Tensor, mask: TokenMask | None = None) -> Tensor:
        """Features of every token (B, N, D), or of the visible ones (B, V, D), of uint8 (B, T, C, H, W)."""
        return encode_clip(self.encoder, video, mask)
