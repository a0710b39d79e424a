"""Messages: counts with their noun, and the nearest known word."""

from tubelet.errors import did_you_mean, plural


def test_things_are_counted_in_words():
    videos = [plural(count, "video") for count in (0, 1, 2, 1863)]
    assert videos == ["0 videos", "1 video", "2 videos", "1,863 videos"]
    assert [plural(count, "class", "classes") for count in (1, 2)] == ["1 class", "2 classes"]


def test_the_nearest_known_word_is_suggested():
    assert did_you_mean("epoch", ["epochs", "batch"]) == "; did you mean 'epochs'?"
    assert did_you_mean("xyz", ["epochs", "batch"]) == ""
