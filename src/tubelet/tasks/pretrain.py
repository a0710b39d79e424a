"""The pre-training task: reconstruct the masked tokens of unlabeled clips."""

from torch import Tensor

from tubelet.data.dataset import Batch
from tubelet.masking import AnyMasking, row_noise
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.tasks.model_task import ModelTask


class PretrainTask(ModelTask[MaskedAutoencoder]):
    """A batch of clips to the reconstruction loss (VideoMAE, arXiv 2203.12602; MAE-ST, arXiv 2205.09113).

    Args:
        model: the autoencoder to train.
        masking: which tokens are masked; each clip's mask follows from its seed.
    """

    def __init__(self, model: MaskedAutoencoder, masking: AnyMasking) -> None:
        super().__init__(model)
        self.masking = masking

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return `loss`, a scalar: the mean squared error over the masked tokens."""
        grid = self.model.grid
        seeds = batch.seed.to(batch.video.device, non_blocking=True)
        mask = self.masking.from_noise(grid, row_noise(seeds, self.masking.noise_size(grid)))
        return {"loss": self.model(batch.video, mask).loss}
