"""Videos of the same content get one split, and are reported."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.prepare.commands import Prepare
from tests.prepare.files import small
from tubelet.data.manifest import read_manifest
from tubelet.prepare.check import CheckResult
from tubelet.prepare.duplicates import draw_splits, in_two_classes, in_two_splits
from tubelet.prepare.plan import ListedVideo, SplitDraw
from tubelet.prepare.record import VideoRecord


def splits(out: Path) -> dict[str, str]:
    return {
        Path(sample.path).name: split
        for split in ("train", "val", "test")
        for sample in read_manifest(out, split).samples
    }


def test_copies_get_the_same_drawn_split(prepare: Prepare, tmp_path: Path):
    for k in range(20):
        small(tmp_path / "v" / "ab"[k % 2] / f"{k:02}.mp4", seed=k // 4, count=2)
    assert prepare("folder", "v", "--out", "other")[0] == 0
    code, out, _ = prepare("folder", "v", "--out", "data")
    assert code == 0
    found = splits(tmp_path / "data")
    assert len(found) == 20
    for k in range(20):
        assert found[f"{k:02}.mp4"] == found[f"{k // 4 * 4:02}.mp4"]
    assert found == splits(tmp_path / "other")
    assert "in different splits" not in out
    assert "15 copies are in the split of the video with the same content" in out
    assert "the same content in different classes: 5" in out
    assert "a/00.mp4 (a) = b/01.mp4 (b)" in out


def test_copies_in_given_splits_are_reported(prepare: Prepare, tmp_path: Path):
    for name in ("train/a/1", "train/b/2", "val/a/1", "val/b/4"):
        small(tmp_path / "v" / f"{name}.mp4", seed=int(name[-1]), count=2)
    code, out, _ = prepare("folder", "v", "--out", "data")
    assert code == 0
    assert "the same content in different splits: 1\n  train/a/1.mp4 = val/a/1.mp4: train and val" in out
    assert "copies are in the split" not in out
    assert len(read_manifest(tmp_path / "data", "val")) == 2


def test_a_video_in_two_classes_is_reported(prepare: Prepare, tmp_path: Path):
    small(tmp_path / "1.mp4")
    small(tmp_path / "2.mp4", seed=1)
    (tmp_path / "train.txt").write_text("1.mp4 0\n1.mp4 1\n2.mp4 1\n2.mp4 1\n")
    _, out, _ = prepare("list", "train.txt", "--out", "data")
    assert "the same content in different classes: 1\n  1.mp4 (class 0) = 1.mp4 (class 1)" in out


def video(name: str, content: str = "", labels: tuple[int, ...] = (0,), **listed: Any) -> VideoRecord:
    record = VideoRecord(ListedVideo(f"/{name}", name, listed.pop("split", None), labels, **listed), "train")
    record.split = record.listed.split
    record.checked = CheckResult(f"/{name}", content=content or name)
    return record


def drawn(names: Sequence[str], seed: int) -> dict[str, str | None]:
    """Draw the splits of videos of one class, named by their content and the letter of a copy."""
    videos = [video(name, content=name[:-1]) for name in names]
    draw_splits(videos, SplitDraw(seed=seed))
    return {video.listed.name: video.split for video in videos}


def test_parts_of_one_image_folder_are_different_videos():
    videos = [
        video("v", labels=(0,), split="train", offset=0, frames=4),
        video("v", labels=(1,), split="val", offset=4, frames=4),
    ]
    assert in_two_classes(videos, ("a", "b")) == []
    assert in_two_splits(videos, val_is_test=False) == {}


def test_validation_on_the_test_videos_is_not_reported():
    videos = [video("v", split="val"), video("v", split="test")]
    assert in_two_splits(videos, val_is_test=True) == {}
    assert in_two_splits(videos, val_is_test=False) == {"v": "val and test"}


def test_the_order_of_labels_makes_no_difference():
    videos = [video("1", "x", (0, 1), split="train"), video("2", "x", (1, 0), split="train")]
    assert in_two_classes(videos, ("a", "b")) == []


def test_copies_count_once_when_splits_are_drawn():
    splits = drawn([f"{k}a" for k in range(30)], 5)
    assert Counter(splits.values()) == {"train": 24, "val": 3, "test": 3}
    names = [f"{k}{copy}" for k in range(30) for copy in "dbac"]
    assert drawn(names, 5) == {name: splits[f"{name[:-1]}a"] for name in names}
    assert drawn(names[::-1], 5) == drawn(names, 5)


def test_names_that_are_not_text_are_drawn_like_others():
    assert list(drawn([f"{k}\udcff" for k in range(5)], 0).values()).count("test") == 1


def test_broken_files_do_not_count_when_splits_are_drawn(prepare: Prepare, tmp_path: Path):
    for k in range(30):
        (tmp_path / "v" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / "ab"[k % 2] / f"{k}.mp4").write_text("no video")
    for k in range(6):
        small(tmp_path / "v" / "ab"[k % 2] / f"good {k}.mp4", seed=k, count=2)
    assert prepare("folder", "v", "--out", "data")[0] == 0
    assert Counter(splits(tmp_path / "data").values()) == {"train": 2, "val": 2, "test": 2}


def test_the_shares_of_each_class_are_held_out():
    videos = [video(f"{label}/{k:02}", labels=(label,)) for label in range(3) for k in range(20)]
    for val, test in ((0.2, 0.3), (0.25, 0.0), (0.0, 0.1)):
        draw_splits(videos, SplitDraw(seed=1, val=val, test=test))
        counts = Counter((v.listed.labels[0], v.split) for v in videos)
        for label in range(3):
            assert [counts[label, split] for split in ("val", "test")] == [20 * val, 20 * test], (val, test)


def test_shares_that_leave_nothing_to_train_on_are_refused(prepare: Prepare, tmp_path: Path):
    for val, test in (("0.5", "0.5"), ("1", "0"), ("-0.1", "0"), ("nan", "0")):
        code, _, err = prepare("folder", ".", "--out", "data", "--val", val, "--test", test)
        assert (code, "--val" in err) == (2, True), (val, test)


def test_given_splits_are_not_drawn_again(prepare: Prepare, tmp_path: Path):
    for name in ("train/a/1", "train/b/2", "val/a/3"):
        small(tmp_path / "v" / f"{name}.mp4", seed=int(name[-1]), count=2)
    code, _, err = prepare("folder", "v", "--out", "data", "--val", 0.2)
    assert (code, "remove --val" in err) == (2, True)
    (tmp_path / "train.csv").write_text("path,label\nv/train/a/1.mp4,0\nv/train/b/2.mp4,1\n")
    code, _, err = prepare("list", "train.csv", "--out", "list", "--test", 0.2)
    assert (code, "train.csv" in err) == (2, True)


def test_lists_without_splits_are_drawn_with_a_share(prepare: Prepare, tmp_path: Path):
    for k in range(8):
        small(tmp_path / f"{k}.mp4", seed=k, count=2)
    (tmp_path / "all.csv").write_text("path,label\n" + "".join(f"{k}.mp4,{k % 2}\n" for k in range(8)))
    code, out, _ = prepare("list", "all.csv", "--out", "data", "--val", 0.25, "--test", 0)
    assert code == 0
    assert len(read_manifest(tmp_path / "data", "val")) == 2
    assert not (tmp_path / "data" / "test.csv").exists()
    assert "val has 2 videos: one video is 50 %" in out
    code, _, err = prepare("list", "all.csv", "--out", "data", "--val", 0.25)
    assert (code, "another" in err) == (2, True)  # it is another draw


def test_the_next_command_is_printed(prepare: Prepare, tmp_path: Path):
    for name in ("cats/1", "cats/2", "dogs/3", "dogs/4"):
        small(tmp_path / "v" / f"{name}.mp4", seed=int(name[-1]), count=2)
    for words, command in (
        (("v", "--out", "my data", "--val", 0, "--test", 0),
         "tubelet finetune own/finetune 'data.root=my data' data.val=null"),
        (("v", "--out", "plain", "--unlabeled"), "tubelet pretrain own/pretrain data.root=plain"),
    ):  # fmt: skip
        code, out, _ = prepare("folder", *words)
        assert (code, out.splitlines()[-1].strip()) == (0, command)
