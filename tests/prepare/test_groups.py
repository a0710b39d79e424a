"""Groups: one subject is never in two drawn splits, and a leak in given splits is reported."""

from collections import Counter
from pathlib import Path

import pytest

from tests.prepare.commands import Prepare
from tests.prepare.files import small
from tests.prepare.test_duplicates import splits, video
from tubelet.errors import UserError
from tubelet.prepare.duplicates import draw_splits
from tubelet.prepare.groups import groups_of
from tubelet.prepare.plan import SplitDraw

SPLITS = ("train", "val", "test")


def test_a_subject_is_in_one_drawn_split(prepare: Prepare, tmp_path: Path):
    for k in range(24):
        name = f"{'ab'[k % 2]}/subject{k // 4}_{k}.mp4"
        small(tmp_path / "v" / name, seed=k, count=2)
    code, out, _ = prepare("folder", "v", "--out", "data", "--group", r"(subject\d+)")
    assert (code, r"6 groups by --group (subject\d+); each is in one split" in out) == (0, True)
    found = splits(tmp_path / "data")
    by_subject: dict[str, set[str]] = {}
    for name, split in found.items():
        by_subject.setdefault(name.split("_")[0], set()).add(split)
    assert sorted(map(sorted, by_subject.values())) == [["test"], *[["train"]] * 4, ["val"]]
    (tmp_path / "all.csv").write_text(
        "path,label,person\n"
        + "".join(f"v/{'ab'[k % 2]}/subject{k // 4}_{k}.mp4,{k % 2},{k // 4}\n" for k in range(24))
    )
    for option in ("person", r"subject(\d+)_"):
        out_folder = f"from_{len(option)}"
        assert prepare("list", "all.csv", "--out", out_folder, "--group", option)[0] == 0
        listed = splits(tmp_path / out_folder)
        assert Counter(listed.values()) == {"train": 16, "val": 4, "test": 4}
        for subject in range(6):
            assert (
                len({split for name, split in listed.items() if name.startswith(f"subject{subject}_")}) == 1
            )


def test_groups_in_two_given_splits_are_reported(prepare: Prepare, tmp_path: Path):
    for k, name in enumerate(("train/a/s1_x", "train/b/s2_x", "val/a/s1_y", "val/b/s3_x")):
        small(tmp_path / "v" / f"{name}.mp4", seed=k, count=2)
    code, out, _ = prepare("folder", "v", "--out", "data", "--group", r"(s\d)_")
    leak = "groups in different splits: 1\n  s1: train and val, such as train/a/s1_x.mp4 and val/a/s1_y.mp4\n"
    assert (code, leak in out) == (0, True)
    assert prepare("folder", "v", "--out", "plain")[0] == 0
    assert "groups" not in (tmp_path / "plain" / "report.txt").read_text()
    (tmp_path / "train.csv").write_text("path,label,who\nv/train/a/s1_x.mp4,0,1\nv/train/b/s2_x.mp4,1,2\n")
    (tmp_path / "val.csv").write_text("path,label,who\nv/val/a/s1_y.mp4,0,1\n")
    code, out, _ = prepare("list", "train.csv", "val.csv", "--out", "list", "--group", "who")
    assert (code, "groups in different splits: 1\n  1: train and val" in out) == (0, True)


def test_groups_and_copies_join(prepare: Prepare, tmp_path: Path):
    videos = [video(f"{k:03}", f"c{k // 2}", group=f"g{(k + 1) // 2}") for k in range(20)]  # a chain
    videos += [video(f"x{k:03}", group=f"x{k}") for k in range(20)]
    draw_splits(videos, SplitDraw(seed=0))
    assert len({v.split for v in videos[:20]}) == 1
    assert {v.split for v in videos} == set(SPLITS)


def test_every_class_of_three_groups_is_in_every_split():
    for per_group in (1, 4, 30):
        videos = [
            video(f"{label}/{group}_{k}", labels=(label,), group=f"{label}/{group}")
            for label in range(5)
            for group in range(3)
            for k in range(per_group)
        ]
        draw_splits(videos, SplitDraw(seed=3))
        counts = Counter((v.listed.labels, v.split) for v in videos)
        assert set(counts.values()) == {per_group}
        assert len(counts) == 15


def test_few_groups_are_for_training():
    videos = [video(f"{group}/{k}", labels=(k % 2,), group=group) for group in "ab" for k in range(30)]
    draw_splits(videos, SplitDraw(seed=0))
    assert {v.split for v in videos} == {"train"}


def test_about_a_tenth_of_uneven_groups_is_held_out():
    sizes = [1 + (k * 7) % 23 for k in range(60)]
    videos = [
        video(f"{group:02}/{k}", labels=((group + k) % 6,), group=str(group))
        for group, size in enumerate(sizes)
        for k in range(size)
    ]
    for seed in range(5):
        draw_splits(videos, SplitDraw(seed=seed))
        counts = Counter(v.split for v in videos)
        for split in ("val", "test"):
            assert 0.05 < counts[split] / len(videos) < 0.2, (seed, counts)
            assert {v.listed.labels for v in videos if v.split == split} == {(k,) for k in range(6)}


def test_bad_groups_are_named(prepare: Prepare, tmp_path: Path):
    small(tmp_path / "v" / "a" / "1.mp4")
    for option, message in [
        (r"subject\d+", r"expected one pair of parentheses .*\(subject\\d\+\).* found 0"),
        ("(a)(b)", "found 2"),
        ("(a", "not a regular expression"),
        ("(nobody)", "is in none of the paths, such as a/1.mp4"),
    ]:
        with pytest.raises(UserError, match=message):
            groups_of(["a/1.mp4"], option)
        code, _, err = prepare("folder", "v", "--out", "data", "--group", option)
        assert (code, f"--group {option}" in err) == (2, True)
    assert groups_of(["a/s1.mp4", "b.mp4"], r"(s\d)") == ["s1", ""]
