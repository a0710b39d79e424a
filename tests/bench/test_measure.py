"""The measurement of reading measures the same job for all, and says what it found."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import index_of, moving_frames, write_video
from tubelet.bench.made_videos import write_bench_files
from tubelet.bench.measure import OURS, VIEWS, bench_data, read_stages
from tubelet.bench.peer_loaders import Job, ours, peers
from tubelet.bench.report import Part, Report, Row, Stages, hints
from tubelet.clips import DenseClip
from tubelet.errors import UserError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def report(cache: Path) -> Report:
    return bench_data(cache=cache, files=1, rounds=1, frames=4, size=32, seconds=2.5, workers=(0,))


def test_made_files_are_like_the_data_sets(cache: Path, report: Report):
    made = write_bench_files(cache, 1, seconds=2.5)
    original, anew, webm = (index_of(paths[0]) for paths in made.values())
    assert (original.codec, original.width, original.height, len(original)) == ("h264", 340, 256, 75)
    assert (anew.codec, anew.width, anew.height, len(anew)) == ("h264", 340, 256, 75)
    assert anew.keys == (0, 16, 32, 48, 64)
    assert len(original.keys) == 1
    assert (webm.codec, webm.width, webm.height, len(webm)) == ("vp9", 427, 240, 12)


def test_made_files_are_written_once(cache: Path, report: Report):
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.*")}
    write_bench_files(cache, 1, seconds=2.5)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.*")} == before


def test_the_report_has_all_that_was_measured(report: Report):
    assert len(report.parts) == 3
    for part in report.parts:
        names = {row.name for row in part.rows}
        assert VIEWS.keys() <= names
        assert names - {OURS} >= peers()[0].keys() - {key.partition(" on ")[0] for key in report.missing}
        one = next(row for row in part.rows if row.name == OURS)
        assert one.ratio == 1
        assert one.ms == pytest.approx(part.ms)
        assert min(part.stages.open, part.stages.read, part.stages.finetune) > 0
        assert part.batches[0] > 0


def test_the_report_is_printed_and_is_json(report: Report):
    text = report.text()
    assert "kinetics-like, re-encoded" in text
    assert "clips a second and core" in text
    for stage in ("open", "seek and read", "decode", "convert", "augment", "collate"):
        assert f"{stage} " in text
    assert "whole batches with 0 workers" in text
    numbers = json.loads(report.json())
    assert [part["name"] for part in numbers["parts"]] == [part.name for part in report.parts]


def test_all_loaders_read_the_same_clip(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", moving_frames(60, 96, 128), options={"g": "12", "crf": "12"})
    job = Job(path, DenseClip(frames=4, stride=4), 64, seed=3, part=0.4)
    (mine,) = ours()(job)
    for name, load in peers()[0].items():
        clip = torch.as_tensor(load(job))
        if clip.is_floating_point():  # normalised, channels first
            mean, std = (
                torch.tensor(x)[:, None, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
            )
            clip = ((clip * std + mean) * 255).transpose(0, 1)
        assert clip.shape == mine.shape, name
        assert (clip.float() - mine.float()).abs().mean() < 12, name


@pytest.mark.parametrize(
    ("name", "codec", "group", "decoded", "spanned"),
    [("a.mp4", "libx264", "1", 4, 13), ("a.mp4", "mpeg4", "60", 33, 33), ("a.avi", "mpeg4", "12", 33, 21)],
)  # fmt: skip
def test_the_stages_are_those_of_reading(
    tmp_path: Path, name: str, codec: str, group: str, decoded: int, spanned: int
):
    path = write_video(tmp_path / name, moving_frames(60), codec=codec, options={"g": group, "bf": "0"})
    job = Job(path, DenseClip(frames=4, stride=4), 32, seed=0, part=20 / 44)
    assert job.frames(60) == [20, 24, 28, 32]
    read = read_stages(job)
    assert (read.decoded, read.spanned) == (decoded, spanned)  # of an AVI file all from its first frame on
    assert min(read.ms[:2]) > 0


def test_clips_of_one_decode_are_begun_at_other_times(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", moving_frames(60, 32, 32))
    job = Job(path, DenseClip(frames=4, stride=4), 32, seed=3, part=0.4)
    starts = [job.frames(60, view)[0] for view in range(4)]
    assert len(set(starts)) == 4
    assert len({clip.numpy().tobytes() for clip in ours(repeats=4)(job)}) == 4
    assert len(ours(repeats=2, crops=3)(job)) == 6


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "decord", None)
    found, missing = peers()
    assert not any("decord" in name for name in found)
    assert "decord" in missing["decord + PIL, as VideoMAE"]


def test_a_folder_of_the_users_is_measured_without_its_broken_files(tmp_path: Path):
    write_video(tmp_path / "a" / "1.mp4", moving_frames(40), options={"g": "12"})
    (tmp_path / "a" / "2.mp4").write_bytes(np.random.default_rng(0).bytes(900))
    report = bench_data(tmp_path, rounds=1, frames=4, size=32, workers=(0,))
    (part,) = report.parts
    assert (part.name, part.files) == (str(tmp_path), 1)
    assert part.batches.keys() == {0}


@pytest.mark.parametrize("kind", ["missing", "empty", "broken"])
def test_a_folder_without_videos_is_named(tmp_path: Path, kind: str):
    folder = tmp_path / "videos"
    if kind != "missing":
        folder.mkdir()
    if kind == "broken":
        (folder / "a.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"no folder|no videos in this folder|none of the 1 videos"):
        bench_data(folder, rounds=1)


def test_long_groups_and_large_frames_are_hinted_at():
    part = Part(
        name="mine", files=1, codec="h264", width=1280, height=720, fps=30, length=300, frames=16, stride=4,
        kilobytes=1, group=250, decoded=110, spanned=200,
        stages=Stages(open=3, read=1, decode=90, convert=6, augment=0.1, finetune=120, collate=1),
        rows=[Row(OURS, 100, 1), Row("clips", 60, 0.6, repeats=4), Row("crops", 30, 0.3, crops=4)],
    )  # fmt: skip
    text = "\n".join(hints(part, [part]))
    assert "key frame every 16 frames" in text
    assert "short side of 256" in text
    assert "data.repeats=4 makes four clips of one decode, at 60 ms each instead of 100" in text
    assert "data.crops=4 makes four crops of one clip, at 30 ms each instead of 100" in text
    assert "randaugment.cropped=true" in text
