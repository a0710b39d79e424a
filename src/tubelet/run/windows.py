"""Windows of a long video: spans of equal length, one after each hop."""

import math

from tubelet.errors import UserError, require_above

_LEAST_S = 1e-6  # a shorter rest at the end is rounding


def windows(duration_s: float, length_s: float, hop_s: float) -> list[tuple[float, float]]:
    """Return the (start, end) of the windows of a video, in seconds.

    One begins after each hop; the last one ends with the video, and is moved back to have the full length. A
    video that is shorter than a window is one window.

    Args:
        duration_s: of the video.
        length_s: of a window.
        hop_s: from the start of a window to that of the next.

    Raises:
        UserError: length or hop are not above 0.
    """
    require_above(0, window=length_s, hop=hop_s)
    rest = max(duration_s - length_s, 0.0)
    starts = [k * hop_s for k in range(math.ceil((rest - _LEAST_S) / hop_s))] + [rest]
    return [(start, min(start + length_s, duration_s)) for start in starts]


def seconds(text: str, option: str) -> float:
    """Return the number of a duration such as `2s` or `0.5`; `option` is what the user calls it.

    Raises:
        UserError: it is not a duration above 0.
    """
    try:
        number = float(text.strip().removesuffix("s"))
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{option} must be seconds above 0, such as 2s, found '{text}'")
    return number
