"""Measuring how videos are read."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from tests.prepare.files import upright, write_rotated
from tests.videos import moving_frames, write_video
from tubelet.bench import measure
from tubelet.bench.measure import (
    SETTINGS,
    ClipRequest,
    bench_data,
    cpu_ms_per_request,
    find_videos,
    our_loader,
    readable_videos,
)
from tubelet.bench.report import MeasuredVideo, ReadingReport, StageTimes
from tubelet.clips import DenseClip
from tubelet.errors import UserError


def request(path: Path, *, frames: int = 4, size: int = 32, start: float = 0.4) -> ClipRequest:
    return ClipRequest(path, DenseClip(frames=frames, stride=4), size, seed=3, start=start)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ReadingReport:
    """The report of a folder with two good videos, of two codecs, a very short one and a broken one."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a" / "1.mp4", moving_frames(40), options={"g": "12"})
    write_video(folder / "b.avi", moving_frames(30, 360, 400), codec="mpeg4")
    write_video(folder / "short.mp4", moving_frames(2))
    (folder / "a" / "2.mp4").write_bytes(np.random.default_rng(0).bytes(900))
    return bench_data([folder], rounds=1, frames=4, size=32, workers=(0,))


@pytest.mark.slow
def test_a_report_has_all_times_of_the_readable_videos(report: ReadingReport):
    first, second, short = report.videos
    assert (first.codec, first.num_frames, first.width, first.height) == ("h264", 40, 64, 48)
    assert (second.codec, second.num_frames, second.width, second.height) == ("mpeg4", 30, 400, 360)
    assert (short.codec, short.num_frames) == ("h264", 2)
    assert 1 < first.frames_per_key <= 12
    assert [Path(path).name for path in report.unreadable] == ["2.mp4"]
    assert min(report.stages.open, report.stages.read, report.stages.finetune, report.stages.collate) > 0
    assert report.settings_ms.keys() == SETTINGS.keys()
    assert min(report.settings_ms.values()) > 0
    assert report.clips_per_second.keys() == {0}
    assert report.clips_per_second[0] > 0


@pytest.mark.slow
def test_a_report_is_printed_and_is_json(report: ReadingReport):
    text = report.text()
    for part in (
        "3 videos: 2 h264 and 1 mpeg4, 64 x 48 to 400 x 360, ",
        " 2 to 40 frames, ",
        "1 of 4 videos cannot be read",
        "2.mp4",
        "1 of 3 videos have fewer than the 16 frames of a clip",
        "frames of 1 of 3 videos are large, up to 400 x 360",
        "open",
        "seek and read",
        "decode",
        "convert",
        "augment",
        "collate",
        "data.repeats=4",
        "0 workers",
    ):
        assert part in text, part
    content = json.loads(report.json())
    assert content["stages"]["decode"] == report.stages.decode
    assert [video["codec"] for video in content["videos"]] == ["h264", "mpeg4", "h264"]


def test_the_round_to_warm_up_is_not_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    now = 0.0
    monkeypatch.setattr(time, "process_time", lambda: now)
    durations = iter([100.0, 3.0])  # seconds

    def load(_: ClipRequest) -> None:
        nonlocal now
        now += next(durations)

    rounds: list[tuple[int, int]] = []
    clips = [request(tmp_path / "a.mp4")]
    ms = cpu_ms_per_request({"a": load}, clips, 1, lambda done, total: rounds.append((done, total)))
    assert ms == {"a": 3000.0}
    assert rounds == [(0, 1), (1, 1)]


def test_stages_count_decoded_and_spanned_frames(tmp_path: Path):
    for name, codec, group, decoded, spanned in (
        ("a.mp4", "libx264", "1", 4, 13),
        ("b.mp4", "mpeg4", "60", 33, 33),
        ("c.avi", "mpeg4", "12", 33, 21),  # an AVI file is decoded from its first frame
    ):
        path = write_video(tmp_path / name, moving_frames(60), codec=codec, options={"g": group, "bf": "0"})
        clip = request(path, start=20 / 44)
        assert clip.frames(60) == [20, 24, 28, 32]
        (index,) = readable_videos([path], 1)[0].values()
        opening, reading, _, *counts = measure._read_stages(clip, index, rounds=1)
        assert counts == [decoded, spanned], name
        assert min(opening, reading) > 0, name


def test_clips_of_one_decoding_start_at_different_times(tmp_path: Path):
    clip = request(write_video(tmp_path / "a.mp4", moving_frames(60, 32, 32)))
    starts = [clip.frames(60, view)[0] for view in range(4)]
    assert len(set(starts)) == 4
    assert len({view.numpy().tobytes() for view in our_loader(repeats=4)(clip)}) == 4
    assert len(our_loader(repeats=2, copies=3)(clip)) == 6


@pytest.mark.slow
def test_videos_come_from_data_sets_folders_and_files(motion: Path, tmp_path: Path):
    assert len(find_videos([motion])) == 24  # of train.csv
    assert len(find_videos([motion / "videos"])) == 48
    video = motion / "videos" / "val" / "00003.mp4"
    assert find_videos([video, "s3://bucket/a.mp4"]) == [video, "s3://bucket/a.mp4"]
    assert len(readable_videos([motion], 5)[0]) == 5


@pytest.mark.slow
def test_without_a_source_the_demo_data_are_read(
    motion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data set's folder"):
        find_videos([])
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "data").symlink_to(motion)
    assert len(find_videos([])) == 24


def test_sources_without_videos_are_named(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.mp4").write_text("no video")
    for name in ("missing", "empty", "broken"):
        with pytest.raises(UserError, match=name):
            bench_data([tmp_path / name], rounds=1)


def test_advice_names_settings_and_commands():
    report = ReadingReport(
        machine="", videos=(MeasuredVideo("a.mp4", "h264", 1280, 720, 30, 300, 250),), unreadable={},
        frames=16, stride=4, size=224, decoded=110, spanned=200,
        stages=StageTimes(open=3, read=1, decode=90, convert=6, augment=0.1, finetune=120, collate=1),
        settings_ms={"data.repeats=4": 60, "data.augmented_copies=4": 30}, clips_per_second={},
    )  # fmt: skip
    text = "\n".join(report.advice())
    for part in (
        "key frame every 16 frames",
        "--encode",
        "short side of 256",
        "data.repeats=4 takes 60 ms per clip instead of 100",
        "data.augmented_copies=4 takes 30 ms per clip instead of 100",
        "randaugment.cropped=true",
    ):
        assert part in text, part


def test_a_rotated_video_is_read_by_the_size_of_its_frames(tmp_path: Path):
    path = write_rotated(tmp_path / "a.mp4", upright(40), 90)
    (clip,) = our_loader()(request(path))
    assert clip.shape == (4, 3, 32, 32)
