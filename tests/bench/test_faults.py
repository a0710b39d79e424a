"""What benchmarks/faults.py runs: a trial of each case, and what counts as not survived."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import faults
from fault_kinds import checkpoints, disks, kills, lists, videos
from fault_kinds.commands import commands
from fault_kinds.mutations import DAMAGES
from fault_kinds.trial import Case, Failure, Finished, LimitedProcesses, Unavailable, require
from faults import Outcome


@pytest.fixture(scope="module")
def processes() -> Iterator[LimitedProcesses]:
    started = LimitedProcesses(1)
    yield started
    started.close()


def hang() -> None:
    time.sleep(3600)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def take_memory() -> None:
    torch.zeros(5 << 27)  # 2.5 GB


def fail() -> None:
    raise Failure("wrong values")


def raise_anything() -> None:
    raise KeyError("model")


@pytest.mark.slow
def test_a_call_that_goes_wrong_is_a_failure_and_the_next_one_works(processes: LimitedProcesses):
    for function, limit_s, problem in (
        (hang, 0.5, "no answer within"),
        (crash, 600, "SIGSEGV"),
        (take_memory, 600, "2.5 GB of memory"),
        (fail, 600, "wrong values"),
        (raise_anything, 600, "KeyError: 'model'"),
    ):
        with pytest.raises(Failure, match=problem):
            processes.call(function, limit_s=limit_s)
        assert processes.call(os.path.basename, "a/b", limit_s=600) == "b"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["videos", "checkpoints", "lists"])
def test_a_trial_of_each_case_is_survived(kind: str, processes: LimitedProcesses, tmp_path: Path):
    cases = faults.KINDS[kind](tmp_path, processes)
    numbers = {case.name: number for number, case in reversed(list(enumerate(cases)))}
    outcomes = [faults.run_trial(kind, cases, 0, number, tmp_path) for number in sorted(numbers.values())]
    assert [outcome.case for outcome in outcomes] == list(dict.fromkeys(case.name for case in cases))
    assert [outcome for outcome in outcomes if outcome.problem] == []


@pytest.mark.slow
def test_a_killed_command_is_survived(processes: LimitedProcesses, tmp_path: Path):
    cases = kills.cases(tmp_path, processes)
    (number,) = (number for number, case in enumerate(cases) if case.name == "prepare synthetic")
    assert faults.run_trial("kills", cases, 0, number, tmp_path).problem == ""


@pytest.mark.slow
def test_a_full_disk_is_survived(processes: LimitedProcesses, tmp_path: Path):
    try:
        cases = disks.cases(tmp_path, processes)
    except Unavailable as reason:
        pytest.skip(str(reason))
    (number,) = (number for number, case in enumerate(cases) if case.name == "prepare synthetic")
    assert faults.run_trial("disks", cases, 0, number, tmp_path).problem == ""


@pytest.mark.slow
def test_kills_and_disks_cover_all_commands_that_can_be_repeated(tmp_path: Path):
    names = {command.name for command in commands(tmp_path)}
    assert names == {"pretrain", "finetune", "prepare --encode", "prepare synthetic", "evaluate"}


def test_a_trial_follows_from_the_seed_and_its_number(tmp_path: Path):
    def draw(rng: np.random.Generator, folder: Path) -> None:
        raise Failure(str(rng.integers(2**62)))

    cases = [Case("a", draw), Case("b", draw)]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    runs = [
        [faults.run_trial("videos", cases, seed, number, tmp_path / name) for number in range(4)]
        for name, seed in (("one", 0), ("two", 0), ("one", 1))
    ]
    assert runs[0] == runs[1]
    assert [outcome.case for outcome in runs[0]] == ["a", "b", "a", "b"]
    assert len({outcome.problem for run in (runs[0], runs[2]) for outcome in run}) == 8


def test_every_damage_changes_a_file():
    data = np.random.default_rng(0).bytes(5000)
    for name, damage in DAMAGES.items():
        damaged = [damage(data, np.random.default_rng(seed)) for seed in range(20)]
        assert all(len(each) <= 2 * len(data) + 5000 for each in damaged), name
        assert any(each != data for each in damaged), name
        assert damage(data, np.random.default_rng(3)) == damaged[3], name


def test_one_message_is_required():
    for code, err, problem in (
        (2, "checking videos: 1 of 3\ntubelet: a.csv:3: expected a label\n", ""),
        (1, "tubelet: a.csv:3: expected a label\n", "exit code 1"),
        (2, "", "0 messages"),
        (2, "tubelet: x\ntubelet: y\n", "2 messages"),
        (2, 'tubelet: x\nTraceback (most recent call last):\n  File "a.py"\nKeyError: 1\n', "KeyError"),
        (2, "tubelet: " + "x" * 20_000, "a message of"),
    ):
        finished = Finished(code, "", err)
        if problem:
            with pytest.raises(Failure, match=problem):
                finished.require_one_message()
        else:
            finished.require_one_message()


def test_an_image_folder_and_what_is_not_a_file_do_not_hang_the_reader(tmp_path: Path):
    for seed in range(12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = videos._image_folder(np.random.default_rng(seed), folder)
        videos.answer_of_reader(str(path))
        videos.answer_of_check(str(path))


def test_a_value_is_replaced_at_any_depth():
    found = set()
    for seed in range(50):
        content = {"a": {"b": [1, 2]}, "c": 3}
        checkpoints._replace_somewhere(content, np.random.default_rng(seed), "x")
        found.add(str(content))
    assert {"{'a': {'b': [1, 'x']}, 'c': 3}", "{'a': {'b': [1, 2]}, 'c': 'x'}"} <= found


def test_the_table_counts_by_case_and_names_the_first_failure_of_each():
    outcomes = [
        Outcome("videos", 0, "truncated", ""),
        Outcome("videos", 1, "text", "no answer within 75 s"),
        Outcome("videos", 2, "truncated", ""),
        Outcome("videos", 3, "text", "KeyError: 1"),
    ]
    assert faults.table(outcomes, {"disks": "mounting a tmpfs needs root"}) == [
        "| kind | case | tried | survived |",
        "| --- | --- | ---: | ---: |",
        "| videos | truncated | 2 | 2 |",
        "| videos | text | 2 | 0 |",
        "| disks | skipped: mounting a tmpfs needs root | 0 | 0 |",
    ]
    (example,) = faults.examples(outcomes, seed=7)
    assert "no answer within 75 s" in example
    assert "python benchmarks/faults.py videos --seed 7 --trial 1" in example
    assert len(faults.examples(outcomes, seed=7, every=True)) == 2


def test_a_text_setting_must_be_literal():
    with pytest.raises(Failure, match="is read as"):
        require(False, "a is read as b")
    lists.literal_or_refused("data.root", "/data/k400")
