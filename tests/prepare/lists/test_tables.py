"""Lists of other projects: the format is detected or given; errors name the file and the line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tubelet.errors import UserError
from tubelet.prepare.lists.row import Row, split_of
from tubelet.prepare.lists.tables import read_list


def rows_of(
    tmp_path: Path,
    text: str,
    name: str = "train.csv",
    columns: tuple[str, ...] = (),
    list_format: str | None = None,
) -> list[Row]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return list(read_list(path, columns, list_format).rows)


def labeled(rows: list[Row]) -> list[tuple[str, tuple[int | str, ...]]]:
    return [(row.name, row.labels) for row in rows]


def test_a_path_and_a_label_are_split_from_the_right(tmp_path: Path):
    for line in ("{} 3", "{}  3", "{},3", "{}, 3", "{}\t3", "{};3", '"{}",3', "{} 3 "):
        for path in ("/data/a.mp4", "a b, c.webm", "über/видео (1).MP4", "clip 2.mp4"):
            rows = rows_of(tmp_path, "\n".join([line.format(path), line.format("x/y.avi"), ""]))
            assert labeled(rows) == [(path, (3,)), ("x/y.avi", (3,))], line.format(path)


def test_a_path_without_a_suffix_may_end_in_a_number(tmp_path: Path):
    rows = rows_of(tmp_path, "videos/clip one 0\nvideos/my clip 12 4\nb 1\n")
    assert labeled(rows) == [("videos/clip one", (0,)), ("videos/my clip 12", (4,)), ("b", (1,))]


def test_videos_without_labels(tmp_path: Path):
    assert labeled(rows_of(tmp_path, "a 1.mp4\nb.mp4\n")) == [("a 1.mp4", ()), ("b.mp4", ())]
    assert labeled(rows_of(tmp_path, "a.mp4 -1\nb.mp4 -1\n")) == [("a.mp4", ()), ("b.mp4", ())]


def test_pretraining_lists_of_videomae_v2(tmp_path: Path):
    rows = rows_of(
        tmp_path, "k400/a.mp4 0 -1\nk 700/b.mp4 0 -1\nSomethingV2/frames/182040 1 58\nava/x 9601 300\n"
    )
    assert labeled(rows) == [
        ("k400/a.mp4", ()),
        ("k 700/b.mp4", ()),
        ("SomethingV2/frames/182040", ()),
        ("ava/x", ()),
    ]
    assert [(row.offset, row.frames) for row in rows] == [(None, None), (None, None), (1, 58), (9601, 300)]


def test_one_longer_line_does_not_make_a_list_multi_label(tmp_path: Path):
    text = "a.mp4 0\nb.mp4 1\nc.mp4 40 1\nd.mp4 0\n"
    with pytest.raises(UserError, match=r"train.csv:3: .*'c.mp4 40 1'.*--format .*label\.\.\."):
        rows_of(tmp_path, text)
    rows = rows_of(tmp_path, text, columns=("path", "label..."))
    assert [row.labels for row in rows] == [(0,), (1,), (40, 1), (0,)]


def test_a_repeated_number_in_a_line_is_not_a_second_class(tmp_path: Path):
    with pytest.raises(UserError, match=r"train.csv:1: 'a.mp4 0 40 0'"):
        rows_of(tmp_path, "a.mp4 0 40 0\nb.mp4 0 41 1\n")


def test_three_numbers_behind_a_video_may_be_a_segment_and_a_label(tmp_path: Path):
    text = "v/00000.mp4 1 3 2\nv/00001.mp4 0 2 1\n"
    with pytest.raises(
        UserError,
        match=r"train.csv:1: 'v/00000.mp4 1 3 2'.*--format .*label\.\.\..*--columns path,start,end,l",
    ):
        rows_of(tmp_path, text)
    (row, _) = rows_of(tmp_path, text, columns=("path", "start", "end", "label"))
    assert (row.start, row.end, row.labels) == (1, 3, (2,))
    for text in (
        "a.mp4 5 3 2\nb.mp4 1 3 4\n",
        "a.mp4 1 3 2\nb.mp4 1 3 4 7\n",
        "a.mp4 1 3 2 9\nb.mp4 1 3 4 7\n",
    ):
        labels = [tuple(map(int, line.split()[1:])) for line in text.splitlines()]
        assert [row.labels for row in rows_of(tmp_path, text)] == labels


def test_lists_of_frame_folders_and_of_video_ids(tmp_path: Path):
    rows = rows_of(tmp_path, "__lt03EF4ao 300 12\n-0IErS_cisg 299 3\n")
    assert [(row.name, row.frames, row.labels) for row in rows] == [
        ("__lt03EF4ao", 300, (12,)),
        ("-0IErS_cisg", 299, (3,)),
    ]
    (row, _) = rows_of(tmp_path, "imgs 2 5 127\nimgs 7 5 127\n")
    assert (row.name, row.offset, row.frames, row.labels) == (
        "imgs",
        3,
        5,
        (127,),
    )  # MMAction2 counts images from 1


def test_image_folders_with_two_labels(tmp_path: Path):
    columns = ("path", "frames", "label...")
    for text, given in [
        ("a 120 3\nb 90 0 3 7\nc 80 2 5\nd 9 1\n", ()),
        ("a 120 3 9\nb 90 0 7\n", ()),
        ("a 120 3 9\nb 90 1 7\n", columns),
        ("a 120 3\nb 90 4\nc 90 4 7\n", columns),
    ]:
        lines = [line.split() for line in text.splitlines()]
        expected = [(name, None, int(frames), tuple(map(int, labels))) for name, frames, *labels in lines]
        for rows in (
            rows_of(tmp_path, text, columns=given),
            rows_of(tmp_path, text, list_format="mmaction2_frames_multi_label"),
        ):
            assert [(row.name, row.offset, row.frames, row.labels) for row in rows] == expected, text


def test_parts_of_image_folders_with_two_labels(tmp_path: Path):
    rows = rows_of(tmp_path, "a 0 30 3 4\na 30 30 3\nb 0 40 7\nb 60 9 1 2\n")
    assert [(row.name, row.offset, row.frames, row.labels) for row in rows] == [
        ("a", 1, 30, (3, 4)), ("a", 31, 30, (3,)), ("b", 1, 40, (7,)), ("b", 61, 9, (1, 2)),
    ]  # fmt: skip


def test_ambiguous_image_folders_are_refused(tmp_path: Path):
    two = r".*--format mmaction2_frames_multi_label .*--format mmaction2_offset .*--columns path,off"
    for text, message in [
        ("a 120 3 9\nb 90 1 7\n", f"train.csv:1: 'a 120 3 9'{two}"),
        ("my clip 120 3\nmy clip 2 90 1\nc 2 90 1\n", f"train.csv:2: 'my clip 2 90 1'{two}"),
        ("a 120 3\nb 90 4\nc 90 4 7\n", r"train.csv:3: .*`path frames label`.*frames,label\.\.\."),
    ]:
        with pytest.raises(UserError, match=message):
            pytest.fail(f"{text!r} is read as {rows_of(tmp_path, text)}")


def test_columns_separate_a_name_that_ends_in_a_number(tmp_path: Path):
    rows = rows_of(tmp_path, "my clip 2 90 1\nc 80 0\n", columns=("path", "frames", "label"))
    assert [(row.name, row.frames) for row in rows] == [("my clip 2", 90), ("c", 80)]


def test_any_number_of_labels_can_only_be_last(tmp_path: Path):
    with pytest.raises(UserError, match=r"--columns .*path,label\.\.\.,frames"):
        rows_of(tmp_path, "a 3 90\n", columns=("path", "label...", "frames"))


def test_two_labels(tmp_path: Path):
    rows = rows_of(tmp_path, "a.mp4 0 3\nb c.mp4 0 2 4\n")
    assert labeled(rows) == [("a.mp4", (0, 3)), ("b c.mp4", (0, 2, 4))]
    rows = rows_of(tmp_path, "path,labels\na.mp4,3;17\nb.mp4,2\nc.mp4,run|jump\n")
    assert [row.labels for row in rows] == [(3, 17), (2,), ("run", "jump")]


def test_ambiguous_lines_are_refused(tmp_path: Path):
    with pytest.raises(
        UserError, match=r"train.csv:1: 'a.mp4 30 1' .*--format mmaction2_multi_label .*--columns"
    ):
        rows_of(tmp_path, "a.mp4 30 1\nb.mp4 31 2\n")
    rows = rows_of(tmp_path, "a.mp4 30 1\nb.mp4 31 2\n", columns=("path", "frames", "label"))
    assert [(row.frames, row.labels) for row in rows] == [(30, (1,)), (31, (2,))]
    rows = rows_of(tmp_path, "a.mp4 30 1\nb.mp4 31 2\n", columns=("path", "label", "label"))
    assert [row.labels for row in rows] == [(30, 1), (31, 2)]


def test_a_format_can_be_named(tmp_path: Path):
    for list_format, text, expected in [
        ("paths", "a 1\n", Row("a 1", "")),
        ("videomae", "a.mp4 1\n", Row("a.mp4", "", labels=(1,))),
        ("mae_st", "a.mp4 1\n", Row("a.mp4", "", labels=(1,))),
        ("mar", "a.mp4,1\n", Row("a.mp4", "", labels=(1,))),
        ("pyslowfast", "a.mp4 1\n", Row("a.mp4", "", labels=(1,))),
        ("videomae_frames", "a.mp4 30 1\n", Row("a.mp4", "", labels=(1,), frames=30)),
        ("videomaev2_pretrain", "a 0 -1\n", Row("a", "")),
        ("videomaev2_pretrain", "a 1 58\n", Row("a", "", offset=1, frames=58)),
        ("mmaction2", "a.mp4 1\n", Row("a.mp4", "", labels=(1,))),
        ("mmaction2_multi_label", "a.mp4 30 1\n", Row("a.mp4", "", labels=(30, 1))),
        ("mmaction2_frames", "a 30 1\n", Row("a", "", labels=(1,), frames=30)),
        ("mmaction2_frames_multi_label", "a 30 1 2\n", Row("a", "", labels=(1, 2), frames=30)),
        ("mmaction2_offset", "a 5 30 1\n", Row("a", "", labels=(1,), offset=6, frames=30)),
        ("mmaction2_offset_multi_label", "a 5 30 1 2\n", Row("a", "", labels=(1, 2), offset=6, frames=30)),
        ("csv", "path,label\na.mp4,1\n", Row("a.mp4", "", labels=(1,))),
        ("json", '[{"path": "a.mp4", "label": 1}]', Row("a.mp4", "", labels=(1,))),
    ]:
        (row,) = rows_of(tmp_path, text, list_format=list_format)
        assert replace(row, where="") == expected, (list_format, text)


def test_errors_of_a_named_format(tmp_path: Path):
    for list_format, text, message in [
        ("csv", "a.mp4 1\n", "train.csv"),
        ("json", "a.mp4 1\n", "train.csv"),
        ("mmaction2", "a.mp4 1\nb.mp4 1 2\n", "train.csv:2: .*`path label`"),
    ]:
        with pytest.raises(UserError, match=message):
            pytest.fail(f"{text!r} is read as {rows_of(tmp_path, text, list_format=list_format)}")
    with pytest.raises(UserError, match=r"--format .*--columns"):
        rows_of(tmp_path, "a.mp4 1\n", columns=("path", "label"), list_format="videomae")


def test_class_names_may_stand_for_labels(tmp_path: Path):
    rows = rows_of(tmp_path, "a.mp4,riding a bike\nb.mp4,running\n")
    assert labeled(rows) == [("a.mp4", ("riding a bike",)), ("b.mp4", ("running",))]
    assert labeled(rows_of(tmp_path, "a b.mp4 running\nc.mp4 walking\n"))[0] == ("a b.mp4", ("running",))


def test_tables_with_named_columns(tmp_path: Path):
    lines = [["Video_Name", "length", "Label", "split"], ["a b.mp4", "9", "run", "validation"]]
    for delimiter in (",", "\t", ";"):
        (row,) = rows_of(tmp_path, "\r\n".join(delimiter.join(line) for line in lines))
        assert (row.name, row.labels, row.split) == ("a b.mp4", ("run",), "val"), delimiter


def test_kinetics_annotations_are_a_table(tmp_path: Path):
    (row,) = rows_of(
        tmp_path,
        "label,youtube_id,time_start,time_end,split\n"
        '"passing American football (in game)",--kFPgcLuiQ,20,30,train\n',
    )
    assert row.labels == ("passing American football (in game)",)
    assert (row.name, row.start, row.end, row.split) == ("--kFPgcLuiQ", 20, 30, "train")


def test_json_lists(tmp_path: Path):
    entries = [
        {"id": "78687", "label": "holding potato", "template": "Holding [something] next to [something]"},
        {"id": "42326", "label": "x", "template": "Turning [something]", "label_idx": 5},
    ]
    rows = rows_of(tmp_path, json.dumps(entries), "train.json")
    assert labeled(rows) == [("78687", ("Holding something next to something",)), ("42326", (5,))]
    rows = rows_of(tmp_path, json.dumps({"a.mp4": 3, "b.mp4": [1, 2], "c.mp4": {"label": "run"}}), "x.json")
    assert labeled(rows) == [("a.mp4", (3,)), ("b.mp4", (1, 2)), ("c.mp4", ("run",))]
    kinetics = {
        "--07WQ2iBlw": {"annotations": {"label": "javelin throw", "segment": [1, 11]}, "subset": "validate"}
    }
    (row,) = rows_of(tmp_path, json.dumps(kinetics), "k.json")
    assert (row.name, row.labels, row.split) == ("--07WQ2iBlw", ("javelin throw",), "val")


def test_cells_that_are_not_numbers_are_ignored(tmp_path: Path):
    names = ("frames", "offset", "start", "end")
    for cell, value in [
        ("nan", "NaN"),
        ("inf", "Infinity"),
        ("-inf", "-Infinity"),
        ("1e400", "1" + "0" * 400),
        ("soon", '"soon"'),
    ]:
        fields = ", ".join(f'"{name}": {value}' for name in names)
        for name, text in [
            ("x.csv", f"path,{','.join(names)}\na.mp4,{','.join([cell] * 4)}\n"),
            ("x.jsonl", f'{{"path": "a.mp4", {fields}}}\n'),
        ]:
            (row,) = rows_of(tmp_path, text, name)
            assert replace(row, where="") == Row("a.mp4", ""), text


def test_a_number_is_read_as_it_is_written(tmp_path: Path):
    assert labeled(rows_of(tmp_path, f"a.mp4,{2**60 + 1}\n")) == [("a.mp4", (2**60 + 1,))]
    assert labeled(rows_of(tmp_path, f"a.mp4,{10**400}\nb.mp4,2.0\n")) == [
        ("a.mp4", (10**400,)),
        ("b.mp4", (2,)),
    ]


def test_a_path_may_begin_like_json(tmp_path: Path):
    rows = rows_of(tmp_path, "[Group] show.mp4 0\n{x} b.mp4 1\n", "train.txt")
    assert labeled(rows) == [("[Group] show.mp4", (0,)), ("{x} b.mp4", (1,))]
    assert labeled(rows_of(tmp_path, "[2019] a.mp4 3\n")) == [("[2019] a.mp4", (3,))]
    assert labeled(rows_of(tmp_path, "{x} a.mp4 3\n")) == [("{x} a.mp4", (3,))]


def test_json_is_detected_without_its_suffix(tmp_path: Path):
    records = [{"path": "a.mp4", "label": 1}, {"path": "b.mp4", "label": 0}]
    for text in (json.dumps(records, indent=1), "\n".join(map(json.dumps, records))):
        assert labeled(rows_of(tmp_path, text, "train.txt")) == [("a.mp4", (1,)), ("b.mp4", (0,))]
    with pytest.raises(UserError, match=r"train.txt:2 is not valid JSON"):
        rows_of(tmp_path, f"{json.dumps(records[0])}\n{{\n", "train.txt")


def test_json_lines(tmp_path: Path):
    lines = ['{"file_name": "a.mp4", "label": 1}', "", '{"file_name": "b.mp4", "label": 0}']
    assert labeled(rows_of(tmp_path, "\n".join(lines), "x.jsonl")) == [("a.mp4", (1,)), ("b.mp4", (0,))]
    assert labeled(rows_of(tmp_path, lines[0], "x.jsonl")) == [("a.mp4", (1,))]


def test_errors_name_the_file_and_the_line(tmp_path: Path):
    for name, text, message in [
        ("train.csv", "a.mp4 1\nb.mp4\nc.mp4 2\n", r"train.csv:2: .*`path label` .*'b.mp4'"),
        ("train.csv", "\n\na 1 0\nb 2 0\nc 5\n", r"train.csv:5: .*`path frames label`"),
        ("train.csv", "path,label\na.mp4,1\nb, c.mp4,1\n", r"train.csv:3: .*cells"),
        ("train.csv", "path,label\na.mp4,1\n,1\n", r"train.csv:3: .*path"),
        ("train.csv", "path,split\na.mp4,huh\n", r"train.csv:2: .*split .*'huh'"),
        ("train.csv", 'path,label\na.mp4,1\n"b.mp4,1\n' + "c.mp4,1\n" * 20000, r"train.csv:3 .*quotation"),
        ("train.csv", "", r"train.csv is empty"),
        ("train.csv", "path,label\n", r"train.csv lists no video"),
        ("x.json", "{", r"x.json .*JSON"),
        ("x.json", "3", r"x.json: entry 1"),
        ("x.json", "[1]", r"x.json: entry 1"),
        ("x.jsonl", '{"path": "a.mp4"}\n{"path": \n', r"x.jsonl:2 .*JSON"),
        ("x.json", '[{"name": "a.mp4"}, {"label": 3}]', r"x.json: entry 2: .*path"),
    ]:
        with pytest.raises(UserError, match=message):
            pytest.fail(f"{text!r:.60} is read as {rows_of(tmp_path, text, name)}")


def test_a_missing_list_and_an_unknown_column_are_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone.txt: No such file"):
        read_list(tmp_path / "gone.txt")
    with pytest.raises(UserError, match="no column 'lable'; did you mean 'label'"):
        read_list(tmp_path / "gone.txt", ("path", "lable"))
    (tmp_path / "latin.txt").write_bytes("Überraschung.mp4 1".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.txt must be UTF-8"):
        read_list(tmp_path / "latin.txt")


def test_names_contain_splits():
    for name, split in [
        ("kinetics400_val_list_videos.txt", "val"),
        ("something-something-v2-validation-with-label", "val"),
        ("trainlist01", "train"),
        ("videos_train", "train"),
        ("train_256", "train"),
        ("test-answers", "test"),
        ("train_val", None),
        ("everything", None),
    ]:
        assert split_of(name) == split, name


def test_a_video_that_json_lists_twice_is_named(tmp_path: Path):
    for name in ("train.json", "train.txt"):
        path = tmp_path / name
        for text in (
            '{"database": {"00000": {"label": "run"},\n"00001": {"label": "a"}, "00000": {"label": "jump"}}}',
            '{"path": "a.mp4", "label": 0}\n{"path": "b.mp4", "label": 1, "label": 0}\n',
        ):
            path.write_text(text)
            with pytest.raises(UserError, match=rf"{name}.*the key '(00000|label)' is there twice"):
                pytest.fail(f"{text!r} is read as {read_list(path).rows}")


def test_an_unknown_header_is_named(tmp_path: Path):
    for text, found in [
        ("clip_name,class_id\na.mp4,0\nb.mp4,1\n", "clip_name, class_id"),
        ("clip_name,klass\na.mp4,run\nb.mp4,walk\n", "clip_name, klass"),
        ("clip_name\tklass\na\t3\nb\t1\n", "clip_name, klass"),
        ('"clip name";"class id"\n"a; b.mp4";1\n', "clip name, class id"),
        ("movie klass\na 3\nb 1\n", "movie, klass"),
    ]:
        with pytest.raises(UserError, match=rf"train.csv:1: .*video_path, .* found {found}\."):
            pytest.fail(f"{text!r} is read as {rows_of(tmp_path, text)}")
    for text in ("running fast,run\nwalking slow,walk\n", "my clip,0\nb,1\n", "a.mp4,run\nb.mp4,jump\n"):
        assert len(rows_of(tmp_path, text)) == 2, text


def test_columns_that_are_not_used_are_named(tmp_path: Path):
    path = tmp_path / "train.csv"
    path.write_text("path,klass,mood,fps\na.mp4,run,good,25\n")
    unused, no_label = read_list(path).notes
    assert unused == "train.csv: columns that are not used: klass, mood"
    assert "--label COLUMN" in no_label
    found = read_list(path, label="Klass")
    assert found.rows[0].labels == ("run",)
    assert found.notes == ("train.csv: columns that are not used: mood",)
    for option in ("label", "group"):
        with pytest.raises(
            UserError, match=rf"train.csv: no column 'x' for --{option}; there are path, klass"
        ):
            read_list(path, **{option: "x"})
    (tmp_path / "lines.txt").write_text("a.mp4 1\n")
    with pytest.raises(UserError, match=r"lines.txt: --group subject names a column"):
        read_list(tmp_path / "lines.txt", group="subject")


def test_times_in_named_columns(tmp_path: Path):
    for header, cells in [
        ("start,end", "1.5,3"),
        ("time_start,time_end", "1.5,3.0"),
        ("start_timestamp,stop_timestamp", "00:00:01.50,00:00:03"),
        ("start_time,end_time", "0:1.5,0:03"),
        ("Start,End", "1.50,3"),
        ("start,duration", "1.5,1.5"),
        ("start,end,duration", "1.5,3,60"),  # of the whole video
    ]:
        (row,) = rows_of(tmp_path, f"path,{header}\na.mp4,{cells}\n")
        assert (row.start, row.end) == (1.5, 3), header
    (row,) = rows_of(tmp_path, '[{"path": "a.mp4", "label": 1, "segment": [1.5, 3]}]', "x.json")
    assert (row.start, row.end, row.labels) == (1.5, 3, (1,))
    path = tmp_path / "train.csv"
    path.write_text("path,start,end\na.mp4,soon,3\nb.mp4,1,3\n")
    assert "1 line with a start or end that is not a time" in read_list(path).notes[-1]
    assert "train.csv:2" in read_list(path).notes[-1]


def test_deeply_nested_json_is_one_message(tmp_path: Path):
    for depth in (500, 900, 3000, 100_000):
        nested = "[" * depth + "]" * depth
        for text in (
            nested,
            f'{{"a.mp4": {nested}}}',
            f'[{{"path": {nested}}}]',
            "[" * depth,
            '{"a":' * depth,
        ):
            for name in ("x.json", "x.jsonl"):
                with pytest.raises(UserError, match=r"x.json"):
                    pytest.fail(f"read as {rows_of(tmp_path, text, name)!r:.60}")
    (tmp_path / "x.txt").write_text("[" * 100_000)
    assert read_list(tmp_path / "x.txt").rows[0].labels == ()
