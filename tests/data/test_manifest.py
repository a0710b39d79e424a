"""Manifests: what is written is read back, and mistakes are named by file and line."""

import re
from pathlib import Path

import pytest

from tubelet.data.manifest import Manifest, Sample, read_manifest, write_manifest
from tubelet.errors import UserError

ODD_PATHS = [
    "a video.mp4",
    "folder/one, two.mp4",
    'the "best" clip.webm',
    "Überraschung/видео 影片.mkv",
    "it's (1) [2] #3 %20.avi",
    " leading and trailing .mp4",
]


def dataset(root: Path, text: str, classes: str | None = "run\nwalk\n") -> Path:
    (root / "train.csv").write_text(text, encoding="utf-8")
    if classes is not None:
        (root / "classes.txt").write_text(classes, encoding="utf-8")
    return root


def test_samples_survive_writing_and_reading(tmp_path: Path):
    samples = tuple(
        Sample(path, label=1, frames=250, fps=29.97, width=340, height=256, codec="h264")
        for path in ODD_PATHS
    )
    write_manifest(tmp_path, "val", samples, ["run", "walk, then run"])
    manifest = read_manifest(tmp_path, "val")
    assert manifest.samples == samples
    assert manifest.classes == ("run", "walk, then run")
    assert manifest.split == "val"


def test_unknown_properties_stay_unknown(tmp_path: Path):
    write_manifest(tmp_path, "train", [Sample("a.mp4"), Sample("b.mp4", frames=3)])
    assert read_manifest(tmp_path, "train").samples == (Sample("a.mp4"), Sample("b.mp4", frames=3))
    assert not (tmp_path / "classes.txt").exists()


def test_a_video_may_have_more_than_one_class(tmp_path: Path):
    samples = (Sample("a.mp4", labels=(0, 2)), Sample("b.mp4", labels=(1,)), Sample("c.mp4"))
    write_manifest(tmp_path, "train", samples, ["run", "walk", "jump"])
    assert (tmp_path / "train.csv").read_text().splitlines()[1] == "a.mp4,,,,,,,0;2"
    manifest = read_manifest(tmp_path, "train")
    assert manifest.samples == samples
    assert [sample.classes for sample in manifest.samples] == [(0, 2), (1,), ()]
    assert manifest.multi_label
    manifest.require_labels()  # c.mp4 shows none of the classes


def test_a_list_with_a_label_for_each_video_is_not_multi_label(tmp_path: Path):
    write_manifest(tmp_path, "train", [Sample("a.mp4", label=0), Sample("b.mp4", label=1)], ["run", "walk"])
    manifest = read_manifest(tmp_path, "train")
    assert [sample.classes for sample in manifest.samples] == [(0,), (1,)]
    assert not manifest.multi_label


@pytest.mark.parametrize("num_unlabeled", [1, 2])
def test_videos_without_a_label_are_counted_and_one_is_named(tmp_path: Path, num_unlabeled: int):
    samples = [Sample(f"{k}.mp4", label=None if k < num_unlabeled else 0) for k in range(3)]
    write_manifest(tmp_path, "train", samples, ["run"])
    with pytest.raises(UserError, match=rf"train.csv: {num_unlabeled} video.* no label.* 0.mp4"):
        read_manifest(tmp_path, "train").require_labels()


def test_a_video_may_be_anywhere(tmp_path: Path):
    file = tmp_path / "videos" / "a.mp4"
    write_manifest(tmp_path / "lists", "train", [Sample(file.as_posix()), Sample("../videos/a.mp4")])
    manifest = read_manifest(tmp_path / "lists", "train")
    file.parent.mkdir()
    file.touch()
    assert all(Path(manifest.locate(sample)).samefile(file) for sample in manifest.samples)


def test_writing_makes_the_folder(tmp_path: Path):
    write_manifest(tmp_path / "new" / "set", "train", [Sample("a.mp4")])
    assert len(read_manifest(tmp_path / "new" / "set", "train")) == 1


@pytest.mark.parametrize(
    ("path", "classes"), [("not text \udcff.mp4", ["walk", "run"]), ("b.mp4", ["walk", "not text \udcff"])]
)
def test_a_failed_write_leaves_the_old_files(tmp_path: Path, path: str, classes: list[str]):
    write_manifest(tmp_path, "train", [Sample("old.mp4", label=1)], ["run", "walk"])
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(UnicodeEncodeError):
        write_manifest(tmp_path, "train", [Sample("new.mp4"), Sample(path)], classes)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_sample_is_located_below_the_root(tmp_path: Path):
    manifest = read_manifest(dataset(tmp_path, "path\nvideos/a b.mp4\n"), "train")
    assert manifest.locate(manifest.samples[0]) == tmp_path / "videos" / "a b.mp4"


def test_the_root_may_be_a_string(tmp_path: Path):
    assert read_manifest(str(dataset(tmp_path, "path\na.mp4\n")), "train").root == tmp_path


def test_columns_may_come_in_any_order(tmp_path: Path):
    manifest = read_manifest(dataset(tmp_path, "label,path\n1,a.mp4\n"), "train")
    assert manifest.samples == (Sample("a.mp4", label=1),)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path):
    dataset(tmp_path, "\ufeffpath,label\r\na.mp4,0\r\n", "\ufeffrun\r\nwalk\r\n")
    manifest = read_manifest(tmp_path, "train")
    assert manifest.samples == (Sample("a.mp4", label=0),)
    assert manifest.classes == ("run", "walk")


def test_empty_lines_of_a_list_are_skipped(tmp_path: Path):
    manifest = read_manifest(dataset(tmp_path, "path\na.mp4\n\nb.mp4\n\n"), "train")
    assert [sample.path for sample in manifest.samples] == ["a.mp4", "b.mp4"]


def test_a_class_is_its_line_number(tmp_path: Path):
    dataset(tmp_path, "path,label\na.mp4,2\n", "run\nwalk\njump\n\n")
    manifest = read_manifest(tmp_path, "train")
    label = manifest.samples[0].label
    assert label is not None
    assert manifest.classes[label] == "jump"


def test_class_names_that_are_missing_or_repeated_are_refused(tmp_path: Path):
    for classes, message in (
        ("run\n\njump\n", r"classes.txt:2: .*empty"),
        ("run\njump\nrun \n", r"classes.txt:3: 'run' .*classes.txt:1"),
        ("", r"classes.txt is empty"),
    ):
        with pytest.raises(UserError) as error:
            read_manifest(dataset(tmp_path, "path,label\na.mp4,1\n", classes), "train")
        assert re.search(message, str(error.value)), (classes, str(error.value))


def test_classes_in_another_encoding_are_named(tmp_path: Path):
    dataset(tmp_path, "path,label\na.mp4,0\n", None)
    (tmp_path / "classes.txt").write_bytes("Übung\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"classes.txt must be UTF-8"):
        read_manifest(tmp_path, "train")


MISTAKES = {
    "path,label\na.mp4,0\nb.mp4,walk\n": r"train.csv:3: label\b.*'walk'",
    "path,frames\na.mp4,many\n": r"train.csv:2: frames\b.*'many'",
    "path,fps\na.mp4,25 fps\n": r"train.csv:2: fps\b.*'25 fps'",
    "path,label\na.mp4,2\n": r"train.csv:2: label 2 .*classes.txt.* 0 to 1",
    "path,label\na.mp4,-1\n": r"train.csv:2: label -1 .*classes.txt",
    "path,labels\na.mp4,0;2\n": r"train.csv:2: label 2 .*classes.txt.* 0 to 1",
    "path,labels\na.mp4,0;walk\n": r"train.csv:2: labels\b.*;.*'0;walk'",
    "path,label,labels\na.mp4,0,0;1\n": r"train.csv:2: both label and labels",
    "path,label\na, b.mp4,1\n": r"train.csv:2: more or fewer cells than columns",
    "path,label\na.mp4\n": r"train.csv:2: more or fewer cells than columns",
    "path,label\na.mp4,0\n,1\n": r"train.csv:3: the path is empty",
    "path,lable\na.mp4,0\n": r"train.csv: unknown column 'lable'.*'label'",
    "label\n0\n": r"train.csv: .*column.* 'path'",
    "a.mp4,0\n": r"train.csv: unknown column 'a.mp4'",
    "": r"train.csv: .*column.* 'path'",
    "path\n": r"train.csv: no videos",
}


def test_mistakes_are_named_by_file_line_and_column(tmp_path: Path):
    for text, message in MISTAKES.items():
        with pytest.raises(UserError) as error:
            read_manifest(dataset(tmp_path, text), "train")
        assert re.search(message, str(error.value)), (text, str(error.value))


def test_a_label_without_classes_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"label 0 .*classes.txt"):
        read_manifest(dataset(tmp_path, "path,label\na.mp4,0\n", classes=None), "train")


def test_the_line_of_a_mistake_counts_quoted_line_breaks(tmp_path: Path):
    with pytest.raises(UserError, match=r"train.csv:4: "):
        read_manifest(dataset(tmp_path, 'path,label\n"two\nlines.mp4",0\nb.mp4,x\n'), "train")


def test_a_list_in_another_encoding_is_named(tmp_path: Path):
    (tmp_path / "train.csv").write_bytes("path\nÜberraschung.mp4\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"train.csv.* UTF-8"):
        read_manifest(tmp_path, "train")


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone: the folder does not exist"):
        read_manifest(tmp_path / "gone", "train")


def test_a_missing_list_is_named_with_the_existing_ones(tmp_path: Path):
    dataset(tmp_path, "path\na.mp4\n")
    with pytest.raises(UserError, match=r"no test.csv.* train.csv$"):
        read_manifest(tmp_path, "test")


def test_a_url_is_located_unchanged(tmp_path: Path):
    url = "https://host/a b.mp4?signature=x//y&z=."
    manifest = Manifest(tmp_path, "train", (Sample(url), Sample("c.mp4")), ())
    remote, local = (manifest.locate(sample) for sample in manifest.samples)
    assert remote == url
    assert local == tmp_path / "c.mp4"


def test_segments_survive_writing_and_reading(tmp_path: Path):
    samples = (
        Sample("a.mp4", label=0, start=0.1, end=2.5),
        Sample("a.mp4", label=1, start=2.5),
        Sample("a.mp4", label=1, end=7),
        Sample("a.mp4", label=0),
    )
    write_manifest(tmp_path, "train", samples, ["run", "walk"])
    assert (tmp_path / "train.csv").read_text().splitlines()[:2] == [
        "path,label,frames,fps,width,height,codec,start,end", "a.mp4,0,,,,,,0.1,2.5"
    ]  # fmt: skip
    manifest = read_manifest(tmp_path, "train")
    assert manifest.samples == samples
    names = [sample.name for sample in samples]
    assert names == ["a.mp4#t=0.1,2.5", "a.mp4#t=2.5", "a.mp4#t=,7", "a.mp4"]


def test_the_fingerprint_depends_on_the_segments(tmp_path: Path):
    def fingerprint(*samples: Sample) -> str:
        return Manifest(tmp_path, "train", samples, ("run",)).fingerprint

    prints = {fingerprint(Sample("a", 0, start=s, end=e)) for s in (None, 1.0, 1.5) for e in (None, 2.0, 2.5)}
    assert len(prints) == 9


def test_bad_times_are_named(tmp_path: Path):
    for cells, message in [
        ("x,2", "train.csv:2: start: expected seconds from 0 on, found 'x'"),
        ("-1,2", "train.csv:2: start: expected seconds"),
        ("nan,2", "train.csv:2: start: expected seconds"),
        ("1,inf", "train.csv:2: end: expected seconds"),
        ("2,2", "train.csv:2: end: expected seconds after the start, found '2'"),
        (",0", "train.csv:2: end: expected seconds after the start"),
    ]:
        with pytest.raises(UserError, match=message):
            read_manifest(dataset(tmp_path, f"path,start,end\na.mp4,{cells}\n"), "train")


def test_a_class_name_with_a_line_break_is_not_written(tmp_path: Path):
    for name in ("a\nb", "a\r", "\n"):
        with pytest.raises(UserError, match=r"classes.txt: the class name .* line break"):
            write_manifest(tmp_path, "train", [Sample("a.mp4", label=0)], ["run", name])
    assert list(tmp_path.iterdir()) == []
