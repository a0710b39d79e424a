"""The preprocessor files of Hugging Face folders as pixel statistics of the model."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tubelet.checkpoints.hub import HUB_PREPROCESSOR, HUB_PROCESSORS, HUB_VIDEO_PREPROCESSOR
from tubelet.errors import UserError, require_between, short_repr
from tubelet.models.encoder import IMAGENET_MEAN, IMAGENET_STD

Numbers = tuple[float, float, float]
_DEFAULTS: dict[str, Any] = {
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": 0.5,
    "image_std": 0.5,
}
"""What transformers takes for its VideoMAE processors where a file does not say it."""
_RESCALE_FACTORS = 1e-5, 1.0  # 1 / 255 twice, by mistake, up to none
_MAX_STATISTIC, _MIN_STD = 1000.0, 1e-3  # of pixels in [0, 1] or [0, 255]


def pixel_statistics(files: Mapping[str, Any], source: str) -> tuple[Numbers, Numbers]:
    """Return the mean and deviation, for pixels in [0, 1], that do what the preprocessor files say.

    A folder without such a file has ImageNet's, as the published models do.

    Raises:
        UserError: a value is not a number, or two files contradict each other.
    """
    read = {name: _statistics(settings, name, source) for name, settings in _processors(files)}
    if not read:
        return IMAGENET_MEAN, IMAGENET_STD
    (first, found), *others = read.items()
    for name, other in others:
        if not all(_is_close(a, b) for a, b in zip(found, other, strict=True)):
            raise UserError(
                f"{source}: {first} and {name} contradict each other, with mean and deviation {found} and "
                f"{other}: delete the wrong one"
            )
    return found


def _processors(files: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of each processor, by the name of its file."""
    for name in (HUB_VIDEO_PREPROCESSOR, HUB_PREPROCESSOR):
        if name in files:
            yield name, files[name]
    for part in ("video_processor", "image_processor"):
        if part in files.get(HUB_PROCESSORS, {}):
            yield f"{HUB_PROCESSORS} ({part})", files[HUB_PROCESSORS][part]


def _statistics(settings: Any, name: str, source: str) -> tuple[Numbers, Numbers]:
    """The mean and deviation of one file: its pixels are (x * scale - mean) / std, ours (x / 255 - m) / s."""
    if not isinstance(settings, Mapping):
        raise UserError(f"{source}: expected settings in {name}, found {short_repr(settings)}")
    given = _DEFAULTS | {key: value for key, value in settings.items() if value is not None}
    for key in ("do_rescale", "do_normalize"):
        if not isinstance(given[key], bool):
            raise UserError(
                f"{source}: expected {key} of {name} to be true or false, found {short_repr(given[key])}"
            )
    scale, *others = _numbers(given, "rescale_factor", name, source)
    if others:
        raise UserError(f"{source}: expected rescale_factor of {name} to be one number")
    if given["do_rescale"]:
        require_between(*_RESCALE_FACTORS, **{f"{source}/{name}: rescale_factor": scale})
    scale = 255 * (scale if given["do_rescale"] else 1.0)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if given["do_normalize"]:
        mean, std = (_three(_numbers(given, key, name, source)) for key in ("image_mean", "image_std"))
    for least, key, values in ((-_MAX_STATISTIC, "image_mean", mean), (_MIN_STD, "image_std", std)):
        for value in values:
            require_between(least, _MAX_STATISTIC, **{f"{source}/{name}: {key}": value})
    return _three([value / scale for value in mean]), _three([value / scale for value in std])


def _numbers(settings: Mapping[str, Any], key: str, name: str, source: str) -> list[float]:
    """One number for all channels, or three."""
    value = settings[key]
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) not in (1, 3) or not all(_is_number(number) for number in numbers):
        raise UserError(
            f"{source}: expected {key} of {name} to be three finite numbers, found {short_repr(value)}"
        )
    return [float(number) for number in numbers]


def _three(numbers: list[float]) -> Numbers:
    first, second, third = numbers * 3 if len(numbers) == 1 else numbers
    return first, second, third


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_close(a: Numbers, b: Numbers) -> bool:
    return all(math.isclose(x, y, rel_tol=1e-4, abs_tol=1e-6) for x, y in zip(a, b, strict=True))
