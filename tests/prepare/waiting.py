"""Waiting for a condition; this module imports little, as worker processes import it too."""

import time
from collections.abc import Callable


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fail after an hour."""
    end = time.monotonic() + 3600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
