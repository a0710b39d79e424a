"""Learning from unlabeled clips: paint the masked tokens."""

from torch import Tensor, nn

from tubelet.data.dataset import Batch
from tubelet.masking import AnyMasking, row_noise
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.positions import tokens_and_positions


class PretrainTask(nn.Module):
    """A batch of clips to the reconstruction loss (VideoMAE, arXiv 2203.12602; MAE-ST, arXiv 2205.09113).

    Args:
        model: the autoencoder to train.
        masking: which tokens to hide; each clip's mask follows from its own seed.
    """

    def __init__(self, model: MaskedAutoencoder, masking: AnyMasking) -> None:
        super().__init__()
        self.model = model
        self.masking = masking

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`: the mean squared error over the masked tokens, a scalar."""
        grid = self.model.grid
        seeds = batch.seed.to(batch.video.device, non_blocking=True)
        mask = self.masking.from_noise(grid, row_noise(seeds, self.masking.noise_size(grid)))
        return {"loss": self.model(batch.video, mask).loss}

    def no_weight_decay(self) -> set[str]:
        """Learned positions and tokens, which no published recipe decays."""
        return tokens_and_positions(self)
