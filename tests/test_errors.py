"""Messages: counts with their noun, and the nearest known word."""

from tubelet.errors import did_you_mean, first_of, plural


def test_things_are_counted_in_words():
    videos = [plural(count, "video") for count in (0, 1, 2, 1863)]
    assert videos == ["0 videos", "1 video", "2 videos", "1,863 videos"]
    assert [plural(count, "class", "classes") for count in (1, 2)] == ["1 class", "2 classes"]


def test_the_nearest_known_word_is_suggested():
    assert did_you_mean("epoch", ["epochs", "batch"]) == "; did you mean 'epochs'?"
    assert did_you_mean("xyz", ["epochs", "batch"]) == ""


def test_the_first_of_many_names_are_listed():
    assert first_of(["a", "b"]) == "a, b"
    assert first_of(list("abcdef")) == "a, b, c, d and 2 more"
    assert first_of(["a", "b", "c"], 1, " = ") == "a and 2 more"
