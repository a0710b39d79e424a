"""Checks of random numbers."""


def within(count: int, trials: int, probability: float) -> bool:
    """Whether a count is within five standard deviations of its binomial distribution's mean."""
    return abs(count - trials * probability) <= 5 * (trials * probability * (1 - probability)) ** 0.5
