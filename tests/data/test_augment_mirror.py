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
