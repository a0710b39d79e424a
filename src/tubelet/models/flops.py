"""What a forward pass costs, counted by running it without doing it."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from tubelet.masking import RunningCellMasking
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.classifier import VideoClassifier


def gflops_per_view(
    model: VideoClassifier | MaskedAutoencoder, masking: RunningCellMasking | None = None
) -> float:
    """Billions of multiply-adds of one view, each counted once as the papers' tables do.

    Counts the matrix products, attention's among them; norms, activations and softmax are left out. Of an
    autoencoder it counts the encoder.

    Args:
        model: any model; it is not changed or run.
        masking: the tokens to look at; None is as the model was trained, or all for an autoencoder.
    """
    with torch.device("meta"):
        ghost = type(model)(model.config)  # type: ignore[arg-type]
    ghost.to("meta").eval()  # what is computed on the CPU wherever the model is, too
    forward = ghost.encode if isinstance(ghost, MaskedAutoencoder) else ghost
    mask = masking.fixed(ghost.grid, device="meta") if masking else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(_ghost_clip(model), mask)
    return counter.get_total_flops() / 2e9


def _ghost_clip(model: VideoClassifier | MaskedAutoencoder) -> torch.Tensor:
    config = model.config.encoder
    shape = (1, config.frames, len(config.mean), config.image_size, config.image_size)
    return torch.empty(shape, dtype=torch.uint8, device="meta")


def parameter_count(model: VideoClassifier | MaskedAutoencoder) -> int:
    """Parameters that recognition uses: the reconstruction branch is left out."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("decoder."))
