"""Which folders are classes and which are splits."""

import pytest

from tubelet.prepare.find_files import FoundFiles
from tubelet.prepare.plan import Plan
from tubelet.prepare.plan_folder import plan_folder


def plan(*paths: str, unlabelled: bool = False) -> Plan:
    return plan_folder(FoundFiles("/v", sorted(paths)), unlabelled=unlabelled)


def classes(found: Plan) -> dict[str, str]:
    return {item.name: found.classes[item.labels[0]] for item in found.items if item.labels}


def splits(found: Plan) -> dict[str, str]:
    return {item.name: item.split for item in found.items}


def test_folders_that_all_videos_share_count_for_nothing():
    found = plan("nest/sports/dog/1.mp4", "nest/sports/goat/2.mp4")
    assert classes(found) == {"nest/sports/dog/1.mp4": "dog", "nest/sports/goat/2.mp4": "goat"}
    assert found.kind == "a folder for each of 2 classes, below nest/sports"


def test_class_folders_are_those_that_hold_the_videos():
    found = plan("sports/dog/1.mp4", "sports/goat/2.mp4", "music/harp/3.mp4")
    assert found.classes == ("dog", "goat", "harp")
    assert classes(found)["music/harp/3.mp4"] == "harp"


def test_class_folders_of_the_same_name_are_told_apart_by_their_paths():
    found = plan("a/sports/dog/1.mp4", "a/home/dog/2.mp4", "a/home/goat/3.mp4")
    assert found.classes == ("home/dog", "home/goat", "sports/dog")
    assert "named by their paths, such as home/dog: 2 class folders are called dog" in found.notes[0]


def test_class_folders_at_several_depths_are_named_by_their_paths():
    found = plan("sports/dog/1.mp4", "cooking/2.mp4")
    assert classes(found) == {"sports/dog/1.mp4": "sports/dog", "cooking/2.mp4": "cooking"}
    assert "such as sports/dog: class folders lie at several depths" in found.notes[0]


def test_videos_deeper_in_a_class_folder_belong_to_it():
    found = plan("dog/1.mp4", "dog/at night/raw/2.mp4", "goat/3.mp4")
    assert set(classes(found).values()) == {"dog", "goat"}
    assert classes(found)["dog/at night/raw/2.mp4"] == "dog"
    assert "1 video lies deeper in a class folder, counted to it, such as dog/at night" in found.notes[0]


@pytest.mark.parametrize("wrapped", ["", "kinetics/"])
@pytest.mark.parametrize("inner", ["", "videos/"])
def test_splits_may_lie_above_the_class_folders(wrapped: str, inner: str):
    folders = ("train/{}a/1.mp4", "train/{}b/2.mp4", "val/{}a/3.mp4", "test_set/{}b/4.mp4")
    found = plan(*(wrapped + path.format(inner) for path in folders))
    assert found.classes == ("a", "b")
    assert list(splits(found).values()) == ["test", "train", "train", "val"]
    assert found.drawn is None
    assert "in folders for train, val, test" in found.kind


def test_splits_may_lie_in_the_class_folders():
    found = plan("dog/train/1.mp4", "dog/test/2.mp4", "goat/train/3.mp4", "goat/test/4.mp4")
    assert set(classes(found).values()) == {"dog", "goat"}
    assert splits(found)["goat/test/4.mp4"] == "test"


def test_what_lies_beside_the_splits_is_left_out_and_named():
    found = plan("train/a/1.mp4", "val/b/2.mp4", "train/b/3.mp4", "raw/a/4.mp4", "5.mp4", "val/6.mp4")
    assert found.classes == ("a", "b")
    assert found.left_out == ("5.mp4", "raw/a/4.mp4", "val/6.mp4")


def test_a_class_may_be_called_train():
    found = plan("train/1.mp4", "bus/2.mp4", "car/3.mp4")
    assert found.classes == ("bus", "car", "train")
    assert found.drawn == 0


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["1.mp4", "2.mp4"], "no class folders"),
        (["dog/1.mp4", "dog/2.mp4"], "no class folders"),
        (["train/dog/1.mp4", "val/dog/2.mp4"], "no class folders"),
        (["dog/1.mp4", "goat/2.mp4", "3.mp4", "4.mp4"], "3.mp4 lies in no class folder"),
    ],
)
def test_videos_without_class_folders_are_to_pretrain_on(paths: list[str], reason: str):
    found = plan(*paths)
    assert found.classes == ()
    assert [item.name for item in found.items] == sorted(paths)
    assert reason in found.kind


def test_all_videos_are_taken_where_folders_are_no_classes():
    paths = ("train/a/1.mp4", "val/b/2.mp4", "raw/3.mp4", "4.mp4")
    found = plan(*paths, unlabelled=True)
    assert splits(found) == {path: "val" if path.startswith("val") else "train" for path in sorted(paths)}
    assert found.left_out == ()


def test_names_that_are_no_text_are_drawn_like_others():
    found = plan(*(f"{name}/{k}\udcff.mp4" for name in "ab" for k in range(5)))
    assert sorted(splits(found).values()).count("test") == 2
