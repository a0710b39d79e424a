"""What becomes of a class in a mirror: moving left moves right."""

import re
from collections.abc import Sequence

_SWAPPED = {"left": "right", "right": "left", "anticlockwise": "clockwise", "counterclockwise": "clockwise"}
_OTHER_WAY = ("anticlockwise", "counterclockwise")  # what clockwise becomes, said in either way


def mirrored_classes(names: Sequence[str]) -> tuple[int | None, ...]:
    """The class of each class's mirror image, by number.

    A name that says nothing of left and right is its own; of another, `left` and `right` (and `clockwise` and
    `anticlockwise` or `counterclockwise`) are swapped, as whole words in any case. None where no class has
    that name, so that its videos must not be mirrored. On Something-Something v2 this swaps the three pairs
    that MAR swaps: pulling, pushing and turning the camera (arXiv 2207.11660).
    """
    numbers = {name: number for number, name in enumerate(names)}
    return tuple(_mirror_of(name, numbers) for name in names)


def _mirror_of(name: str, numbers: dict[str, int]) -> int | None:
    mirrored = (_swap(name, _SWAPPED | {"clockwise": other}) for other in _OTHER_WAY)
    return next((numbers[image] for image in mirrored if image in numbers), None)


def _swap(name: str, words: dict[str, str]) -> str:
    def change(found: re.Match[str]) -> str:
        word = words[found[0].lower()]
        return word.upper() if found[0].isupper() else word.title() if found[0].istitle() else word

    return re.sub(rf"\b({'|'.join(words)})\b", change, name, flags=re.IGNORECASE)
