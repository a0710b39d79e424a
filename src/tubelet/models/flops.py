"""The cost of a forward pass, counted on PyTorch's meta device without computing it."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from tubelet.masking import ClassifierMasking
from tubelet.models.autoencoder import MaskedAutoencoder
from tubelet.models.classifier import VideoClassifier


def gflops_per_view(
    model: VideoClassifier | MaskedAutoencoder, masking: ClassifierMasking | None = None
) -> float:
    """Return the billions of multiply-adds for one view, each counted once as in the papers' tables.

    Counts matrix products, attention's included, without norms, activations and softmax. For an autoencoder
    it counts only the encoder.

    Args:
        model: any model; it is not changed or run.
        masking: its visible tokens are counted; None is the model's own masking, or all tokens.
    """
    config = model.config.encoder
    shape = (1, config.frames, len(config.mean), config.image_size, config.image_size)
    with torch.device("meta"):
        copy = type(model)(model.config)  # type: ignore[arg-type]
        clip = torch.empty(shape, dtype=torch.uint8)
    copy.to("meta").eval()  # moves the tables that are always computed on the CPU
    forward = copy.encode if isinstance(copy, MaskedAutoencoder) else copy
    seeds = torch.zeros(1, dtype=torch.int64, device="meta")
    mask = masking.test_masks(copy.grid, seeds) if masking else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(clip, mask)
    return counter.get_total_flops() / 2e9


def parameter_count(model: VideoClassifier | MaskedAutoencoder) -> int:
    """Return the number of parameters that classification uses: all except the decoder's."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("decoder."))
