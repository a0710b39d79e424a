"""Official annotations: splits, class numbers and class orders as their data sets define them."""

import json
from pathlib import Path

import pytest

from tubelet.errors import UserError
from tubelet.prepare.lists.annotations import read_hmdb51, read_kinetics, read_ssv2, read_ucf101


def write(folder: Path, files: dict[str, str]) -> list[Path]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


HEADER = "label,youtube_id,time_start,time_end,split\n"


def test_kinetics_classes_are_in_alphabetical_order_over_all_lists(tmp_path: Path):
    files = write(
        tmp_path,
        {
            "train.csv": HEADER + "zumba,a,1,11,train\nabseiling,b,2,12,train\n",
            "val.csv": HEADER + "making tea,c,3,13,validate\n",
            "test.csv": "youtube_id,time_start,time_end,split\nd,4,14,test\n",
            "notes.txt": "no list",
            "other.csv": "path,label\nx.mp4,0\n",
        },
    )
    found = read_kinetics(files, 400)
    assert found.classes == ("abseiling", "making tea", "zumba")
    assert [(row.name, row.split, row.labels) for row in found.rows] == [
        ("d", "test", ()),
        ("a", "train", (2,)),
        ("b", "train", (0,)),
        ("c", "val", (1,)),
    ]
    assert any("3 classes are annotated; Kinetics-400 has 400" in note for note in found.notes)


def test_kinetics_may_use_the_class_order_of_a_file(tmp_path: Path):
    files = write(tmp_path, {"train.csv": HEADER + "making tea,a,1,11,train\nabseiling,b,2,12,train\n"})
    found = read_kinetics(files, 2, ("Making_Tea", "abseiling"))
    assert [row.labels for row in found.rows] == [(0,), (1,)]
    with pytest.raises(UserError, match=r"train.csv:3: 'abseiling' is not among the 1 classes"):
        read_kinetics(files, 2, ("making tea",))


def test_kinetics_without_annotations_says_what_to_do(tmp_path: Path):
    with pytest.raises(UserError, match=r"no Kinetics annotations found.*tubelet prepare folder"):
        read_kinetics(write(tmp_path, {"a.txt": "x"}), 400)


def ssv2_files(folder: Path) -> list[Path]:
    entry = {"placeholders": ["a cup"], "label": "pushing a cup"}
    train = [{"id": "1", "template": "Pushing [something]", **entry}]
    val = [{"id": "2", "template": "Putting [something] on [something]", **entry}]
    return write(
        folder,
        {
            "labels.json": json.dumps({"Putting something on something": "1", "Pushing something": "0"}),
            "train.json": json.dumps(train),
            "validation.json": json.dumps(val),
            "test.json": json.dumps([{"id": "3"}]),
        },
    )


def test_something_something_uses_the_numbers_of_the_labels_file(tmp_path: Path):
    found = read_ssv2(ssv2_files(tmp_path))
    assert found.classes == ("Pushing something", "Putting something on something")
    assert {row.name: (row.split, row.labels) for row in found.rows} == {
        "1": ("train", (0,)),
        "2": ("val", (1,)),
        "3": ("test", ()),
    }
    assert "the test list has no labels" in found.notes[0]


def test_something_something_reads_the_answers_of_the_test(tmp_path: Path):
    files = [
        *ssv2_files(tmp_path),
        *write(tmp_path, {"test-answers.csv": "3;Putting something on something\n"}),
    ]
    found = read_ssv2(files)
    assert {row.name: row.labels for row in found.rows}["3"] == (1,)
    assert not found.notes


def test_something_something_names_what_is_missing(tmp_path: Path):
    files = ssv2_files(tmp_path)
    with pytest.raises(UserError, match=r"labels.json .* is missing"):
        read_ssv2(files[1:])
    with pytest.raises(UserError, match="no Something-Something lists"):
        read_ssv2(files[:1])
    write(tmp_path, {"train.json": json.dumps([{"id": "1", "template": "Pushing [sth]"}])})
    with pytest.raises(UserError, match=r"train.json: entry 1: 'Pushing sth' is not among the 2 classes"):
        read_ssv2(files)


def test_ucf101_counts_from_one_and_has_three_folds(tmp_path: Path):
    files = write(
        tmp_path / "ucfTrainTestlist",
        {
            "classInd.txt": "1 ApplyEyeMakeup\r\n2 YoYo\r\n",
            "trainlist02.txt": "YoYo/v_YoYo_g08_c01.avi 2\r\nApplyEyeMakeup/v_A_g08_c01.avi 1\r\n",
            "testlist02.txt": "YoYo/v_YoYo_g01_c01.avi\r\n",
        },
    )
    found = read_ucf101(files, 2)
    assert found.classes == ("ApplyEyeMakeup", "YoYo")
    assert [(row.name, row.split, row.labels) for row in found.rows] == [
        ("YoYo/v_YoYo_g08_c01.avi", "train", (1,)),
        ("ApplyEyeMakeup/v_A_g08_c01.avi", "train", (0,)),
        ("YoYo/v_YoYo_g01_c01.avi", "test", (1,)),
        ("YoYo/v_YoYo_g01_c01.avi", "val", (1,)),
    ]
    with pytest.raises(UserError, match=r"trainlist01.txt and testlist01.txt not found"):
        read_ucf101(files, 1)


def test_hmdb51_marks_the_split_by_a_digit(tmp_path: Path):
    lines = "a #1.avi 1 \nb [x].avi 2\nc.avi 0\n"
    files = write(tmp_path, {"wave_test_split1.txt": lines, "brush_hair_test_split1.txt": "d.avi 1\n"})
    files += write(tmp_path, {"wave_test_split2.txt": "e.avi 1\n"})
    found = read_hmdb51(files, 1)
    assert found.classes == ("brush_hair", "wave")
    assert [(row.name, row.split, row.labels) for row in found.rows] == [
        ("brush_hair/d.avi", "train", (0,)),
        ("wave/a #1.avi", "train", (1,)),
        ("wave/b [x].avi", "test", (1,)),
        ("wave/b [x].avi", "val", (1,)),
    ]
    write(tmp_path, {"wave_test_split1.txt": "a.avi 1\nb.avi 3\n"})
    with pytest.raises(UserError, match=r"wave_test_split1.txt:2: expected `name.avi 0`"):
        read_hmdb51(files, 1)


def test_hmdb51_numbers_its_classes_by_their_names_and_not_by_their_files(tmp_path: Path):
    names = ("climb", "climb_stairs", "kick", "kick_ball", "sword", "sword_exercise")
    files = write(tmp_path, {f"{name}_test_split1.txt": "a.avi 1\n" for name in reversed(names)})
    found = read_hmdb51(files)
    assert found.classes == names
    assert {row.name: row.labels for row in found.rows} == {f"{n}/a.avi": (k,) for k, n in enumerate(names)}


def test_annotations_in_another_encoding_are_named(tmp_path: Path):
    (tmp_path / "wave_test_split1.txt").write_bytes("Überraschung.avi 1".encode("latin-1"))
    with pytest.raises(UserError, match=r"wave_test_split1.txt must be UTF-8 text"):
        read_hmdb51([tmp_path / "wave_test_split1.txt"])
    (tmp_path / "test-answers.csv").write_bytes("3;Schütteln\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"test-answers.csv must be UTF-8 text"):
        read_ssv2([*ssv2_files(tmp_path), tmp_path / "test-answers.csv"])
    (tmp_path / "labels.json").write_bytes('{"Schütteln": "0"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"labels.json must be UTF-8 text"):
        read_ssv2([tmp_path / "labels.json"])
