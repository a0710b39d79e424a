"""From downloaded or recorded videos to a data set to train on, with one command."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.prepare.commands import Prepare, assert_trains, listed
from tests.prepare.files import phone_folder, small
from tests.videos import moving_frames, write_video
from tubelet.data.manifest import read_manifest
from tubelet.prepare.lists.formats import FORMATS


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_help_imports_no_large_library():
    program = """
import sys
sys.argv = ["tubelet", "prepare", "--help"]
from tubelet.cli.main import main
try:
    main()
except SystemExit:
    pass
assert not {"torch", "numpy", "av", "tubelet.prepare.pipeline"} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "kinetics400" in result.stdout


def test_every_verb_shows_the_shared_options_with_their_help(tubelet):
    for verb in ("kinetics400", "kinetics700", "ssv2", "ucf101", "hmdb51", "folder", "list"):
        code, out, _ = tubelet("prepare", verb, "--help")
        assert code == 0
        for words in ("--out", "train.csv", "--encode", "--short-side", "256", "--preview", "--workers"):
            assert words in out, (verb, words)
    assert [name for name in FORMATS if not re.search(rf"\b{name}\b", out)] == []


def test_a_format_that_does_not_exist_is_refused_with_the_nearest_name(tubelet, tmp_path: Path):
    words = ("prepare", "list", tmp_path / "train.txt", "--out", tmp_path / "data", "--format", "mmaction")
    code, _, err = tubelet(*words)
    text = " ".join(re.sub(r"[^\w',-]+", " ", err).split())
    assert code == 2
    assert "--format" in text
    assert text.endswith("did you mean 'mmaction2'")


# --------------------------------------------------------------------------------------------------- folders


@pytest.mark.slow
@pytest.mark.parametrize("encode", [False, True])
def test_a_folder_of_phone_videos_becomes_a_pretraining_set(prepare: Prepare, tmp_path: Path, encode: bool):
    phone = phone_folder(tmp_path / "my phone")
    before = contents(phone)
    words = ["--encode", "--short-side", 32] if encode else []
    code, out, err = prepare("folder", "my phone", "--out", "data", "--preview", *words)
    assert (code, err.strip()) == (0, "")
    assert contents(phone) == before
    manifest = read_manifest(tmp_path / "data", "train")
    names = {Path(sample.path).name for sample in manifest.samples}
    ending = "mp4" if encode else "mkv"
    assert names == {
        "Überraschung – видео.mp4",
        "portrait.mp4" if encode else "portrait.mov",
        "IMG 0001, copy (1).mp4",
        f"odd.{ending}",
    }
    assert manifest.classes == ()
    assert not (tmp_path / "data" / "val.csv").exists()
    assert_trains(manifest)
    portrait = next(sample for sample in manifest.samples if "portrait" in sample.path)
    assert (portrait.width, portrait.height) == ((32, 42) if encode else (48, 64))
    for line in (
        "broken.mp4: cannot be read as a video",
        "empty.mp4: the file is empty",
        "voice memo.mp4: no video in this file",
        "notes.txt",
    ):
        assert line in out
        assert line in (tmp_path / "data" / "report.txt").read_text()
    assert f"{Path('data', 'preview.png')} shows the first clips\n" in out
    with Image.open(tmp_path / "data" / "preview.png") as picture:
        assert picture.width > picture.height > 300
        assert len(np.unique(np.asarray(picture))) > 50


def test_images_beside_videos_are_reported_by_their_folder(prepare: Prepare, tmp_path: Path):
    small(tmp_path / "v" / "1.mp4")
    for name in ("pic.jpg", "stills/1.png", "stills/2.png"):
        (tmp_path / "v" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "v" / name).touch()
    code, out, _ = prepare("folder", "v", "--out", "data")
    assert code == 0
    assert "not videos, ignored: 2\n  v itself (1 image)\n  stills (2 images)\n" in out


def test_nothing_usable_is_one_line_and_exit_code_2(prepare: Prepare, tmp_path: Path):
    (tmp_path / "videos").mkdir()
    code, _, err = prepare("folder", "videos", "--out", "data")
    assert code == 2
    assert "no videos in videos" in err
    (tmp_path / "videos" / "empty.mp4").touch()
    (tmp_path / "videos" / "text.mp4").write_text("no video")
    code, _, err = prepare("folder", "videos", "--out", "data")
    assert code == 2
    assert "none of the 2 videos" in err
    assert "empty.mp4: the file is empty" in err
    assert len(err.strip().splitlines()) == 1
    assert "text.mp4: cannot be read" in (tmp_path / "data" / "report.txt").read_text()
    for name in ("gone", "videos/text.mp4"):
        code, _, err = prepare("folder", name, "--out", "data")
        assert (code, f"no folder {name}" in err) == (2, True)


def test_class_folders_are_split_by_class_and_seed(prepare: Prepare, tmp_path: Path):
    for name, count in (("riding a bike", 12), ("running", 5)):
        for k in range(count):
            small(tmp_path / "videos" / name / f"{k}.mp4", seed=k + 100 * count, count=2)
    assert prepare("folder", "videos", "--out", "data")[0] == 0
    counts = {
        split: [
            list(listed(tmp_path / "data", split).values()).count(name)
            for name in ("riding a bike", "running")
        ]
        for split in ("train", "val", "test")
    }
    assert counts == {"train": [10, 3], "val": [1, 1], "test": [1, 1]}
    first = listed(tmp_path / "data", "test")
    everything = [path for split in counts for path in listed(tmp_path / "data", split)]
    assert len(set(everything)) == 17
    prepare("folder", "videos", "--out", "again")
    assert listed(tmp_path / "again", "test") == first
    prepare("folder", "videos", "--out", "other", "--split-seed", 1)
    assert listed(tmp_path / "other", "test") != first
    prepare("folder", "videos", "--out", "plain", "--unlabeled")
    assert set(listed(tmp_path / "plain").values()) == {None}


@pytest.mark.parametrize("names", [("train", "val", "test"), ("videos_train", "validation", "test_256")])
def test_folders_may_be_the_splits(prepare: Prepare, tmp_path: Path, names: tuple[str, ...]):
    for folder in names:
        for k, label in enumerate(("a", "b")):
            small(tmp_path / "videos" / folder / label / "same name.mp4", seed=len(folder) * 2 + k, count=2)
    code, out, _ = prepare("folder", "videos", "--out", "data")
    assert code == 0
    assert "a folder for each of 2 classes, in folders for train, val, test" in out
    for split in ("train", "val", "test"):
        assert listed(tmp_path / "data", split) == {"a/same name.mp4": "a", "b/same name.mp4": "b"}


def test_the_videos_may_be_in_the_data_sets_own_folder(prepare: Prepare, tmp_path: Path):
    small(tmp_path / "data" / "a" / "1.mp4", seed=1, count=2)
    small(tmp_path / "data" / "b" / "2.mp4", seed=2, count=2)
    for _ in range(2):
        assert prepare("folder", "data", "--out", "data")[0] == 0
        assert [sample.path for sample in read_manifest(tmp_path / "data", "train").samples] == [
            "a/1.mp4",
            "b/2.mp4",
        ]
    code, _, _ = prepare("folder", "data", "--out", "data/small", "--encode")
    code_again, out, _ = prepare("folder", "data", "--out", "data/small", "--encode")
    assert (code, code_again) == (0, 0)
    assert "train       2 videos" in out


# --------------------------------------------------------------------------------------- official data sets

HEADER = "label,youtube_id,time_start,time_end,split\n"
KINETICS = {
    "train": [
        ("riding a bike", "--kFPgcLuiQ", 20),
        ("making tea", "-0a_bcdefgh", 5),
        ("making tea", "gone4444444", 9),
    ],
    "val": [("riding a bike", "zzzzzzzzzz1", 0)],
    "test": [("making tea", "zzzzzzzzzz2", 100)],
}


def kinetics(folder: Path, layout: str) -> None:
    """Kinetics as CVDF serves it, as MMAction2 keeps it, or with class folders with blanks."""
    for split, rows in KINETICS.items():
        name = f"annotations/kinetics_{split}.csv" if layout == "mmaction2" else f"annotations/{split}.csv"
        lines = [f"{label},{clip},{start},{start + 10},{split}\n" for label, clip, start in rows]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(HEADER + "".join(lines))
        for k, (label, clip, start) in enumerate(rows):
            if clip.startswith("gone"):
                continue
            name = f"{clip}_{start:06}_{start + 10:06}.mp4"
            where = {
                "cvdf": f"{split}/{name}",
                "mmaction2": f"videos_{split}/{label.replace(' ', '_')}/{name}",
                "plain": f"{split}_256/{label}/{clip}.mp4",
            }[layout]
            small(folder / where, seed=k + len(split) * 9, count=3)


@pytest.mark.parametrize("layout", ["cvdf", "mmaction2", "plain"])
def test_kinetics_as_it_is_downloaded(prepare: Prepare, tmp_path: Path, layout: str):
    kinetics(tmp_path / "k400", layout)
    code, out, _ = prepare("kinetics400", "k400", "--out", "data")
    assert code == 0
    assert sorted(str(label) for label in listed(tmp_path / "data").values()) == [
        "making tea",
        "riding a bike",
    ]
    assert list(listed(tmp_path / "data", "val").values()) == ["riding a bike"]
    assert list(listed(tmp_path / "data", "test").values()) == ["making tea"]
    assert read_manifest(tmp_path / "data", "val").classes == ("making tea", "riding a bike")
    assert "gone4444444 (k400/annotations" in out
    assert_trains(read_manifest(tmp_path / "data", "train"))


def test_kinetics_replacements_are_preferred(prepare: Prepare, tmp_path: Path):
    kinetics(tmp_path / "k400", "cvdf")
    name = "--kFPgcLuiQ_000020_000030.mp4"
    small(tmp_path / "k400" / "replacement" / "replacement_for_corrupted_k400" / name, seed=99)
    assert prepare("kinetics400", "k400", "--out", "data")[0] == 0
    assert f"replacement_for_corrupted_k400/{name}" in listed(tmp_path / "data")


def test_clips_of_one_kinetics_video_differ_in_their_times(prepare: Prepare, tmp_path: Path):
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "train.csv").write_text(
        HEADER + "a,abcdefghijk,1,11,train\nb,abcdefghijk,30,40,train\n"
    )
    small(tmp_path / "k" / "abcdefghijk_000001_000011.mp4", seed=1)
    small(tmp_path / "k" / "abcdefghijk_000030_000040.mp4", seed=2)
    assert prepare("kinetics600", "k/train.csv", "--root", "k", "--out", "data")[0] == 0
    assert list(listed(tmp_path / "data").values()) == ["a", "b"]


def test_videos_in_another_folder_need_root(prepare: Prepare, tmp_path: Path):
    kinetics(tmp_path / "k400", "cvdf")
    code, _, err = prepare("kinetics400", "k400/annotations", "--out", "data")
    assert code == 2
    assert "none of the 5 videos in Kinetics annotations" in err
    assert "--root" in err
    assert prepare("kinetics700", "k400/annotations", "--root", "k400", "--out", "data")[0] == 0


def test_something_something_as_it_is_downloaded(prepare: Prepare, tmp_path: Path):
    source = tmp_path / "ssv2"
    options = {"deadline": "realtime", "cpu-used": "8"}
    for k in range(1, 5):
        path = source / "20bn-something-something-v2" / f"{k}.webm"
        write_video(path, moving_frames(12, 48, 84, seed=k), codec="libvpx-vp9", options=options, fps=12)
    template = "Putting [something] on [something]"
    files = {
        "labels": {"Putting something on something": "1", "Pushing something": "0"},
        "train": [
            {
                "id": "1",
                "label": "putting a cup on a book",
                "template": template,
                "placeholders": ["a cup", "a book"],
            },
            {
                "id": "2",
                "label": "pushing a cup",
                "template": "Pushing [something]",
                "placeholders": ["a cup"],
            },
        ],
        "validation": [{"id": "3", "label": "x", "template": template, "placeholders": []}],
        "test": [{"id": "4"}],
    }
    (source / "labels").mkdir()
    for name, content in files.items():
        (source / "labels" / f"something-something-v2-{name}.json").write_text(json.dumps(content))
    small(source / "20bn-something-something-v2" / "1.mp4", seed=1)  # converted, beside the original
    code, out, _ = prepare("ssv2", "ssv2", "--out", "data", "--encode", "--short-side", 32, "--preview")
    assert code == 0
    folder = "20bn-something-something-v2"
    assert listed(tmp_path / "data") == {
        f"{folder}/1.mp4": "Putting something on something",
        f"{folder}/2.mp4": "Pushing something",
    }
    assert listed(tmp_path / "data", "test") == {f"{folder}/4.mp4": None}
    (sample,) = read_manifest(tmp_path / "data", "val").samples
    assert (sample.frames, sample.width, sample.height, sample.label) == (12, 56, 32, 1)
    assert sample.fps == pytest.approx(12, abs=0.01)
    assert "without a label: 1" in out
    assert_trains(read_manifest(tmp_path / "data", "train"))


def test_ucf101_as_it_is_downloaded(prepare: Prepare, tmp_path: Path):
    names = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", "YoYo/v_YoYo_g09_c01", "YoYo/v_YoYo_g01_c01"]
    for k, name in enumerate(names):
        path = tmp_path / "UCF-101" / f"{name}.avi"
        write_video(path, moving_frames(6, seed=k), codec="mpeg4", options={"bf": "2"})
    lists = tmp_path / "UCF-101" / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 YoYo\n")
    (lists / "trainlist01.txt").write_text(f"{names[0]}.avi 1\n{names[1]}.avi 2\n")
    (lists / "testlist01.txt").write_text(f"{names[2]}.avi\n")
    code, out, _ = prepare("ucf101", "UCF-101", "--out", "data")
    assert code == 0
    assert list(listed(tmp_path / "data").values()) == ["ApplyEyeMakeup", "YoYo"]
    assert (
        listed(tmp_path / "data", "val") == listed(tmp_path / "data", "test") == {f"{names[2]}.avi": "YoYo"}
    )
    assert "val.csv repeats test.csv" in out
    assert "in different splits" not in out
    code, _, err = prepare("ucf101", "UCF-101", "--out", "data3", "--fold", 3)
    assert (code, "trainlist03.txt" in err) == (2, True)


def test_hmdb51_as_it_is_downloaded(prepare: Prepare, tmp_path: Path):
    source = tmp_path / "hmdb51"
    for k, name in enumerate(("brush_hair/a #1.avi", "wave/a #1.avi", "wave/b [x]!.avi")):
        write_video(source / name, moving_frames(6, seed=k), codec="mpeg4")
    (source / "splits").mkdir()
    (source / "splits" / "brush_hair_test_split1.txt").write_text("a #1.avi 1 \n")
    (source / "splits" / "wave_test_split1.txt").write_text("a #1.avi 1 \nb [x]!.avi 2 \n")
    assert prepare("hmdb51", "hmdb51", "--out", "data")[0] == 0
    assert listed(tmp_path / "data") == {"brush_hair/a #1.avi": "brush_hair", "wave/a #1.avi": "wave"}
    assert listed(tmp_path / "data", "test") == {"wave/b [x]!.avi": "wave"}


# ----------------------------------------------------------------------------------------------------- lists


def test_kinetics_with_the_lists_of_mmaction2(prepare: Prepare, tmp_path: Path):
    kinetics(tmp_path / "k400", "mmaction2")
    classes = tmp_path / "kinetics_class2ind.txt"
    classes.write_text("making tea 0\nriding a bike 1\n")
    (tmp_path / "kinetics400_train_list_videos.txt").write_text(
        "riding_a_bike/--kFPgcLuiQ_000020_000030.mp4 1\nmaking_tea/-0a_bcdefgh_000005_000015.mp4 0\n"
    )
    (tmp_path / "kinetics_val_list.txt").write_text("zzzzzzzzzz1 300 1\n")
    lists = ["kinetics400_train_list_videos.txt", "kinetics_val_list.txt"]
    code, out, _ = prepare("list", *lists, "--root", "k400", "--classes", classes, "--out", "data")
    assert code == 0
    assert "kinetics_val_list.txt: lines of `path frames label` (--format videomae_frames), 1 video" in out
    assert list(listed(tmp_path / "data").values()) == ["riding a bike", "making tea"]
    assert list(listed(tmp_path / "data", "val").values()) == ["riding a bike"]
    root = "k400/videos_train"
    assert prepare("list", lists[0], "--root", root, "--classes", classes, "--out", "direct")[0] == 0
    assert listed(tmp_path / "direct") == listed(tmp_path / "data")


def test_lists_of_videomae_whose_paths_contain_blanks_and_equal_names(prepare: Prepare, tmp_path: Path):
    lists = tmp_path / "lists"
    lists.mkdir()
    for name, seed in (("a b/1.mp4", 1), ("c/1.mp4", 2), ("c/2, 3.mp4", 3)):
        small(tmp_path / "videos" / name, seed=seed)
    root = tmp_path / "videos"
    (lists / "train.csv").write_text(f"{root}/a b/1.mp4 0\n{root}/c/1.mp4 1\n")
    (lists / "val.csv").write_text(f"{root}/c/2, 3.mp4 1\n{root}/c/gone.mp4 1\n")
    code, out, _ = prepare("list", "lists", "--out", "data", "--encode", "--short-side", 32)
    assert code == 0
    assert listed(tmp_path / "data") == {"a b/1.mp4": "class 0", "c/1.mp4": "class 1"}
    assert [sample.path for sample in read_manifest(tmp_path / "data", "val").samples] == [
        "videos/c/2, 3.mp4"
    ]
    assert "listed but not found: 1" in out
    assert_trains(read_manifest(tmp_path / "data", "train"))


def test_a_listed_video_is_not_replaced_by_another_of_its_name(prepare: Prepare, tmp_path: Path):
    small(tmp_path / "v" / "x" / "b" / "1.mp4", seed=1)
    (tmp_path / "train.txt").write_text("a/1.mp4 0\nb/1.mp4 1\n")
    code, out, _ = prepare("list", "train.txt", "--root", "v", "--out", "data")
    assert code == 0
    assert listed(tmp_path / "data") == {"b/1.mp4": "class 1"}
    assert "a/1.mp4 (train.txt:1)" in out
    small(tmp_path / "v" / "y" / "b" / "1.mp4", seed=2)
    code, _, err = prepare("list", "train.txt", "--root", "v", "--out", "data")
    assert code == 2
    assert "train.txt:2: 'b/1.mp4' may be x/b/1.mp4 or y/b/1.mp4 in v" in err


def test_a_wrong_root_is_found_at_once(prepare: Prepare, tmp_path: Path):
    (tmp_path / "train.txt").write_text("a/1.mp4 0\nb/1.mp4 1\n")
    (tmp_path / "v").mkdir()
    for words in (["--root", "v"], []):
        code, _, err = prepare("list", "train.txt", *words, "--out", "data")
        assert code == 2
        assert "train.txt:1: no 'a/1.mp4' in" in err
        assert "--root" in err
    assert not (tmp_path / "data").exists()


def test_a_class_folder_is_not_an_image_folder(prepare: Prepare, tmp_path: Path):
    small(tmp_path / "archery.mp4", seed=1)
    small(tmp_path / "archery" / "1.mp4", seed=2)
    (tmp_path / "train.txt").write_text("archery 0\n")
    assert prepare("list", "train.txt", "--out", "data")[0] == 0
    assert [Path(sample.path).name for sample in read_manifest(tmp_path / "data", "train").samples] == [
        "archery.mp4"
    ]


def test_multi_label_lists_reach_the_manifest(prepare: Prepare, tmp_path: Path):
    for k in range(3):
        small(tmp_path / f"{k}.mp4", seed=k)
    (tmp_path / "train.csv").write_text("path,label\n0.mp4,run;jump\n1.mp4,jump\n2.mp4,\n")
    assert prepare("list", "train.csv", "--out", "data", "--preview")[0] == 0
    manifest = read_manifest(tmp_path / "data", "train")
    assert manifest.classes == ("jump", "run")
    assert [(sample.label, sample.labels) for sample in manifest.samples] == [
        (None, (1, 0)),
        (None, (0,)),
        (None, ()),
    ]


def test_image_folders_are_listed_or_encoded(prepare: Prepare, tmp_path: Path):
    for name in ("SomethingV2/frames/12", "SomethingV2/frames/13"):
        (tmp_path / name).mkdir(parents=True)
        for k, picture in enumerate(moving_frames(6), start=1):
            Image.fromarray(picture).save(tmp_path / name / f"img_{k:05}.jpg")
    (tmp_path / "train.csv").write_text("SomethingV2/frames/12 6 1\nSomethingV2/frames/13 6 0\n")
    assert prepare("list", "train.csv", "--out", "data")[0] == 0
    assert listed(tmp_path / "data") == {"frames/12": "class 1", "frames/13": "class 0"}
    assert_trains(read_manifest(tmp_path / "data", "train"))
    assert prepare("list", "train.csv", "--out", "small", "--encode", "--short-side", 32)[0] == 0
    assert listed(tmp_path / "small") == {"videos/12.mp4": "class 1", "videos/13.mp4": "class 0"}
    assert_trains(read_manifest(tmp_path / "small", "train"))


@pytest.mark.parametrize(("line", "odd"), [("x 6 0", False), ("x 80 0", True), ("x 9601 4 0", False)])
def test_a_list_with_too_many_images_is_noted(prepare: Prepare, tmp_path: Path, line: str, odd: bool):
    (tmp_path / "x").mkdir()
    for k, picture in enumerate(moving_frames(6), start=9600):
        Image.fromarray(picture).save(tmp_path / "x" / f"img_{k:05}.jpg")
    (tmp_path / "train.txt").write_text(line + "\n")
    columns = "path,offset,frames,label" if line.count(" ") == 3 else "path,frames,label"
    code, out, _ = prepare("list", "train.txt", "--out", "data", "--encode", "--columns", columns)
    assert code == 0
    assert ("the list says 80 images, the folder has 6" in out) == odd


@pytest.mark.parametrize("encode", [False, True])
def test_a_list_with_too_few_images_is_noted(prepare: Prepare, tmp_path: Path, encode: bool):
    for name in "xyz":
        (tmp_path / name).mkdir()
        for k, picture in enumerate(moving_frames(6)):
            Image.fromarray(picture).save(tmp_path / name / f"img_{k:05}.jpg")
    (tmp_path / "train.txt").write_text("x 4 0\ny 6 0\nz 4 0\n")
    code, out, _ = prepare("list", "train.txt", "--out", "data", *["--encode"] * encode)
    assert code == 0
    assert (
        "unusual, but in the manifest: 2\n  x: the list says 4 images, the folder has 6; all are used\n  z: "
        in out
    )
    assert {sample.frames for sample in read_manifest(tmp_path / "data", "train").samples} == {6}


def test_lines_of_one_folder_do_not_overwrite_each_other(prepare: Prepare, tmp_path: Path):
    for name in "xy":
        (tmp_path / name).mkdir()
        for k, picture in enumerate(moving_frames(9), start=1):
            Image.fromarray(picture).save(tmp_path / name / f"img_{k:05}.jpg")
    (tmp_path / "train.txt").write_text("x 0 4 0\nx 0 6 1\nx 4 4 0\n")
    assert prepare("list", "train.txt", "--out", "parts", "--encode")[0] == 0
    samples = read_manifest(tmp_path / "parts", "train").samples
    assert {sample.path: sample.frames for sample in samples} == {
        "videos/x_000001_4.mp4": 4,
        "videos/x_000001_6.mp4": 6,
        "videos/x_000005.mp4": 4,
    }
    (tmp_path / "train.txt").write_text("x 4 0\nx 6 1\ny 9 0\n")
    words = ["list", "train.txt", "--out", "whole", "--encode", "--columns", "path,frames,label"]
    for _ in range(2):
        code, out, _ = prepare(*words)
        assert (code, "cannot be encoded" in out) == (0, False)
        record = (tmp_path / "whole" / "prepare.jsonl").read_text()
        assert record.count('{"encode"') == 2


def test_pretraining_lists_mix_videos_and_images(prepare: Prepare, tmp_path: Path):
    small(tmp_path / "k 400" / "a.mp4")
    (tmp_path / "ava" / "x").mkdir(parents=True)
    for k, picture in enumerate(moving_frames(9, 40, 40), start=9600):
        Image.fromarray(picture).save(tmp_path / "ava" / "x" / f"image_{k:06}.jpg")
    (tmp_path / "hybrid.csv").write_text("k 400/a.mp4 0 -1\nava/x 9601 4\nava/x 9605 4\n")
    assert prepare("list", "hybrid.csv", "--out", "data", "--encode", "--short-side", 32)[0] == 0
    code, out, _ = prepare("list", "hybrid.csv", "--out", "as_it_is")
    assert code == 0
    assert (
        "parts of image folders, left out; --encode makes videos of them: 2\n"
        "  ava/x, images 9601 to 9604\n  ava/x, images 9605 to 9608\n"
    ) in out
    samples = {sample.path: sample.frames for sample in read_manifest(tmp_path / "data", "train").samples}
    assert samples == {"videos/k 400/a.mp4": 10, "videos/ava/x_009601.mp4": 4, "videos/ava/x_009605.mp4": 4}


@pytest.mark.parametrize("encode", [False, True])
def test_every_line_of_a_list_is_counted(prepare: Prepare, tmp_path: Path, encode: bool):
    for name, broken in (("x", range(12)), ("y", [8])):
        (tmp_path / name).mkdir()
        for k, picture in enumerate(moving_frames(12)):
            Image.fromarray(picture).save(tmp_path / name / f"img_{k + 1:05}.jpg")
        for k in broken:
            (tmp_path / name / f"img_{k + 1:05}.jpg").write_text("no picture")
    lines = [f"{name} {start} 4 0\n" for name in "xyz" for start in (0, 4, 8)]
    (tmp_path / "train.txt").write_text("".join(lines) + "y 0 4 0\n")
    code, out, err = prepare("list", "train.txt", "--out", "data", *["--encode"] * encode)
    report = (tmp_path / "data" / "report.txt").read_text()
    assert f"broken, left out: {4 if encode else 3}\n" in report
    for name in ("x, images 1 to 4", "x, images 5 to 8", "x, images 9 to 12"):
        assert f"\n  {name}: " in report
    assert ("\n  y, images 9 to 12: cannot be encoded" in report) == encode
    assert ("--encode makes videos of them: 3\n  y, images 1 to 4\n" in report) != encode
    assert "listed but not found: 3\n" in report
    assert "listed twice: 1\n  y (train.txt:10)\n" in report
    if encode:
        assert (code, "train       2 videos" in out) == (0, True)
    else:
        assert (code, "none of the 9 videos can be used" in err) == (2, True)


def test_a_broken_file_counts_in_each_line_that_names_it(prepare: Prepare, tmp_path: Path):
    small(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_text("no video")
    (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 0\nb.mp4 1\n")
    (tmp_path / "val.txt").write_text("b.mp4 0\n")
    code, out, _ = prepare("list", "train.txt", "val.txt", "--out", "data")
    assert (code, "broken, left out: 3\n" in out) == (0, True)
    for where in ("train.txt:2", "train.txt:3", "val.txt:1"):
        assert f"  b.mp4 ({where}): cannot be read" in out


def test_what_prepare_writes_can_be_prepared_again(prepare: Prepare, tmp_path: Path):
    for name in ("a/1.mp4", "b/2.mp4"):
        small(tmp_path / "videos" / name, seed=len(name))
    assert prepare("folder", "videos", "--out", "data")[0] == 0
    assert prepare("list", "data", "--out", "small", "--encode", "--short-side", 16)[0] == 0
    assert list(listed(tmp_path / "small").values()) == ["a", "b"]
    with (tmp_path / "small" / "train.csv").open(newline="") as file:
        assert [row["height"] for row in csv.DictReader(file)] == ["16", "16"]


# ------------------------------------------------------------------------------------------ files of any kind


@pytest.mark.parametrize("encode", [False, True])
def test_pipes_and_devices_are_refused_and_never_waited_for(prepare: Prepare, tmp_path: Path, encode: bool):
    small(tmp_path / "v" / "a.mp4")
    (tmp_path / "v" / "images").mkdir()
    for k, picture in enumerate(moving_frames(5)):
        Image.fromarray(picture).save(tmp_path / "v" / "images" / f"{k}.jpg")
    for name in ("pipe.mp4", "images/3.png", "train.csv"):
        os.mkfifo(tmp_path / "v" / name)
    (tmp_path / "v" / "device.mp4").symlink_to("/dev/zero")
    words = ["--encode"] * encode
    code, out, _ = prepare("folder", "v", "--out", "data", *words)
    assert (code, "broken, left out: 2\n" in out) == (0, True)
    (tmp_path / "train.txt").write_text("a.mp4 0\nimages 0\n")
    code, out, _ = prepare("list", "train.txt", "--root", "v", "--out", "list", *words)
    assert (code, "images: " in out, "3.png" in out) == (0, True, True)
    assert prepare("list", "v", "--out", "other", *words)[0] == 2
    assert prepare("kinetics400", "v", "--out", "other", *words)[0] == 2


def test_gifs_are_videos(prepare: Prepare, tmp_path: Path):
    for label, seed in (("a", 1), ("b", 2)):
        pictures = [Image.fromarray(picture) for picture in moving_frames(6, seed=seed)]
        (tmp_path / "v" / label).mkdir(parents=True)
        path = tmp_path / "v" / label / "1.gif"
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    assert prepare("folder", "v", "--out", "data")[0] == 0
    manifest = read_manifest(tmp_path / "data", "train")
    assert [(sample.frames, sample.codec) for sample in manifest.samples] == [(6, "gif"), (6, "gif")]
    assert_trains(manifest)
    assert prepare("folder", "v", "--out", "small", "--encode", "--short-side", 32)[0] == 0
    assert [sample.frames for sample in read_manifest(tmp_path / "small", "train").samples] == [6, 6]


def test_a_class_name_with_a_line_break_is_refused(prepare: Prepare, tmp_path: Path):
    for k in range(3):
        small(tmp_path / "v" / f"0000{k}.mp4", seed=k, count=2)
    entries = [{"path": f"v/0000{k}.mp4", "label": name} for k, name in enumerate(["c", "a\nb", "d"])]
    (tmp_path / "train.json").write_text(json.dumps(entries))
    (tmp_path / "train.csv").write_text('path,label\nv/00000.mp4,c\nv/00001.mp4,"a\rb"\n', newline="")
    for name, where in (("train.json", "train.json: entry 2"), ("train.csv", "train.csv:4")):
        code, _, err = prepare("list", name, "--out", "data")
        assert (code, f"{where}: the class name" in err, len(err.strip().splitlines())) == (2, True, 1), err
    small(tmp_path / "w" / "a\nb" / "1.mp4")
    small(tmp_path / "w" / "c" / "1.mp4")
    code, _, err = prepare("folder", "w", "--out", "data")
    assert (code, r"'a\nb'" in err) == (2, True)
    assert not (tmp_path / "data" / "classes.txt").exists()


@pytest.mark.slow
def test_names_that_the_terminal_cannot_show_are_printed_as_escapes(tmp_path: Path):
    small(tmp_path / "v" / "影片.mp4")
    small(tmp_path / "v" / "b.mp4", seed=1)
    (tmp_path / "v" / "broken 影片 \udcff.mp4").touch()
    command = [sys.executable, "-m", "tubelet", "prepare", "folder", "v", "--out", "data", "--workers", "0"]
    for encoding in ("cp1252", "ascii", "utf-8"):
        result = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert (result.returncode, b"Traceback" in result.stderr) == (0, False), result.stderr
        shown = "影片" if encoding == "utf-8" else r"\u5f71\u7247"
        assert rf"broken {shown} \udcff.mp4: its name is not" in result.stdout.decode(encoding)
        words = [*command[:5], "\udcff 影片", "--out", "data"]
        result = subprocess.run(
            words,
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert (result.returncode, b"Traceback" in result.stderr) == (2, False), result.stderr
        assert result.stderr.startswith(rb"tubelet: no folder \udcff ")
