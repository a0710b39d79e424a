"""Training steps and inference of ViT-S on one CPU thread or one GPU, beside Hugging Face's VideoMAE.

    python benchmarks/step.py [--rounds 3] [--batch 1]

Both get the same random clip and mask. Tubelet starts from the uint8 clip; Hugging Face's model gets a clip
that is already normalized. A step is forward, loss and backward. Implementations alternate in every round. On
a CPU the time is the CPU time of this process, so that other work on the machine has little influence.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from tubelet.masking import RunningCellMasking, TubeMasking
from tubelet.models.autoencoder import AutoencoderConfig, MaskedAutoencoder
from tubelet.models.classifier import ClassifierConfig, VideoClassifier
from tubelet.models.decoder import DecoderConfig
from tubelet.models.encoder import EncoderConfig
from tubelet.models.heads import BridgingHeadConfig

SMALL = EncoderConfig(dim=384, depth=12, heads=6, mlp_dim=1536)
SMALL_DECODER = DecoderConfig(dim=192, depth=4, heads=3, mlp_dim=768)
Case = dict[str, Callable[[], torch.Tensor]]


def cases(batch: int, device: torch.device) -> dict[str, Case]:
    """Return case -> implementation -> what to run; a result that requires a gradient is differentiated."""
    video = torch.randint(0, 256, (batch, 16, 3, 224, 224), dtype=torch.uint8, device=device)
    autoencoder = MaskedAutoencoder(AutoencoderConfig(encoder=SMALL, decoder=SMALL_DECODER)).to(device)
    classifier = VideoClassifier(ClassifierConfig(encoder=SMALL, classes=400)).to(device)
    mar = VideoClassifier(
        ClassifierConfig(encoder=SMALL, classes=400, head=BridgingHeadConfig(), masking=RunningCellMasking())
    ).to(device)
    mask = TubeMasking(ratio=0.9).sample(autoencoder.grid, batch, device=device)

    def no_gradient(model: torch.nn.Module) -> Callable[[], torch.Tensor]:
        return lambda: torch.no_grad()(model)(video)

    found: dict[str, Case] = {
        "pre-training step, 90 % masked": {"tubelet": lambda: autoencoder(video, mask).loss},
        "fine-tuning step, all tokens": {"tubelet": lambda: classifier(video).logsumexp(1).sum()},
        "inference, all tokens": {"tubelet": no_gradient(classifier)},
        "inference, MAR at 50 %": {"tubelet": no_gradient(mar)},
    }
    try:
        import transformers
    except ImportError:
        print("transformers is not installed: no peer (pip install transformers)")
        return found
    library: Any = transformers  # its annotations are incomplete
    config = library.VideoMAEConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, decoder_hidden_size=192,
        decoder_num_attention_heads=3, decoder_intermediate_size=768, num_labels=400,
    )  # fmt: skip
    pixels = torch.randn(batch, 16, 3, 224, 224, device=device)
    masked = torch.ones(batch, autoencoder.grid.volume, dtype=torch.bool, device=device)
    masked.scatter_(1, mask.visible, False)
    peer = library.VideoMAEForPreTraining(config).to(device)
    peer_classifier = library.VideoMAEForVideoClassification(config).to(device)
    name = "transformers (SDPA)"
    found["pre-training step, 90 % masked"][name] = lambda: peer(pixels, bool_masked_pos=masked).loss
    found["fine-tuning step, all tokens"][name] = lambda: peer_classifier(pixels).logits.logsumexp(1).sum()
    found["inference, all tokens"][name] = lambda: torch.no_grad()(peer_classifier)(pixels).logits
    return found


def seconds(run: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Return the seconds of a run, with its backward pass if the result requires a gradient."""
    cuda = device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize()
    started = clock()
    result = run()
    if result.requires_grad:
        result.backward()
    if cuda:
        torch.cuda.synchronize()
    return clock() - started


def main() -> None:
    """Print a table: seconds per clip and the ratio to the peer, medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    print(f"ViT-S, 16 x 224 x 224, batch {options.batch}, fp32, {device.type}, torch {torch.__version__}\n")
    print(f"{'case':34s}{'implementation':22s}{'s/clip':>8s}{'speed':>8s}")
    for case, runs in cases(options.batch, device).items():
        for run in runs.values():
            seconds(run, device)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, run in runs.items():
                times[name].append(seconds(run, device) / options.batch)
        for name, measured in times.items():
            ratio = statistics.median(p / t for p, t in zip(times[list(runs)[-1]], measured, strict=True))
            shown = f"{ratio:7.2f}x" if len(runs) > 1 else "       -"
            print(f"{case:34s}{name:22s}{statistics.median(measured):8.3f}{shown}")


if __name__ == "__main__":
    main()
