"""Which folders are classes and which are splits."""

from tubelet.prepare.find_files import FoundFiles
from tubelet.prepare.plan import PreparePlan, SplitDraw
from tubelet.prepare.plan_folder import plan_folder


def plan(*paths: str, unlabeled: bool = False) -> PreparePlan:
    return plan_folder(FoundFiles("/v", sorted(paths)), unlabeled=unlabeled)


def classes(found: PreparePlan) -> dict[str, str]:
    return {video.name: found.classes[video.labels[0]] for video in found.videos if video.labels}


def splits(found: PreparePlan) -> dict[str, str | None]:
    return {video.name: video.split for video in found.videos}


def test_common_parent_folders_are_ignored():
    found = plan("nest/sports/dog/1.mp4", "nest/sports/goat/2.mp4")
    assert classes(found) == {"nest/sports/dog/1.mp4": "dog", "nest/sports/goat/2.mp4": "goat"}
    assert found.kind == "a folder for each of 2 classes, below nest/sports"


def test_class_folders_directly_contain_videos():
    found = plan("sports/dog/1.mp4", "sports/goat/2.mp4", "music/harp/3.mp4")
    assert found.classes == ("dog", "goat", "harp")
    assert classes(found)["music/harp/3.mp4"] == "harp"


def test_class_folders_of_one_name_are_named_by_their_paths():
    found = plan("a/sports/dog/1.mp4", "a/home/dog/2.mp4", "a/home/goat/3.mp4")
    assert found.classes == ("home/dog", "home/goat", "sports/dog")
    assert "named by their paths, such as home/dog: 2 class folders are called dog" in found.notes[0]


def test_class_folders_at_different_depths_are_named_by_their_paths():
    found = plan("sports/dog/1.mp4", "cooking/2.mp4")
    assert classes(found) == {"sports/dog/1.mp4": "sports/dog", "cooking/2.mp4": "cooking"}
    assert "such as sports/dog: their depths differ" in found.notes[0]


def test_videos_deeper_in_a_class_folder_belong_to_it():
    found = plan("dog/1.mp4", "dog/at night/raw/2.mp4", "goat/3.mp4")
    assert set(classes(found).values()) == {"dog", "goat"}
    assert classes(found)["dog/at night/raw/2.mp4"] == "dog"
    assert "1 video is deeper in a class folder, which is the class, such as dog/at night" in found.notes[0]


def test_split_folders_may_contain_class_folders():
    folders = ("train/{}a/1.mp4", "train/{}b/2.mp4", "val/{}a/3.mp4", "test_set/{}b/4.mp4")
    for outer in ("", "kinetics/"):
        for inner in ("", "videos/"):
            found = plan(*(outer + path.format(inner) for path in folders))
            assert found.classes == ("a", "b"), (outer, inner)
            assert list(splits(found).values()) == ["test", "train", "train", "val"], (outer, inner)
            assert found.draw is None
            assert "in folders for train, val, test" in found.kind


def test_class_folders_may_contain_split_folders():
    found = plan("dog/train/1.mp4", "dog/test/2.mp4", "goat/train/3.mp4", "goat/test/4.mp4")
    assert set(classes(found).values()) == {"dog", "goat"}
    assert splits(found)["goat/test/4.mp4"] == "test"


def test_videos_beside_the_split_folders_are_left_out():
    found = plan("train/a/1.mp4", "val/b/2.mp4", "train/b/3.mp4", "raw/a/4.mp4", "5.mp4", "val/6.mp4")
    assert found.classes == ("a", "b")
    assert found.left_out == ("5.mp4", "raw/a/4.mp4", "val/6.mp4")


def test_a_class_may_be_called_train():
    found = plan("train/1.mp4", "bus/2.mp4", "car/3.mp4")
    assert found.classes == ("bus", "car", "train")
    assert found.draw == SplitDraw()


def test_videos_without_class_folders_are_for_pretraining():
    for paths, reason in [
        (["1.mp4", "2.mp4"], "no class folders"),
        (["dog/1.mp4", "dog/2.mp4"], "no class folders"),
        (["train/dog/1.mp4", "val/dog/2.mp4"], "no class folders"),
        (["dog/1.mp4", "goat/2.mp4", "3.mp4", "4.mp4"], "3.mp4 is in no class folder"),
    ]:
        found = plan(*paths)
        assert found.classes == (), paths
        assert [video.name for video in found.videos] == sorted(paths), paths
        assert reason in found.kind


def test_all_videos_are_used_if_folders_are_not_classes():
    paths = ("train/a/1.mp4", "val/b/2.mp4", "raw/3.mp4", "4.mp4")
    found = plan(*paths, unlabeled=True)
    assert splits(found) == {path: "val" if path.startswith("val") else "train" for path in sorted(paths)}
    assert found.left_out == ()
