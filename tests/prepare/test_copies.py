"""Files that hold the same stay in one split, and are told."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.prepare.commands import Prepare
from tests.prepare.files import small
from tubelet.data.manifest import read_manifest
from tubelet.prepare.copies import draw_again, draw_splits, in_several_classes, in_several_splits
from tubelet.prepare.plan import Item, Plan


def splits(out: Path) -> dict[str, str]:
    return {
        Path(sample.path).name: split
        for split in ("train", "val", "test")
        for sample in read_manifest(out, split).samples
    }


def test_copies_fall_into_the_same_drawn_split(prepare: Prepare, tmp_path: Path):
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
    assert "in several splits" not in out
    assert "15 copies are in the split of the video with the same content" in out
    assert "the same content in different classes: 5" in out
    assert "a/00.mp4 (a) = b/01.mp4 (b)" in out


def test_splits_that_are_given_are_left_and_told(prepare: Prepare, tmp_path: Path):
    for name in ("train/a/1", "train/b/2", "val/a/1", "val/b/4"):
        small(tmp_path / "v" / f"{name}.mp4", seed=int(name[-1]), count=2)
    code, out, _ = prepare("folder", "v", "--out", "data")
    assert code == 0
    assert "in several splits at once: 1\n  train/a/1.mp4 = val/a/1.mp4: train and val" in out
    assert "copies are in the split" not in out
    assert len(read_manifest(tmp_path / "data", "val")) == 2


def test_a_video_that_is_listed_in_two_classes_is_told(prepare: Prepare, tmp_path: Path):
    small(tmp_path / "1.mp4")
    small(tmp_path / "2.mp4", seed=1)
    (tmp_path / "train.txt").write_text("1.mp4 0\n1.mp4 1\n2.mp4 1\n2.mp4 1\n")
    _, out, _ = prepare("list", "train.txt", "--out", "data")
    assert "the same content in different classes: 1\n  1.mp4 (class 0) = 1.mp4 (class 1)" in out


def test_parts_of_one_folder_of_pictures_are_different_videos():
    items = (
        Item("/v", "v", "train", (0,), offset=0, frames=4),
        Item("/v", "v", "val", (1,), offset=4, frames=4),
    )
    plan = Plan("", items, ("a", "b"))
    assert in_several_classes(plan, []) == []
    assert in_several_splits(plan, []) == {}


def test_the_order_of_several_classes_makes_no_difference():
    plan = Plan("", (Item("/1", "1", "train", (0, 1)), Item("/2", "2", "train", (1, 0))), ("a", "b"), True)
    assert in_several_classes(plan, [["/1", "/2"]]) == []


def test_copies_count_once_where_splits_are_drawn():
    names = [f"{k}{copy}" for k in range(30) for copy in "abcd"]
    splits = draw_splits({f"{k}a": 0 for k in range(30)}, 5)
    plan = Plan("", tuple(Item(f"/{name}", name, "train", (0,)) for name in reversed(names)), ("x",), drawn=5)
    found = draw_again(plan, [[f"/{k}{copy}" for copy in "dbac"] for k in range(30)], ())
    assert {item.name: item.split for item in found.items} == {
        name: splits[f"{name[:-1]}a"] for name in names
    }
    assert Counter(splits.values()) == {"train": 24, "val": 3, "test": 3}
    assert draw_again(replace(plan, drawn=None), [["/1a", "/1b"]], ()).items == plan.items


def test_broken_files_count_for_nothing_where_splits_are_drawn(prepare: Prepare, tmp_path: Path):
    for k in range(30):
        (tmp_path / "v" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / "ab"[k % 2] / f"{k}.mp4").write_text("no video")
    for k in range(6):
        small(tmp_path / "v" / "ab"[k % 2] / f"good {k}.mp4", seed=k, count=2)
    assert prepare("folder", "v", "--out", "data")[0] == 0
    assert Counter(splits(tmp_path / "data").values()) == {"train": 2, "val": 2, "test": 2}
