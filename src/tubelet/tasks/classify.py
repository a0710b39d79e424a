"""The classification task: on all tokens, or on the visible ones while the masked ones are reconstructed."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from tubelet.data.dataset import Batch
from tubelet.data.mixing import Mixing
from tubelet.masking import row_noise
from tubelet.models.classifier import VideoClassifier
from tubelet.tasks.model_task import ModelTask


class ClassifyTask(ModelTask[VideoClassifier]):
    """A batch of labeled clips to the classification loss.

    For one class per clip this is the cross-entropy. For multi-label data it is the mean of the binary
    cross-entropy over clips and classes; smoothing by s makes the targets of K classes s / K and
    1 - s + s / K, as in timm (arXiv 2110.00476).

    A model with a masking is trained on the visible tokens of random masks. If it also has a decoder, it
    reconstructs the masked tokens, and the weighted reconstruction loss is added (MAR, arXiv 2207.11660,
    III-D). With mixing, training clips are mixed first, so the mixed clips are classified and reconstructed.

    Args:
        model: the classifier to train.
        label_smoothing: probability that is spread evenly over all classes, in [0, 1).
        reconstruction_weight: factor on the reconstruction loss.
        mixing: mixup and cutmix of clips and labels; None does not mix.
        masking_start_ratio: ratio of the model's masking in the first epoch of training, from which it goes
            to the masking's own ratio in the last epoch along half a cosine; None keeps the ratio.
        class_weights: factor on the loss of each class; None is 1 for all.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        model: VideoClassifier,
        *,
        label_smoothing: float = 0.0,
        reconstruction_weight: float = 0.0,
        mixing: Mixing | None = None,
        masking_start_ratio: float | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(model)
        self.masking = model.config.masking
        self.masking_start_ratio = masking_start_ratio
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.label_smoothing = label_smoothing
        self.reconstruction_weight = reconstruction_weight
        self.mixing = mixing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the scalars `loss`, its parts and, with one class per clip, `accuracy` in [0, 1].

        The accuracy is relative to each clip's own label, also for mixed clips.
        """
        masking, grid = self.masking, self.model.grid
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
                logits, reconstruction = self.model.forward_jointly(video, mask)
                losses["reconstruction"] = reconstruction.loss
        logits = logits.float()
        multi_label = batch.label.ndim == 2
        if multi_label:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
            losses["classification"] = functional.binary_cross_entropy_with_logits(
                logits, target, weight=self.class_weights
            )
        else:
            losses["classification"] = self._cross_entropy(logits, target)
        losses["loss"] = losses["classification"]
        if "reconstruction" in losses:
            losses["loss"] = losses["loss"] + self.reconstruction_weight * losses["reconstruction"]
        if not multi_label:
            losses["accuracy"] = (logits.argmax(1) == batch.label).float().mean()
        return losses

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over clips, to targets (B,) int64 or (B, K); PyTorch's would divide by weights."""
        if self.class_weights is None:
            return functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        shares = target if target.ndim == 2 else functional.one_hot(target, logits.shape[1])
        shares = shares * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
        return -(shares * self.class_weights * logits.log_softmax(1)).sum(1).mean()

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set the masking's ratio in this epoch."""
        masking, start = self.model.config.masking, self.masking_start_ratio
        if masking is not None and start is not None:
            share = (1 + math.cos(math.pi * epoch / max(1, epochs - 1))) / 2
            self.masking = replace(masking, ratio=masking.ratio + (start - masking.ratio) * share)

    @property
    def num_layers(self) -> int:
        """The model's layers, for layer-wise learning rates."""
        return self.model.num_layers

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter, 0 (embedding) to num_layers - 1 (head)."""
        return self.model.layer_of(name.removeprefix("model."))
