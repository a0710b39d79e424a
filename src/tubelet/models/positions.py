"""Where a token is: position tables."""

import torch
from torch import Tensor


def sinusoid_table(tokens: int, dim: int) -> Tensor:
    """The sine-cosine table over the flat token index that VideoMAE and MAR use (arXiv 1706.03762, 3.5).

    Feature j of token n is sin (even j) or cos (odd j) of n / 10000 ** (2 * (j // 2) / dim), computed in
    float64.

    Returns:
        (1, tokens, dim) float32.
    """
    feature = torch.arange(dim, dtype=torch.float64, device="cpu")
    index = torch.arange(tokens, dtype=torch.float64, device="cpu")
    angle = index[:, None] / 10000 ** (2 * (feature // 2) / dim)
    table = torch.where(feature % 2 == 0, angle.sin(), angle.cos())
    return table.float().unsqueeze(0)
