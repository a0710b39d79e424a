"""What a forward pass costs, counted by running it without doing it."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from tubelet.masking import RunningCellMasking
from tubelet.models.classifier import VideoClassifier


def gflops_per_view(model: VideoClassifier, masking: RunningCellMasking | None = None) -> float:
    """Billions of multiply-adds of one view, each counted once as the papers' tables do.

    Counts the matrix products, attention's among them; norms, activations and softmax are left out.

    Args:
        model: any classifier; it is not changed or run.
        masking: the tokens to look at; None is as the model was trained.
    """
    config = model.config.encoder
    shape = (1, config.frames, len(config.mean), config.image_size, config.image_size)
    ghost = copy.deepcopy(model).to("meta").eval()
    mask = masking and masking.fixed(ghost.grid, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(torch.empty(shape, dtype=torch.uint8, device="meta"), mask)
    return counter.get_total_flops() / 2e9


def parameter_count(model: VideoClassifier) -> int:
    """Parameters that recognition uses: the reconstruction branch is left out."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("decoder."))
