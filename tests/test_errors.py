"""Messages: counts with their noun, the nearest known word, and long input shortened."""

import math
import pickle
from typing import Any

import pytest

from tubelet.errors import UserError, did_you_mean, first_few, plural, require_between, short_repr


def test_things_are_counted_in_words():
    videos = [plural(count, "video") for count in (0, 1, 2, 1863)]
    assert videos == ["0 videos", "1 video", "2 videos", "1,863 videos"]
    assert [plural(count, "class", "classes") for count in (1, 2)] == ["1 class", "2 classes"]


def test_the_nearest_known_word_is_suggested():
    assert did_you_mean("epoch", ["epochs", "batch"]) == "; did you mean 'epochs'?"
    assert did_you_mean("xyz", ["epochs", "batch"]) == ""


def test_a_message_does_not_grow_with_the_input():
    for text in ("x" * 10**6, "\n" * 10**6, "word " * 10**6):
        message = str(UserError(f"a.csv:3: expected a label, found {text}. Correct the line"))
        assert len(message) <= 2500
        assert message.startswith("a.csv:3: expected a label")
        assert message.endswith("Correct the line")
        assert str(UserError(message)) == message  # such as within a longer one, or from another process
        assert str(pickle.loads(pickle.dumps(UserError(message)))) == message
    ordinary = "a.csv:3: " + "expected a label; " * 100
    assert str(UserError(ordinary)) == ordinary


def test_values_are_shown_shortened():
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = 0
    for _ in range(10_000):
        deep = [deep]
    for value in ("x" * 10**6, 9**9999, ["y" * 1000] * 1000, {"z" * 9999: "z" * 9999}, endless, deep):
        assert len(short_repr(value)) <= 501
    assert short_repr({"a": [1, "b", None]}) == "{'a': [1, 'b', None]}"


def test_a_list_of_many_names_is_counted():
    assert first_few(["a", "b"]) == "a, b"
    assert first_few([str(k) for k in range(2000)], 3) == "0, 1, 2 and 1,997 more"
    assert first_few(["a", "b"], 1, "\n  ") == "a\n  and 1 more"
    assert len(first_few(["x" * 10**6] * 10)) < 2000


def test_numbers_out_of_range_are_named():
    require_between(1, 2**16, frames=None, stride=1)
    for value in (0, 2**63, math.nan, math.inf, 10**400):
        with pytest.raises(UserError, match="stride must be between 1 and 65,536"):
            require_between(1, 2**16, frames=16, stride=value)
