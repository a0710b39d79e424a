"""Settings as dataclasses: parsed with the path of every mistake, written as plain values, compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from tubelet.errors import UserError
from tubelet.settings import BY_KIND, difference, options_of, parse, to_plain


@dataclass(frozen=True, kw_only=True)
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise UserError(f"radius must be at least 0, found {self.radius}")


@dataclass(frozen=True, kw_only=True)
class Box:
    kind: Literal["box"] = "box"
    sides: tuple[int, int] = (1, 2)
    depth: int = 1


AnyShape = Annotated[Circle | Box, BY_KIND]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    path: Path
    shape: AnyShape = field(default_factory=Circle)
    second: AnyShape | None = None
    only: Box | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


def complaint(**settings: Any) -> list[str]:
    """The lines of the error, without the first, which names the source."""
    with pytest.raises(UserError) as error:
        parse(Drawing, settings, "here")
    first, *lines = str(error.value).splitlines()
    assert first.startswith("here ")
    return [line.strip() for line in lines]


def test_the_result_is_the_dataclass():
    drawing = parse(Drawing, {"path": "a", "shape": {"kind": "box", "sides": [3, 4]}}, "here")
    assert drawing == Drawing(path=Path("a"), shape=Box(sides=(3, 4)))
    assert parse(Box, {}, "here") == Box()


def test_without_a_kind_the_first_is_meant():
    drawing = parse(Drawing, {"path": "a", "shape": {"radius": 2}, "second": {}}, "here")
    assert drawing == Drawing(path=Path("a"), shape=Circle(radius=2), second=Circle())


def test_a_setting_that_is_not_there_is_named_with_the_nearest():
    for settings, path, near in (
        ({"path": "a", "shap": {}}, "shap ", "shape"),
        ({"path": "a", "shape": {"radios": 1}}, "shape.radios ", "shape.radius"),
        ({"path": "a", "only": {"dept": 1}}, "only.dept ", "only.depth"),
        ({"path": "a", "second": {"kind": "box", "side": [1, 2]}}, "second.side ", "second.sides"),
    ):
        [line] = complaint(**settings)
        assert line.startswith(path)
        assert f"'{near}'" in line


def test_a_missing_setting_is_named_with_what_may_be_meant():
    missing, unknown = complaint(paht="a")
    assert missing == "path is missing; is it misspelled as 'paht'?"
    assert unknown == "paht is not a setting; did you mean 'path'?"


def test_a_wrong_kind_is_refused_with_all_kinds():
    for kind in ("cirle", 3, None, ["box"]):
        [line] = complaint(path="a", shape={"kind": kind, "anything": 1})
        assert line.startswith(f"shape.kind must be one of circle, box, found {kind!r}")
    [line] = complaint(path="a", only={"kind": "circle"})
    assert line.startswith("only.kind must be box, found 'circle'")


def test_settings_of_another_kind_are_refused_together():
    mixed = {"kind": "circle", "depth": 1, "sides": [1, 2], "x": 1}
    unknown, others = complaint(path="a", shape=mixed)
    assert unknown.startswith("shape.x ")
    assert others.startswith("shape.depth, shape.sides are not settings of kind circle")
    assert "'shape={kind: circle}'" in others


def test_what_is_not_settings_is_refused_with_how_to_write_it():
    for given, hint in (("bocks", "'shape={kind: box}'"), (3, "found 3"), (None, "found None")):
        [line] = complaint(path="a", shape=given)
        assert line.startswith("shape: ")
        assert hint in line


def test_a_value_that_a_dataclass_refuses_has_its_path():
    assert complaint(path="a", shape={"radius": -1}) == ["shape: radius must be at least 0, found -1.0"]


def test_all_mistakes_are_named_at_once():
    lines = complaint(shape={"kind": "box", "sides": ["x", 2]}, only=3, other=1)
    assert [line.split(" ")[0] for line in lines] == ["path", "shape.sides.0:", "only:", "other"]


def test_plain_values_parse_back():
    drawing = Drawing(path=Path("a"), second=Box(depth=3), notes={"any": ["thing"]})
    plain = to_plain(drawing)
    assert plain["path"] == "a"
    assert plain["second"] == {"kind": "box", "sides": [1, 2], "depth": 3}
    assert parse(Drawing, plain, "here") == drawing


def test_the_dataclasses_that_a_setting_may_be():
    assert options_of(AnyShape | None) == (Circle, Box)
    assert options_of(Box) == (Box,)
    assert options_of(int | None) == ()


def test_settings_on_one_side_only_are_differences():
    assert difference({"a": {"b": 1}}, {"a": {"c": None}}) == ["a.b: 1 -> absent", "a.c: absent -> None"]
    assert difference({"a": 1}, {"a": 1}) == []
