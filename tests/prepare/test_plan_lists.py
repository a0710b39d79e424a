"""The videos of a list are found by their paths, or by their names in a folder."""

import errno
from pathlib import Path

import pytest

from tubelet.errors import UserError
from tubelet.prepare.find_files import find_videos, match_rows
from tubelet.prepare.lists.annotations import read_kinetics
from tubelet.prepare.plan import PreparePlan
from tubelet.prepare.plan_lists import plan_lists


def plan(folder: Path, text: str, classes: bytes | None = None) -> PreparePlan:
    (folder / "train.txt").write_text(text)
    if classes is not None:
        (folder / "classes.txt").write_bytes(classes)
    return plan_lists([folder / "train.txt"])


def test_classes_beside_a_list_name_its_numbers(tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    found = plan(tmp_path, "a.mp4 2\n", "run\nclass 7\nÜbung\n\n".encode())
    assert (found.classes, found.videos[0].labels) == (("run", "class 7", "Übung"), (2,))


def test_broken_classes_beside_a_list_are_named(tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    for classes, message in [
        (b"run\n\njump\n", r"classes.txt:2"),
        (b"run\njump\nrun\n", r"classes.txt:3: 'run' .*:1\)"),
        ("Übung\n".encode("latin-1"), r"classes.txt must be UTF-8 text"),
    ]:
        with pytest.raises(UserError, match=message):
            plan(tmp_path, "a.mp4 0\n", classes)


def test_a_name_too_long_for_a_file_is_missing(tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    long = "x" * 300
    found = plan(tmp_path, f"{long}.mp4 0\na.mp4 0\n")
    assert [video.name for video in found.videos] == ["a.mp4"]
    assert found.missing == (f"{long}.mp4 ({tmp_path / 'train.txt'}:1)",)


def test_a_header_that_is_not_known_is_not_a_class(tmp_path: Path):
    (tmp_path / "v").mkdir()
    for k in range(3):
        (tmp_path / "v" / f"{k}.mp4").touch()
    videos = "v/0,jump\nv/1,run\nv/2,jump\n"
    with pytest.raises(UserError, match=r"train.txt:1: .*'videofile'.*header"):
        plan(tmp_path, f"videofile,cls\n{videos}")
    (tmp_path / "val.txt").write_text(f"videofile,cls\n{videos}")
    with pytest.raises(UserError, match=r"train.txt:1: .*'videofile'.*header"):
        plan_lists([tmp_path / "train.txt", tmp_path / "val.txt"])
    for missing in ("v/3,walk", "other,run", "3.mp4,walk"):
        found = plan(tmp_path, f"{missing}\n{videos}")
        assert len(found.videos) == 3, missing
        assert len(found.missing) == 1, missing


def test_a_folder_without_read_permission_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "a.mp4").touch()
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(Path, "iterdir", refuse)
    found = plan(tmp_path, "x 0\na.mp4 0\n")
    assert found.missing == (f"x ({tmp_path / 'train.txt'}:1)",)


def test_hidden_images_do_not_make_an_image_folder(tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "._img_00001.jpg").touch()
    (tmp_path / "x.mp4").touch()
    assert [Path(video.path).name for video in plan(tmp_path, "x 0\n").videos] == ["x.mp4"]


def test_labels_are_numbers_or_names_in_all_lists(tmp_path: Path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    with pytest.raises(UserError, match=r"train.txt:3"):
        plan(tmp_path, "a.mp4 1\nb.mp4 2\nc.mp4 run\n")


def test_a_clip_whose_times_are_not_numbers_is_found_by_its_id(tmp_path: Path):
    (tmp_path / "abc.mp4").touch()
    for time in ("inf", "nan"):
        (tmp_path / "train.csv").write_text(
            f"label,youtube_id,time_start,time_end,split\nrun,abc,{time},{time},train\n"
        )
        annotations = read_kinetics([tmp_path / "train.csv"], 1)
        assert match_rows(annotations.rows, find_videos(tmp_path)) == ["abc.mp4"], time


def test_a_header_in_front_of_lines_of_a_given_format_is_not_a_video(tmp_path: Path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    path = tmp_path / "train.txt"
    for header in ("path label", "path,label", "video_path\tclass_id", "my_video,my_label", "file class"):
        separator = next(mark for mark in ",\t " if mark in header)
        for labels in ((0, 1, 2), ("run", "jump", "sit")):
            lines = [f"{name}.mp4{separator}{label}" for name, label in zip("abc", labels, strict=True)]
            path.write_text("\n".join(["", header, *lines]))
            for given in ({"list_format": "videomae"}, {"columns": ("path", "label")}):
                found = plan_lists([path], **given)
                assert [video.name for video in found.videos] == ["a.mp4", "b.mp4", "c.mp4"], header
                assert found.missing == ()
                assert len(found.classes) == 3
                assert any("first line names columns" in note for note in found.notes)
                assert found.videos[0].where.endswith("train.txt:3")
    path.write_text("path label\n")
    with pytest.raises(UserError, match=r"train.txt lists no video"):
        plan_lists([path], list_format="videomae")


def test_a_first_line_with_another_kind_of_label_may_be_a_header(tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "train.txt").write_text("Datei,Klasse!\na.mp4,0\nb.mp4,1\n")
    with pytest.raises(UserError, match=r"train.txt:1: .*header"):
        plan_lists([tmp_path / "train.txt"], list_format="videomae")


def test_an_invalid_address_is_a_missing_video(tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    for address in ("https://[::1", "http://[", "https://[x]/a.mp4", "https:///a.mp4", "http://\u2100/a.mp4"):
        found = plan(tmp_path, f"a.mp4 0\n{address} 1\n")
        assert found.missing == (f"{address} ({tmp_path / 'train.txt'}:2)",)


def test_a_list_without_its_videos_counts_the_other_lines(tmp_path: Path):
    for text, counted in (("a.mp4 0\n", False), ("a.mp4 0\nb.mp4 1\n", True)):
        with pytest.raises(UserError, match=r"no 'a\.mp4' in .*--root") as caught:
            plan(tmp_path, text)
        assert ("any of the other 1;" in str(caught.value)) == counted
