"""Segments of videos: cut by their times, or listed with them, and never mixed up."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.prepare.commands import Prepare, assert_trains
from tests.prepare.files import FAST
from tests.videos import decode_all, moving_frames, write_video
from tubelet.clips import SegmentClip, Views
from tubelet.data.augment import Augment
from tubelet.data.dataset import TrainDataset, ViewDataset
from tubelet.data.manifest import Manifest, Sample, read_manifest


def counting(path: Path, count: int = 50, **settings: object) -> Path:
    """A video of 25 frames per second whose frame k has the brightness 4 * k + 20."""
    frames = (
        np.full((count, 32, 48, 3), 0, np.uint8)
        + (np.arange(count, dtype=np.uint8) * 4 + 20)[:, None, None, None]
    )
    return write_video(path, frames, **{"options": FAST, **settings})  # type: ignore[arg-type]


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers of frames of a `counting` video."""
    return [round((float(frame.mean()) - 20) / 4) for frame in frames]


def segments(manifest: Manifest) -> list[tuple[str, float | None, float | None, str]]:
    return [
        (Path(s.path).name, s.start, s.end, ",".join(manifest.classes[k] for k in s.classes))
        for s in manifest.samples
    ]


def test_a_list_with_times_becomes_segments(prepare: Prepare, tmp_path: Path):
    counting(tmp_path / "a.mp4")
    (tmp_path / "train.csv").write_text("path,label,start,end\na.mp4,run,0.2,0.6\na.mp4,jump,1,1.4\n")
    assert prepare("list", "train.csv", "--out", "data")[0] == 0
    manifest = read_manifest(tmp_path / "data", "train")
    assert segments(manifest) == [("a.mp4", 0.2, 0.6, "run"), ("a.mp4", 1.0, 1.4, "jump")]
    assert [sample.frames for sample in manifest.samples] == [10, 10]
    assert_trains(manifest)
    assert prepare("list", "data", "--out", "again")[0] == 0
    assert segments(read_manifest(tmp_path / "again", "train")) == segments(manifest)


def test_training_and_tests_see_only_the_segment(prepare: Prepare, tmp_path: Path):
    counting(tmp_path / "a.mp4")
    (tmp_path / "train.csv").write_text("path,label,start,end\na.mp4,run,0.2,0.6\na.mp4,jump,1,1.4\n")
    prepare("list", "train.csv", "--out", "data")
    manifest = read_manifest(tmp_path / "data", "train")
    dataset = TrainDataset(manifest, SegmentClip(frames=4), Augment(), size=32)
    views = ViewDataset(manifest, SegmentClip(frames=4), Views(clips=3), size=32)
    for index, inside in ((0, range(5, 15)), (1, range(25, 35))):
        seen: set[int] = set()
        for epoch in range(20):
            batch = dataset[epoch, index]
            seen |= set(numbers(batch.video[0].permute(0, 2, 3, 1).numpy()))
            assert batch.names == [manifest.samples[index].name]
        assert seen == set(inside)
        tested = views[index].video.permute(0, 1, 3, 4, 2).numpy()
        assert {number for clip in tested for number in numbers(clip)} <= set(inside)


def test_encoding_cuts_segments(prepare: Prepare, tmp_path: Path):
    counting(tmp_path / "a.mp4")
    counting(tmp_path / "b.avi", codec="mpeg4", options={"bf": "2", "qscale": "1"})
    lines = [
        f"{name},{label},{start},{end}\n"
        for name in ("a.mp4", "b.avi")
        for label, start, end in (("run", 0.2, 0.6), ("jump", 1, 1.4), ("rest", 1.6, ""))
    ]
    (tmp_path / "train.csv").write_text("path,label,start,end\n" + "".join(lines))
    for _ in range(2):  # the second time it resumes
        assert prepare("list", "train.csv", "--out", "data", "--encode", "--short-side", 32)[0] == 0
    manifest = read_manifest(tmp_path / "data", "train")
    assert [sample.path for sample in manifest.samples] == [
        f"videos/{name}_{times}s.mp4" for name in "ab" for times in ("0.2-0.6", "1-1.4", "1.6-end")
    ]
    for sample, inside in zip(
        manifest.samples, 2 * [range(5, 15), range(25, 35), range(40, 50)], strict=True
    ):
        assert (sample.start, sample.end, sample.frames) == (None, None, len(inside))
        source = decode_all(tmp_path / ("a.mp4" if "/a_" in sample.path else "b.avi"))
        assert numbers(decode_all(tmp_path / "data" / sample.path)) == numbers(source[inside]), sample.path
    record = (tmp_path / "data" / "prepare.jsonl").read_text()
    assert (record.count('{"encode"'), record.count('{"segments"')) == (6, 2)


@pytest.mark.parametrize("encode", [False, True])
def test_a_segment_that_is_not_in_its_video_is_broken(prepare: Prepare, tmp_path: Path, encode: bool):
    counting(tmp_path / "a.mp4")
    times = ["7,9", "0.5,0.51", "1.0,1.01", "1,0.5", "-1,1", "1,50", "1,2.9", "0,2", "0,1"]
    (tmp_path / "train.csv").write_text(
        "path,label,start,end\n" + "".join(f"a.mp4,run,{pair}\n" for pair in times)
    )
    code, out, _ = prepare("list", "train.csv", "--out", "data", *["--encode"] * encode)
    assert (code, "broken, left out: 6\n" in out) == (0, True)
    for line, words in enumerate(
        ["lasts 2.00 s", "no frame", "shorter than a frame", "ends", "before the"], 2
    ):
        broken = next(text for text in out.splitlines() if f"train.csv:{line})" in text)
        assert words in broken
    assert "unusual, but in the manifest: 1\n  a.mp4, 1 s to 2.9 s (train.csv:8): the segment ends" in out
    assert "the same content" not in out
    assert len(read_manifest(tmp_path / "data", "train")) == 3


def test_charades_epic_kitchens_and_activitynet_are_understood(prepare: Prepare, tmp_path: Path):
    for name in ("46GP8.mp4", "P01_01.MP4", "v_sJUL.mp4"):
        counting(tmp_path / "videos" / name)
    activity_net = {
        "version": "1.3",
        "database": {
            "sJUL": {
                "subset": "training",
                "duration": 2.0,
                "annotations": [
                    {"segment": [0.2, 0.6], "label": "Drinking beer"},
                    {"segment": [1, 1.4], "label": "Zumba"},
                ],
            },
            "none": {"subset": "testing", "duration": 2.0, "annotations": []},
        },
    }
    for name, text, words, expected, note in [
        (
            "Charades_v1_train.csv",
            "id,subject,scene,actions,length\n46GP8,HR43,Kitchen,c092 0.20 0.60;c147 1.00 1.40,2.0\n"
            "gone1,HR43,Kitchen,,3\n",
            [],
            [("46GP8.mp4", 0.2, 0.6, "c092"), ("46GP8.mp4", 1, 1.4, "c147")],
            "1 video without a segment, left out, such as Charades_v1_train.csv:3",
        ),
        (
            "EPIC_100_train.csv",
            "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame,"
            "narration,verb,verb_class,noun,noun_class\n"
            "P01_01_0,P01,P01_01,00:00:00.20,00:00:00.60,12,36,open door,open,3,door,3\n"
            "P01_01_1,P01,P01_01,00:00:01.00,00:00:01.40,60,84,turn-on light,turn-on,1,light,11\n",
            [],
            [("P01_01.MP4", 0.2, 0.6, "class 3"), ("P01_01.MP4", 1, 1.4, "class 1")],
            "the labels are verb_class; --label noun_class uses the nouns",
        ),
        (
            "EPIC_100_train.csv",
            "video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
            "P01_01,00:00:00.20,00:00:00.60,3,1\n",
            ["--label", "noun_class"],
            [("P01_01.MP4", 0.2, 0.6, "class 1")],
            "",
        ),
        (
            "activity_net.train.json",
            json.dumps(activity_net),
            [],
            [("v_sJUL.mp4", 0.2, 0.6, "Drinking beer"), ("v_sJUL.mp4", 1, 1.4, "Zumba")],
            "1 video without a segment",
        ),
        (
            "train.txt",
            "46GP8.mp4 0.2 0.60 1\n46GP8.mp4 1 1.40 0\n",
            [],
            [("46GP8.mp4", 0.2, 0.6, "class 1"), ("46GP8.mp4", 1, 1.4, "class 0")],
            "",
        ),
        (
            "train.txt",
            "46GP8 0 1 1\n",
            ["--columns", "path,start,end,label"],
            [("46GP8.mp4", 0, 1, "class 1")],
            "",
        ),
    ]:
        (tmp_path / name).write_text(text)
        out = f"data{len(list(tmp_path.glob('data*')))}"
        code, printed, err = prepare("list", name, "--root", "videos", "--out", out, *words)
        assert (code, err) == (0, ""), name
        assert segments(read_manifest(tmp_path / out, "train")) == expected, name
        assert note in printed, name


def test_ava_becomes_segments_with_the_classes_of_all_persons(prepare: Prepare, tmp_path: Path):
    counting(tmp_path / "v" / "-5KQ66BBWC4.mp4", count=100, fps=10)
    boxes = "0.077,0.151,0.283,0.811"
    (tmp_path / "ava_train_v2.2.csv").write_text(
        f"-5KQ66BBWC4,0002,{boxes},2,1\n-5KQ66BBWC4,0002,{boxes},4,0\n-5KQ66BBWC4,0003,{boxes},2,1\n"
    )
    code, out, _ = prepare("list", "ava_train_v2.2.csv", "--root", "v", "--out", "data")
    assert (code, "boxes are not used" in out) == (0, True)
    samples = read_manifest(tmp_path / "data", "train").samples
    assert [(s.start, s.end, s.labels) for s in samples] == [(0.5, 3.5, (2, 4)), (1.5, 4.5, (2,))]


def test_kinetics_files_are_cut_already_or_cut_here(prepare: Prepare, tmp_path: Path):
    counting(tmp_path / "k" / "aaaaaaaaaaa_000060_000062.mp4")
    counting(tmp_path / "k" / "bbbbbbbbbbb.mp4")  # the clip itself, as it is not longer
    counting(tmp_path / "k" / "ccccccccccc.mp4", count=200)  # the whole video of 8 s
    counting(tmp_path / "k" / "ddddddddddd.mp4", count=90)  # the clip, cut at the key frames around it
    header = "label,youtube_id,time_start,time_end,split\n"
    lines = ["run,aaaaaaaaaaa,60,62,train\n", "jump,bbbbbbbbbbb,60,62,train\n", "run,ccccccccccc,3,5,train\n"]
    lines.append("run,ddddddddddd,60,62,train\n")
    (tmp_path / "k" / "train.csv").write_text(header + "".join(lines))
    entries = {
        line.split(",")[1]: {
            "annotations": {"label": line.split(",")[0], "segment": [float(x) for x in line.split(",")[2:4]]},
            "subset": "train",
        }
        for line in lines
    }
    (tmp_path / "kinetics_train.json").write_text(json.dumps(entries))
    expected = [
        ("aaaaaaaaaaa_000060_000062.mp4", None, None, "run"),
        ("bbbbbbbbbbb.mp4", None, None, "jump"),
        ("ccccccccccc.mp4", 3, 5, "run"),
        ("ddddddddddd.mp4", None, None, "run"),
    ]
    assert prepare("kinetics400", "k", "--out", "csv")[0] == 0
    assert segments(read_manifest(tmp_path / "csv", "train")) == expected
    assert prepare("list", "kinetics_train.json", "--root", "k", "--out", "json")[0] == 0
    assert segments(read_manifest(tmp_path / "json", "train")) == expected


def test_segments_of_one_video_get_one_drawn_split(prepare: Prepare, tmp_path: Path):
    lines = []
    for k in range(10):
        counting(tmp_path / f"{k}.mp4", count=50 - k)
        lines += [f"{k}.mp4,{'ab'[j % 2]},{j / 5},{(j + 1) / 5},s{k}\n" for j in range(6)]
    (tmp_path / "all.csv").write_text("path,label,start,end,subject\n" + "".join(lines))
    assert prepare("list", "all.csv", "--out", "data", "--group", "subject")[0] == 0
    splits = [
        {s.path for s in read_manifest(tmp_path / "data", split).samples}
        for split in ("train", "val", "test")
    ]
    assert sorted(map(len, splits)) == [1, 1, 8]
    assert len(set.union(*splits)) == 10


def test_parts_in_frames_are_images_of_a_folder_only(prepare: Prepare, tmp_path: Path):
    counting(tmp_path / "a.mp4")
    (tmp_path / "P01_01").mkdir()
    for k, picture in enumerate(moving_frames(12), start=1):
        Image.fromarray(picture).save(tmp_path / "P01_01" / f"frame_{k:010}.jpg")
    header = "video_id,start_timestamp,stop_timestamp,start_frame,stop_frame,verb_class\n"
    lines = [
        "P01_01,00:00:00.10,00:00:00.50,3,8,0\n",
        "P01_01,0:1,0:2,,,0\n",
        "a.mp4,,,0,49,0\n",
        "a.mp4,,,10,19,0\n",
    ]
    (tmp_path / "train.csv").write_text(header + "".join(lines))
    code, out, _ = prepare("list", "train.csv", "--out", "data", "--encode", "--short-side", 32)
    assert code == 0
    samples = read_manifest(tmp_path / "data", "train").samples
    assert [(s.path, s.frames) for s in samples] == [("videos/P01_01_000003.mp4", 6), ("videos/a.mp4", 50)]
    assert "a folder of images has no times" in out
    assert "frames 10 to 19 of a video file" in out


def test_a_sample_is_its_path_and_its_times():
    assert Sample("a.mp4").name == "a.mp4"
    assert Sample("a.mp4", start=2.5, end=7).name == "a.mp4#t=2.5,7"
    assert Sample("a.mp4", start=0.1 + 0.2).name == "a.mp4#t=0.3"
    assert Sample("a.mp4", end=1e5 + 0.125).name == "a.mp4#t=,100000.125"
