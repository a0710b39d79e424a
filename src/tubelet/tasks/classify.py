"""Learning to recognize actions: on all tokens, or with MAR on some of them while painting the others."""

from torch import Tensor, nn
from torch.nn import functional

from tubelet.data.dataset import Batch
from tubelet.data.mixing import Mixing
from tubelet.masking import row_noise
from tubelet.models.classifier import VideoClassifier
from tubelet.models.positions import tokens_and_positions


class ClassifyTask(nn.Module):
    """A batch of labeled clips to the classification loss.

    Where a clip shows one class that is the cross-entropy. Where it may show several it is the binary
    cross-entropy, its mean over clips and classes; smoothing by s makes the targets of K classes s / K and
    1 - s + s / K, as in timm (arXiv 2110.00476).

    A model with a masking is trained on the tokens that the masking's random form leaves visible; one with a
    decoder as well also paints the others, and the two losses are added (MAR, arXiv 2207.11660, III-D). While
    training, clips may be mixed first: the model then sees and paints the mixed ones.

    Args:
        model: the classifier to train.
        label_smoothing: probability given to all classes alike, in [0, 1).
        reconstruction_weight: factor on the reconstruction loss.
        mixing: how clips are mixed with each other, and their labels with them; None does not.
    """

    def __init__(
        self,
        model: VideoClassifier,
        *,
        label_smoothing: float = 0.0,
        reconstruction_weight: float = 0.0,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.reconstruction_weight = reconstruction_weight
        self.mixing = mixing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars: `loss`, its parts and, where a clip shows one class, `accuracy` in [0, 1].

        The accuracy is against each clip's own label, mixed or not.
        """
        masking, grid = self.model.config.masking, self.model.grid
        video, target = batch.video, batch.label
        if self.mixing and self.training:
            video, target = self.mixing(video, batch.label, batch.seed, self.model.config.classes)
        losses: dict[str, Tensor] = {}
        if masking is None:
            logits = self.model(video)
        else:
            seeds = batch.seed.to(video.device, non_blocking=True)
            mask = masking.from_noise(grid, row_noise(seeds, masking.noise_size(grid)))
            if self.model.decoder is None:
                logits = self.model(video, mask)
            else:
                logits, painted = self.model.forward_jointly(video, mask)
                losses["reconstruction"] = painted.loss
        logits = logits.float()
        multi_label = batch.label.ndim == 2
        if multi_label:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
            losses["classification"] = functional.binary_cross_entropy_with_logits(logits, target)
        else:
            losses["classification"] = functional.cross_entropy(
                logits, target, label_smoothing=self.label_smoothing
            )
        losses["loss"] = losses["classification"]
        if "reconstruction" in losses:
            losses["loss"] = losses["loss"] + self.reconstruction_weight * losses["reconstruction"]
        if not multi_label:
            losses["accuracy"] = (logits.argmax(1) == batch.label).float().mean()
        return losses

    def no_weight_decay(self) -> set[str]:
        """Learned positions and tokens, which no published recipe decays."""
        return tokens_and_positions(self)

    def layer_count(self) -> int:
        """The layer of all that is not in the encoder, for layer-wise learning-rate decay."""
        return self.model.config.encoder.depth + 1

    def layer_of(self, name: str) -> int:
        """A parameter's layer: 0 for what is before the blocks, 1 to depth for them, above them the rest."""
        if name.startswith(("model.encoder.embed.", "model.encoder.positions.", "model.encoder.class_token")):
            return 0
        if name.startswith("model.encoder.transformer.blocks."):
            return int(name.split(".")[4]) + 1
        return self.layer_count()
