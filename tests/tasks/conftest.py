"""A batch of clips without files."""

from dataclasses import replace

import pytest
import torch

from tubelet.data.dataset import Batch


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        video=torch.randint(0, 256, (4, 4, 3, 16, 16), dtype=torch.uint8, generator=generator),
        label=torch.tensor([0, 4, 2, 2]),
        seed=torch.tensor([11, 7, -3, 2**61]),
        index=torch.arange(4),
        names=["a", "b", "c", "d"],
        failures={},
    )


@pytest.fixture
def tagged(batch: Batch) -> Batch:
    """The same clips, of any number of five classes."""
    rows = [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 0, 1, 1]]
    return replace(batch, label=torch.tensor(rows, dtype=torch.bool))
