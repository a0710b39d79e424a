"""Labels as tensors: the class of each clip or, where a video may show several, which of all it shows."""

from collections.abc import Sequence

import torch
from torch import Tensor


def label_rows(shown: Sequence[Sequence[int]], several: int | None) -> Tensor:
    """The labels of clips.

    Args:
        shown: the classes of each clip, by number.
        several: how many classes there are, where a clip may show any number of them; None where one each.

    Returns:
        (B,) int64 class index, -1 where there is none; with `several` (B, several) bool, true for each class
        that is shown.
    """
    if several is None:
        return torch.tensor([next(iter(classes), -1) for classes in shown], dtype=torch.int64)
    rows = torch.zeros(len(shown), several, dtype=torch.bool)
    for row, classes in zip(rows, shown, strict=True):
        row[list(classes)] = True
    return rows
