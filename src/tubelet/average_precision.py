"""How well scores tell the videos that show a class from the others."""

import numpy as np


def average_precision(scores: np.ndarray, shown: np.ndarray) -> float:
    """The area under a class's steps of precision over recall, one at each distinct score.

    That is the mean, over the videos that show the class, of the precision among all that score at least as
    high. Videos of equal scores count together, so that their order makes no difference (the definition of
    scikit-learn's average_precision_score).

    Args:
        scores: (n,) float, higher where the class is more likely.
        shown: (n,) bool, whether a video shows the class; one at least does.

    Returns:
        A share in [0, 1].
    """
    order = np.argsort(-scores)
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of the videos of each score
    found = shown[order].cumsum()[last]
    return float((np.diff(found, prepend=0) * found / (last + 1)).sum() / found[-1])
