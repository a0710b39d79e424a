"""The class of a mirrored clip."""

from tubelet.data.augment import mirrored_classes
from tubelet.demo.motion_clips import CLASSES


def named(*names: str) -> dict[str, str | None]:
    images = mirrored_classes(names)
    return {name: None if image is None else names[image] for name, image in zip(names, images, strict=True)}


def test_left_and_right_are_swapped():
    names = ("Pulling [something] from left to right", "Pulling [something] from right to left")
    assert named(*names) == {names[0]: names[1], names[1]: names[0]}
    camera = ("Turning the camera left while filming", "Turning the camera right while filming")
    assert named(*camera) == {camera[0]: camera[1], camera[1]: camera[0]}


def test_a_name_without_sides_is_its_own_mirror_image():
    assert named("opening", "closing") == {"opening": "opening", "closing": "closing"}


def test_a_name_whose_counterpart_is_not_a_class_has_none():
    assert named("turning left", "opening") == {"turning left": None, "opening": "opening"}


# The class names of Something-Something v2 with one of the words, and some others, by their official numbers.
SOMETHING_SOMETHING = {
    0: "Approaching something with your camera",
    5: "Closing something",
    49: "Plugging something into something",
    50: "Plugging something into something but pulling it right out as you remove your hand",
    86: "Pulling something from left to right",
    87: "Pulling something from right to left",
    93: "Pushing something from left to right",
    94: "Pushing something from right to left",
    166: "Turning the camera left while filming something",
    167: "Turning the camera right while filming something",
    172: "Uncovering something",
}


def test_something_something_is_mirrored_as_mar_does():
    """Its code swaps six classes and flips the clips of all others, too."""
    swapped = {86: 87, 87: 86, 93: 94, 94: 93, 166: 167, 167: 166}
    for texts in (
        SOMETHING_SOMETHING.values(),
        [name.replace("something", "[something]") for name in SOMETHING_SOMETHING.values()],
    ):
        images = mirrored_classes(list(texts))
        numbers = list(SOMETHING_SOMETHING)
        found = {
            number: numbers[image] for number, image in zip(numbers, images, strict=True) if image is not None
        }
        assert found == {number: swapped.get(number, number) for number in numbers}


def test_right_out_is_not_a_side():
    for name in ("pulling it right out", "Throwing it Right Out, quickly"):
        assert named(name) == {name: name}
    pair = ("going right out", "going left out")
    assert named(*pair) == {pair[0]: pair[1], pair[1]: pair[0]}
    both = ("pulling it right out to the left", "pulling it right out to the right")
    assert named(*both) == {both[0]: both[1], both[1]: both[0]}
    for name in ("turning right out of a street", "pulling it right out to the left", "looking left out"):
        assert named(name) == {name: None}


def test_only_whole_words_are_sides():
    assert named("eating leftovers", "brightening") == {
        "eating leftovers": "eating leftovers",
        "brightening": "brightening",
    }


def test_capitals_are_kept():
    assert named("Left hook", "Right hook")["Left hook"] == "Right hook"
    assert named("LEFT", "RIGHT")["LEFT"] == "RIGHT"
    assert named("move_left", "move_right")["move_left"] == "move_left"  # one word: write it with a space


def test_turns_are_swapped_in_either_spelling():
    for other in ("anticlockwise", "counterclockwise"):
        assert named("turning clockwise", f"turning {other}") == {
            "turning clockwise": f"turning {other}",
            f"turning {other}": "turning clockwise",
        }
    assert named("turning counterclockwise") == {"turning counterclockwise": None}
    assert named("turning anticlockwise") == {"turning anticlockwise": None}


def test_mirroring_twice_gives_the_class_itself():
    images = mirrored_classes(CLASSES)
    assert [images[image] for image in images if image is not None] == list(range(len(CLASSES)))
    assert CLASSES[images[CLASSES.index("moving left")] or 0] == "moving right"
