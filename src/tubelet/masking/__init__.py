"""Which tokens are visible to the encoder and which are masked: masks as index tensors.

Every masking is a frozen dataclass that keeps equally many tokens in every row, so batches are never ragged.
`sample` draws random masks; `from_noise` is the pure function in it, from uniform noise to masks, and
`test_masks` has the masks of a test.
"""

from typing import Annotated

from tubelet.masking.base import Masking
from tubelet.masking.running import DualMasking, RunningCellMasking, RunningMasking
from tubelet.masking.still import BlockMasking, FrameMasking, RandomMasking, TubeMasking
from tubelet.masking.token_mask import TokenMask, row_noise, take
from tubelet.settings import BY_KIND

__all__ = [
    "AnyMasking", "BlockMasking", "ClassifierMasking", "DualMasking", "FrameMasking", "Masking",
    "RandomMasking", "RunningCellMasking", "RunningMasking", "TokenMask", "TubeMasking", "row_noise", "take",
]  # fmt: skip

AnyMasking = Annotated[
    TubeMasking
    | RandomMasking
    | FrameMasking
    | BlockMasking
    | RunningCellMasking
    | RunningMasking
    | DualMasking,
    BY_KIND,
]
ClassifierMasking = Annotated[
    RunningCellMasking | RunningMasking | RandomMasking | TubeMasking | FrameMasking | BlockMasking, BY_KIND
]
"""The maskings of a classifier, which have no second mask for a decoder."""
