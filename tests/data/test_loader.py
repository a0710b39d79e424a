"""Batches: the same for any number of processes and workers, and resumable anywhere."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from tubelet.clips import DenseClip, Views
from tubelet.data.augment import Augment
from tubelet.data.dataset import Batch, TrainDataset, ViewDataset
from tubelet.data.loader import TrainLoader, default_workers, view_order
from tubelet.data.manifest import Manifest
from tubelet.data.workers import Workers
from tubelet.errors import UserError

MakeManifest = Callable[..., Manifest]
CLIP = DenseClip(frames=2, stride=2)


def training(manifest: Manifest, seed: int = 0, repeats: int = 1) -> TrainDataset:
    return TrainDataset(manifest, CLIP, Augment(), size=16, seed=seed, repeats=repeats)


def rows(batch: Batch) -> dict[str, bytes]:
    return {name: clip.numpy().tobytes() for name, clip in zip(batch.names, batch.video, strict=True)}


def same(a: list[Batch], b: list[Batch]) -> bool:
    return [x.names for x in a] == [x.names for x in b] and all(
        torch.equal(x.video, y.video) and torch.equal(x.seed, y.seed) for x, y in zip(a, b, strict=True)
    )


def test_an_epoch_has_every_video_at_most_once(manifest: MakeManifest):
    batches = list(TrainLoader(training(manifest(11)), batch=3).batches(0))
    names = [name for batch in batches for name in batch.names]
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert len(set(names)) == 9


def test_batches_that_fit_exactly_have_all_videos(manifest: MakeManifest):
    loader = TrainLoader(training(manifest(12)), batch=4)
    assert len(loader) == 3
    assert {name for batch in loader.batches(0) for name in batch.names} == {f"{k}.mp4" for k in range(12)}


def test_epochs_and_seeds_are_shuffled_differently(manifest: MakeManifest):
    def order(seed: int, epoch: int) -> list[str]:
        loader = TrainLoader(training(manifest(12), seed), batch=4)
        return [name for batch in loader.batches(epoch) for name in batch.names]

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert len({tuple(names) for names in orders}) == 3
    assert order(0, 0) == orders[0]
    assert orders[0] != [f"{k}.mp4" for k in range(12)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_resumes_in_its_middle(manifest: MakeManifest, workers: int):
    whole = list(TrainLoader(training(manifest(12)), batch=2, workers=0).batches(3))
    rest = list(TrainLoader(training(manifest(12)), batch=2, workers=workers).batches(3, start=2))
    assert len(whole) == 6
    assert same(rest, whole[2:])


def test_workers_make_the_same_batches_over_several_epochs(manifest: MakeManifest):
    without = TrainLoader(training(manifest(12)), batch=4)
    helped = TrainLoader(training(manifest(12)), batch=4, workers=2)
    for epoch in range(2):
        assert same(list(helped.batches(epoch)), list(without.batches(epoch)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_left_early_does_not_change_the_next(manifest: MakeManifest, workers: int):
    loader = TrainLoader(training(manifest(12)), batch=2, workers=workers)
    assert len(list(islice(loader.batches(0), 2))) == 2
    expected = list(TrainLoader(training(manifest(12)), batch=2).batches(1))
    assert same(list(loader.batches(1)), expected)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batch_of_one(manifest: MakeManifest, world: int):
    one = list(TrainLoader(training(manifest(12)), batch=6).batches(1))
    shards = [
        list(TrainLoader(training(manifest(12)), batch=6 // world, rank=rank, world=world).batches(1))
        for rank in range(world)
    ]
    for number, batch in enumerate(one):
        parts = [rows(shard[number]) for shard in shards]
        assert sum(len(part) for part in parts) == 6  # disjoint, as their union has six
        assert {name: clip for part in parts for name, clip in part.items()} == rows(batch)
    assert all(len(shard) == len(one) for shard in shards)


def test_repeats_are_next_to_each_other(manifest: MakeManifest):
    batch = next(TrainLoader(training(manifest(6), repeats=2), batch=3).batches(0))
    assert len(batch) == 6
    assert batch.names[0::2] == batch.names[1::2]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failure_within_the_limit_is_counted(manifest: MakeManifest, workers: int):
    listed = manifest(11, {3: "gone.mp4"})
    loader = TrainLoader(training(listed), batch=4, max_failures=0.1, workers=workers)
    batches = list(loader.batches(0))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert list(loader.failures) == ["gone.mp4"]


def test_a_video_that_fails_in_every_epoch_counts_and_is_named_once(
    manifest: MakeManifest, caplog: pytest.LogCaptureFixture
):
    loader = TrainLoader(training(manifest(11, {3: "gone.mp4"})), batch=4, max_failures=0.1)
    for epoch in range(3):
        list(loader.batches(epoch))
    assert len(loader.failures) == 1
    assert [record.getMessage() for record in caplog.records if "gone.mp4" in record.getMessage()] == [
        f"{loader.failures['gone.mp4']}; another video replaces it"
    ]


def test_too_many_failures_stop_the_run_and_are_named(manifest: MakeManifest):
    broken = {0: "gone.mp4", 5: "not a video.mp4", 7: "cut off.mp4"}
    loader = TrainLoader(training(manifest(9, broken)), batch=4, max_failures=0.2)
    with pytest.raises(UserError, match=r"3 of 12 videos cannot be read.* data.max_failures=0.2") as error:
        list(loader.batches(0))
    assert all(name in str(error.value) for name in broken.values())


def test_failures_within_each_process_limit_stop_all_at_the_end_of_an_epoch(manifest: MakeManifest):
    listed = manifest(9, {0: "gone.mp4", 5: "not a video.mp4", 7: "cut off.mp4"})
    loaders = [
        TrainLoader(training(listed), batch=2, rank=rank, world=2, max_failures=0.2) for rank in (0, 1)
    ]
    for loader in loaders:
        list(loader.batches(1))  # 2 of 12 may fail
    assert sorted(len(loader.failures) for loader in loaders) == [1, 2]
    gather, messages = gatherer(*loaders), []
    for loader in loaders:
        with pytest.raises(
            UserError, match=r"3 of 12 videos cannot be read.* data.max_failures=0.2"
        ) as error:
            loader.end_epoch(gather)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert all(name in messages[0] for name in ("gone.mp4", "not a video.mp4", "cut off.mp4"))


def test_failures_within_the_limit_of_all_processes_are_known_to_each(
    manifest: MakeManifest, caplog: pytest.LogCaptureFixture
):
    listed = manifest(11, {3: "gone.mp4"})
    loader, other = (TrainLoader(training(listed), batch=4, max_failures=0.1) for _ in range(2))
    other.failures["gone.mp4"] = "gone.mp4: no such file"
    loader.end_epoch(gatherer(loader, other))
    assert loader.failures == {"gone.mp4": "gone.mp4: no such file"}
    list(loader.batches(0))
    assert not caplog.records  # another process has warned of it


def test_a_resumed_run_counts_the_failures_before_it(manifest: MakeManifest):
    before, other, after = (
        TrainLoader(training(manifest(11, {3: "gone.mp4"})), batch=4, max_failures=0.1) for _ in range(3)
    )
    list(before.batches(0))  # 1 of 12 may fail
    other.failures["missing.mp4"] = "no such file"
    state = before.state(gatherer(before, other))
    assert state["failures"].keys() == {"gone.mp4", "missing.mp4"}
    after.resume(state)
    with pytest.raises(UserError, match=r"2 of 12 videos cannot be read"):
        list(after.batches(1))


def test_a_video_that_was_repaired_before_a_run_resumed_counts_no_longer(manifest: MakeManifest):
    loader = TrainLoader(training(manifest(12)), batch=4, max_failures=0.2)
    loader.resume(after_failures(loader, "3.mp4", "missing.mp4"))
    list(loader.batches(0))
    assert loader.failures == {"missing.mp4": "no such file"}


def test_a_repaired_video_counts_no_longer_once_one_process_has_read_it(manifest: MakeManifest):
    listed = manifest(11, {3: "gone.mp4"})
    loaders = [
        TrainLoader(training(listed), batch=2, rank=rank, world=2, max_failures=0.5) for rank in (0, 1)
    ]
    for loader in loaders:
        loader.resume(after_failures(loader, "5.mp4", "gone.mp4", "missing.mp4"))
        list(loader.batches(0))
    assert sorted("5.mp4" in loader.failures for loader in loaders) == [False, True]
    gather = gatherer(*loaders)
    assert loaders[0].state(gather)["failures"].keys() == {"gone.mp4", "missing.mp4"}
    for loader in loaders:
        loader.end_epoch(gather)
        assert loader.failures.keys() == {"gone.mp4", "missing.mp4"}
    loaders[0].end_epoch(gatherer(*loaders))
    assert loaders[0].failures.keys() == {"gone.mp4", "missing.mp4"}


def after_failures(loader: TrainLoader, *names: str) -> dict[str, Any]:
    """The state of a run that could not read these."""
    return loader.state(lambda value: [value]) | {"failures": dict.fromkeys(names, "no such file")}


def test_a_state_without_its_parts_is_refused(manifest: MakeManifest):
    states: list[dict[str, Any]] = [
        {},
        {"manifest": manifest(4).fingerprint},
        {"manifest": 3, "failures": {}},
    ]
    for state in states:
        with pytest.raises(UserError, match="checkpoint is damaged: its part loader"):
            TrainLoader(training(manifest(4)), batch=2).resume(state)


@pytest.mark.parametrize("change", ["classes", "order", "labels", "videos"])
def test_a_run_does_not_resume_with_another_data_set(manifest: MakeManifest, change: str):
    before = manifest(6)
    first, second, *rest = before.samples
    after = {
        "classes": replace(before, classes=before.classes[::-1]),
        "order": replace(before, samples=(second, first, *rest)),
        "labels": replace(before, samples=(replace(first, label=2), second, *rest)),
        "videos": replace(before, samples=(replace(first, path="x.mp4"), second, *rest)),
    }[change]
    state = TrainLoader(training(before), batch=2).state(lambda value: [value])
    TrainLoader(training(before), batch=2).resume(state)
    with pytest.raises(UserError, match=r"train\.csv or classes\.txt"):
        TrainLoader(training(after), batch=2).resume(state)


def gatherer(*loaders: TrainLoader) -> Callable[[Any], list[Any]]:
    """Return the values of all loaders, as in as many processes."""
    values: list[Any] = []

    def take(value: Any) -> list[Any]:
        values.append(value)
        return [value]

    for loader in loaders:
        loader.state(take)
    return lambda _: values


def test_a_data_set_without_one_readable_video_stops_the_run(manifest: MakeManifest):
    missing = manifest(0, {k: f"gone{k}.mp4" for k in range(4)})
    loader = TrainLoader(training(missing), batch=2)
    with pytest.raises(UserError, match=r"gone\d.mp4: no such file"):
        list(loader.batches(0))


def test_ten_failures_in_a_row_stop_the_run_within_the_limit(manifest: MakeManifest):
    missing = manifest(0, {k: f"gone{k}.mp4" for k in range(12)})
    loader = TrainLoader(training(missing), batch=1, max_failures=1.0)
    with pytest.raises(UserError, match="10 of 12 videos cannot be read"):
        list(loader.batches(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_has_every_video_once_in_order(manifest: MakeManifest, workers: int):
    dataset = ViewDataset(manifest(7), CLIP, Views(clips=2), size=16)
    batches = list(Workers(dataset, workers).batches(view_order(np.zeros(7, dtype=bool), batch=3)))
    assert [index for batch in batches for index in batch.index.tolist()] == [
        k for k in range(7) for _ in "ab"
    ]


def test_an_evaluation_leaves_broken_videos_out_and_names_them(manifest: MakeManifest):
    dataset = ViewDataset(manifest(4, {0: "gone.mp4", 2: "not a video.mp4"}), CLIP, Views(), size=16)
    batches = list(Workers(dataset, 0).batches(view_order(np.zeros(6, dtype=bool), batch=2)))
    assert [name for batch in batches for name in batch.names] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert [name for batch in batches for name in batch.failures] == ["gone.mp4", "not a video.mp4"]


def test_the_batches_of_an_evaluation_are_the_same_whoever_makes_them():
    done = np.zeros(11, dtype=bool)
    whole = view_order(done, batch=3)
    assert whole == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10]]
    assert [view_order(done, batch=3, rank=rank, world=3) for rank in range(3)] == [
        [whole[0], whole[3]], [whole[1]], [whole[2]]
    ]  # fmt: skip
    done[[0, 1, 2, 7]] = True
    assert view_order(done, batch=3) == [[3, 4, 5], [6, 8], [9, 10]]
    assert [view_order(done, batch=3, rank=rank, world=2) for rank in range(2)] == [
        [[3, 4, 5], [9, 10]], [[6, 8]]
    ]  # fmt: skip
    assert view_order(np.ones(11, dtype=bool), batch=3) == []


def test_there_is_always_a_worker():
    assert default_workers("cuda") >= default_workers("cpu") >= 1


def test_a_balanced_epoch_draws_every_class_equally_often(manifest: MakeManifest):
    listed = manifest(12)
    rare = tuple(replace(sample, label=int(i >= 3)) for i, sample in enumerate(listed.samples))
    loader = TrainLoader(training(replace(listed, samples=rare)), batch=4, balanced=True)
    for epoch in range(2):
        drawn = [int(i) for batch in loader.batches(epoch) for i in batch.index]
        counts = Counter(drawn)
        assert sum(counts[i] for i in range(3)) == sum(counts[i] for i in range(3, 12)) == 6
        assert {counts[i] for i in range(3)} == {2}  # the videos of a rare class are drawn equally often
        assert max(counts[i] for i in range(3, 12)) == 1


@pytest.mark.slow
def test_a_balanced_epoch_draws_each_of_multi_labels_as_videos_that_show_it(manifest: MakeManifest):
    listed = manifest(12)
    classes = [(0, 1)] * 2 + [(1,)] * 6 + [(2, 1)] + [()] * 3  # 0: 2 videos, 1: 9, 2: 1, none: 3
    samples = tuple(
        replace(sample, label=None, labels=labels)
        for sample, labels in zip(listed.samples, classes, strict=True)
    )
    loader = TrainLoader(training(replace(listed, samples=samples)), batch=4, balanced=True)
    drawn = Counter(int(i) for epoch in range(30) for batch in loader.batches(epoch) for i in batch.index)
    # 4 of an epoch's 12 draws are of each class: 2 of 0 and of 1, 4 of 8, and 4 of the nine that show 1.
    assert sum(drawn.values()) == 12 * 30
    assert not any(drawn[i] for i in (9, 10, 11))
    for i, expected in ((0, 2 + 4 / 9), (1, 2 + 4 / 9), (8, 4 + 4 / 9), *((i, 4 / 9) for i in range(2, 8))):
        assert abs(drawn[i] - 30 * expected) <= 5 * (30 * 4 / 9) ** 0.5


def test_a_balanced_epoch_is_the_same_for_any_number_of_processes(manifest: MakeManifest):
    listed = manifest(12)
    samples = tuple(replace(sample, label=i % 5) for i, sample in enumerate(listed.samples))
    dataset = training(replace(listed, samples=samples))
    whole = TrainLoader(dataset, batch=4, balanced=True)
    halves = [TrainLoader(dataset, batch=2, rank=rank, world=2, balanced=True) for rank in (0, 1)]
    for batch, *parts in zip(*(loader.batches(3) for loader in (whole, *halves)), strict=True):
        assert batch.names == [name for part in parts for name in part.names]
