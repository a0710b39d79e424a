"""Class names: every project's file is read, and labels get numbers."""

import json
from pathlib import Path

import pytest

from tubelet.errors import UserError
from tubelet.prepare.lists.class_names import number_labels, read_classes
from tubelet.prepare.lists.row import Row


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_class_files_of_every_kind(tmp_path: Path):
    for name, text in [
        ("classes.txt", "riding a bike\nrunning\n"),
        ("kinetics_class2ind.txt", "running 1\nriding a bike 0\n"),
        ("map.txt", "0 riding a bike\n1 running\n"),
        ("classInd.txt", "1 riding a bike\n2 running\n"),
        ("labels.csv", "id,name\n0,riding a bike\n1,running\n"),
        ("labels.json", '{"running": "1", "riding a bike": "0"}'),
        ("names.json", '{"0": "riding a bike", "1": "running"}'),
        ("array.json", '["riding a bike", "running"]'),
    ]:
        assert read_classes(write(tmp_path / name, text)) == ("riding a bike", "running"), name


def test_names_that_end_in_numbers_are_names(tmp_path: Path):
    path = write(tmp_path / "classes.txt", "class 0\nclass 1\nclass 2\n")
    assert read_classes(path) == ("class 0", "class 1", "class 2")


def test_errors_name_the_class_file_and_the_line(tmp_path: Path):
    for name, text, where in [
        ("x.txt", "0 a\n1 b\n1 c\n", "x.txt:3"),
        ("x.txt", "0 a\n2 b\n", "x.txt"),
        ("x.txt", "0 a\nb\n1 c\n", "x.txt:2"),
        ("x.txt", "run\n\njump\n", "x.txt:2"),
        ("x.txt", "run\nwalk\nrun\n", r"x.txt:3: 'run' .*:1\)"),
        ("x.txt", "0 run\n\n1 walk\n2 run\n", r"x.txt:4: 'run' .*:1\)"),
        ("x.txt", "\n", "x.txt"),
        ("x.json", '["run", "walk", "run"]', r"x.json: entry 3: 'run' .*x.json: entry 1\)"),
    ]:
        with pytest.raises(UserError, match=where):
            pytest.fail(f"{text!r} is read as {read_classes(write(tmp_path / name, text))}")


def rows(*labels: int | str) -> list[Row]:
    return [Row("a.mp4", f"x.txt:{k}", labels=(label,)) for k, label in enumerate(labels, start=1)]


def test_a_class_that_json_names_twice_is_refused(tmp_path: Path):
    path = tmp_path / "classes.json"
    path.write_text('{"run": 0, "jump": 1, "run": 2}')
    with pytest.raises(UserError, match=r"classes\.json: the key 'run' is there twice"):
        read_classes(path)


def test_numbers_without_names_get_names():
    _, classes, notes = number_labels(rows(0, 2))
    assert classes == ("class 0", "class 1", "class 2")
    assert "--classes" in notes[0]


def test_a_much_too_large_number_is_not_a_class():
    with pytest.raises(UserError, match=r"x.txt:2: label 900000 .*--classes"):
        number_labels(rows(0, 900_000, 7))
    assert len(number_labels(rows(0, 900))[1]) == 901
    names = tuple(f"c{k}" for k in range(5000))
    assert number_labels(rows(0, 4999), names)[1] == names


def test_labels_that_count_from_one_are_shifted_to_zero():
    numbered, _, notes = number_labels(rows(1, 2), ("a", "b"))
    assert [row.labels for row in numbered] == [(0,), (1,)]
    assert "count from 1" in notes[0]
    with pytest.raises(UserError, match=r"x.txt:2: label 2"):
        number_labels(rows(0, 2), ("a", "b"))


def test_similar_class_names_stay_different():
    numbered, classes, _ = number_labels(rows("run", "Run"))
    assert classes == ("Run", "run")
    assert [row.labels for row in numbered] == [(1,), (0,)]


def test_a_label_matches_the_only_similar_class(tmp_path: Path):
    numbered, _, _ = number_labels(rows("Making_Tea", "Run"), ("making tea", "run", "Run"))
    assert [row.labels for row in numbered] == [(0,), (2,)]
    with pytest.raises(UserError, match=r"x.txt:1: 'RUN' .*class 1, 'run', or class 2, 'Run'"):
        number_labels(rows("RUN"), ("making tea", "run", "Run"))
    with pytest.raises(UserError, match=r"x.txt:2: 'run' .*class 0, 'run', or class 1, 'run'"):
        number_labels(rows("jump", "run"), ("run", "run", "jump"))


def test_numbers_and_names_do_not_mix():
    with pytest.raises(UserError, match=r"x.txt:2"):
        number_labels(rows(0, "run", 2))


def test_a_class_name_is_one_line_of_text(tmp_path: Path):
    for name in ("a\nb", "a\rb", "a\r\nb", "\ud800"):
        text = json.dumps(["run", name])
        with pytest.raises(UserError, match=r"names.json: entry 2: the class name '"):
            read_classes(write(tmp_path / "names.json", text))
        with pytest.raises(UserError, match=r"names.json: 1: the class name '"):
            read_classes(write(tmp_path / "names.json", json.dumps({"0": "run", "1": name})))
        with pytest.raises(UserError, match=r"x.txt:2: the class name '"):
            number_labels(rows("run", name))


def test_codes_stand_for_the_classes_that_begin_with_them(tmp_path: Path):
    classes = read_classes(write(tmp_path / "Charades_v1_classes.txt", "c000 Holding clothes\nc001 Run\n"))
    assert classes == ("c000 Holding clothes", "c001 Run")
    numbered, _, _ = number_labels(rows("c001", "c000"), classes)
    assert [row.labels for row in numbered] == [(1,), (0,)]
    with pytest.raises(UserError, match=r"x.txt:1: 'c002' is not among"):
        number_labels(rows("c002"), classes)


def test_a_table_of_classes_may_have_more_columns(tmp_path: Path):
    text = "id,key,instances\n1,put,\"['put', 'place']\"\n0,take,\"['take', 'grab']\"\n"
    assert read_classes(write(tmp_path / "EPIC_100_verb_classes.csv", text)) == ("take", "put")


def test_odd_class_files_are_one_message(tmp_path: Path):
    for name, text, message in [
        ("deep.json", "[" * 100_000, "nested too deeply"),
        ("deep.json", "[" * 900 + "]" * 900, "deep.json"),
        ("x.txt", f"{'1' * 5000} run\n1 walk\n2 jump\n", "x.txt:1"),
        ("x.json", f'{{"run": {"1" * 5000}}}', "x.json"),
    ]:
        with pytest.raises(UserError, match=message):
            pytest.fail(f"{text:.60} is read as {read_classes(write(tmp_path / name, text))}")
