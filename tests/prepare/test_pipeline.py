"""A preparation resumes, notices changes, and reports what it leaves out."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.prepare.files import small, write_growing
from tests.prepare.waiting import until
from tests.videos import index_of, moving_frames, read_frames, write_video
from tubelet.data.manifest import read_manifest
from tubelet.errors import UserError
from tubelet.prepare import pipeline
from tubelet.prepare.check import CheckResult, check_file
from tubelet.prepare.encode import EncodeJob, EncodeResult, encode_file
from tubelet.prepare.find_files import find_videos
from tubelet.prepare.pipeline import PrepareConfig
from tubelet.prepare.plan_folder import plan_folder
from tubelet.prepare.plan_lists import plan_lists
from tubelet.prepare.pool import JobFailed, run_jobs
from tubelet.prepare.preview import save_preview
from tubelet.prepare.report import PrepareReport


def prepare(
    folder: Path, out: Path, *, encode: bool = False, short_side: int = 32, preview: bool = False
) -> PrepareReport:
    config = PrepareConfig(encode=encode, short_side=short_side, preview=preview, workers=0)
    return pipeline.prepare(plan_folder(find_videos(folder, out)), out, config)


@pytest.fixture
def work_done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are checked or encoded from now on."""
    done: list[str] = []

    def check(path: str) -> CheckResult | JobFailed:
        done.append(Path(path).name)
        return check_file(path)

    def encode(job: EncodeJob) -> EncodeResult | JobFailed:
        done.append(f"encode {Path(job.source).name}")
        return encode_file(job)

    monkeypatch.setattr(pipeline, "check_file", check)
    monkeypatch.setattr(pipeline, "encode_file", encode)
    return done


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for k in range(4):
        small(tmp_path / "videos" / f"{k}.mp4", seed=k, count=4)
    return tmp_path / "videos"


def test_finished_work_is_not_repeated(videos: Path, tmp_path: Path, work_done: list[str]):
    first = prepare(videos, tmp_path / "out", encode=True)
    assert len(work_done) == 8
    assert prepare(videos, tmp_path / "out", encode=True) == first
    assert len(work_done) == 8


def test_a_changed_file_is_checked_again(videos: Path, tmp_path: Path, work_done: list[str]):
    prepare(videos, tmp_path / "out", encode=True)
    work_done.clear()
    small(videos / "2.mp4", seed=9, count=6)
    prepare(videos, tmp_path / "out", encode=True)
    assert work_done == ["2.mp4", "encode 2.mp4"]
    assert [sample.frames for sample in read_manifest(tmp_path / "out", "train").samples] == [4, 4, 6, 4]


def test_an_image_folder_changed_in_place_is_encoded_again(tmp_path: Path, work_done: list[str]):
    folder = tmp_path / "a"
    folder.mkdir()
    for number, frame in enumerate(moving_frames(4)):
        Image.fromarray(frame).save(folder / f"{number}.png")
    (tmp_path / "train.txt").write_text("a 4 0\n")
    plan = plan_lists([tmp_path / "train.txt"])
    for _ in range(2):
        pipeline.prepare(plan, tmp_path / "out", PrepareConfig(encode=True, workers=0))
        assert work_done == ["a", "encode a"]
    os.utime(folder / "1.png", ns=(0, folder.stat().st_mtime_ns + 10**9))
    pipeline.prepare(plan, tmp_path / "out", PrepareConfig(encode=True, workers=0))
    assert work_done == ["a", "encode a"] * 2


def test_missing_changed_and_differently_sized_copies_are_encoded_again(
    videos: Path, tmp_path: Path, work_done: list[str]
):
    prepare(videos, tmp_path / "out", encode=True)
    work_done.clear()
    (tmp_path / "out" / "videos" / "1.mp4").unlink()
    (tmp_path / "out" / "videos" / "3.mp4").write_bytes(b"overwritten")
    prepare(videos, tmp_path / "out", encode=True)
    assert work_done == ["encode 1.mp4", "encode 3.mp4"]
    work_done.clear()
    prepare(videos, tmp_path / "out", encode=True, short_side=16)
    assert len(work_done) == 4


def test_a_moved_folder_keeps_its_finished_work(videos: Path, tmp_path: Path, work_done: list[str]):
    prepare(videos, tmp_path / "out", encode=True)
    (tmp_path / "out").rename(tmp_path / "moved")
    work_done.clear()
    prepare(videos, tmp_path / "moved", encode=True)
    assert work_done == []


def test_the_work_of_a_cut_off_line_is_repeated(videos: Path, tmp_path: Path, work_done: list[str]):
    prepare(videos, tmp_path / "out")
    record = tmp_path / "out" / "prepare.jsonl"
    record.write_text(record.read_text()[:-40] + "")
    work_done.clear()
    for _ in range(2):
        prepare(videos, tmp_path / "out")
    assert work_done == ["3.mp4"]


@pytest.mark.slow
def test_a_killed_run_resumes(videos: Path, tmp_path: Path, work_done: list[str]):
    for k in range(4, 60):
        (videos / f"{k}.mp4").write_bytes((videos / f"{k % 4}.mp4").read_bytes())
    out = tmp_path / "out"
    options = ["--encode", "--short-side", "32", "--workers", "0"]
    words = ["prepare", "folder", str(videos), "--out", str(out), *options]
    process = subprocess.Popen([sys.executable, "-m", "tubelet", *words], start_new_session=True)
    record = out / "prepare.jsonl"
    try:
        until(lambda: record.is_file() and record.read_text().count('{"encode"') >= 3)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = [json.loads(line) for line in record.read_text().splitlines() if line.endswith("}")]
    encoded = sum("encode" in entry for entry in before)
    assert 3 <= encoded < 60
    assert not (out / "train.csv").exists()
    report = prepare(videos, out, encode=True)
    assert len(work_done) == 60 - encoded
    assert len(report.samples["train"]) == 60
    left = {path.name for path in (out / "videos").iterdir()}
    assert left == {f"{k}.mp4" for k in range(60)}


def test_a_file_that_crashed_the_decoder_is_checked_again(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(
            pipeline, "check_file", lambda x: JobFailed("crashed") if "2.mp4" in x else check_file(x)
        )
        report = prepare(videos, tmp_path / "out")
    assert report.broken == [("2.mp4", "crashed")]
    assert prepare(videos, tmp_path / "out").broken == []


def test_results_of_another_version_are_discarded(videos: Path, tmp_path: Path, work_done: list[str]):
    out = tmp_path / "out"
    prepare(videos, out, encode=True)
    first = len(work_done)
    prepare(videos, out, encode=True)
    assert len(work_done) == first
    record = out / "prepare.jsonl"
    record.write_text(record.read_text().replace('"version": ', '"version": 1'))
    report = prepare(videos, out, encode=True)
    assert len(work_done) == 2 * first
    assert report.unlisted == {}


def test_the_time_to_encode_a_video_grows_with_its_frames(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small(videos / "long.mp4", count=30)
    limits: dict[str, float] = {}

    def recorded(function: Any, jobs: Any, *, workers: int, limit_s: Any) -> Any:
        limits.update({job.source: limit_s(job) for job in jobs if isinstance(job, EncodeJob)})
        return run_jobs(function, jobs, workers=workers, limit_s=limit_s)

    monkeypatch.setattr(pipeline, "run_jobs", recorded)
    prepare(videos, tmp_path / "out", encode=True)
    assert limits[str(videos / "long.mp4")] - min(limits.values()) == 30 - 4
    assert min(limits.values()) > 60


def test_a_video_that_fails_to_encode_is_reported(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def lost(job: EncodeJob) -> EncodeResult | JobFailed:
        if "2.mp4" not in job.source:
            return encode_file(job)
        Path(job.target).with_name(".2.mp4.partial").touch()  # what a killed process leaves
        return JobFailed("took longer than 330 s")

    monkeypatch.setattr(pipeline, "encode_file", lost)
    report = prepare(videos, tmp_path / "out", encode=True)
    assert report.broken == [("2.mp4", "cannot be encoded (took longer than 330 s)")]
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_video_that_cannot_be_encoded_is_not_tried_again(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    jobs: list[EncodeJob] = []

    def encode(job: EncodeJob) -> EncodeResult | JobFailed:
        jobs.append(job)
        return EncodeResult(error="cannot be encoded (broken)") if "2.mp4" in job.source else encode_file(job)

    monkeypatch.setattr(pipeline, "encode_file", encode)
    report = prepare(videos, tmp_path / "out", encode=True)
    assert report.broken == [("2.mp4", "cannot be encoded (broken)")]
    assert len(jobs) == 4
    assert prepare(videos, tmp_path / "out", encode=True) == report
    assert len(jobs) == 4


def test_parts_of_image_folders_are_encoded_once(tmp_path: Path, work_done: list[str]):
    (tmp_path / "x").mkdir()
    for k, image in enumerate(moving_frames(8), start=1):
        Image.fromarray(image).save(tmp_path / "x" / f"img_{k:05}.jpg")
    (tmp_path / "train.txt").write_text("x 0 4 0\nx 4 4 0\n")
    plan = plan_lists([tmp_path / "train.txt"])
    for _ in range(2):
        report = pipeline.prepare(plan, tmp_path / "out", PrepareConfig(encode=True, workers=0))
        assert [sample.frames for sample in report.samples["train"]] == [4, 4]
        assert work_done == ["x", "encode x", "encode x"]


def test_a_video_whose_size_changes_can_be_encoded(videos: Path, tmp_path: Path):
    write_growing(videos / "call.ts")
    ((name, reason),) = prepare(videos, tmp_path / "plain").broken
    assert name == "call.ts"
    assert "--encode" in reason
    report = prepare(videos, tmp_path / "out", encode=True)
    assert report.broken == []
    (made,) = (sample for sample in report.samples["train"] if "call" in sample.path)
    assert (made.width, made.height, made.frames) == (42, 32, 20)
    checked = check_file(str(videos / "call.ts"))
    assert isinstance(checked, CheckResult)
    assert checked.frames == 20
    assert len(read_frames(tmp_path / "out" / made.path, range(20))) == 20


def test_copies_of_a_video_whose_size_changes_are_reported_if_it_is_used(tmp_path: Path):
    one, copy = tmp_path / "v" / "train" / "a" / "1.ts", tmp_path / "v" / "val" / "a" / "2.ts"
    for path in (one, copy):
        path.parent.mkdir(parents=True)
    copy.write_bytes(write_growing(one).read_bytes())
    small(tmp_path / "v" / "train" / "a" / "3.mp4")
    report = prepare(tmp_path / "v", tmp_path / "out", encode=True)
    assert report.duplicates == [["train/a/1.ts", "val/a/2.ts"]]
    assert report.in_two_splits == {"train/a/1.ts = val/a/2.ts": "train and val"}
    assert prepare(tmp_path / "v", tmp_path / "plain").duplicates == []


def test_the_same_content_is_reported_and_so_are_its_splits(tmp_path: Path):
    one = small(tmp_path / "v" / "train" / "a" / "1.mp4", seed=1)
    small(tmp_path / "v" / "train" / "b" / "2.mp4", seed=2)
    small(tmp_path / "v" / "val" / "b" / "3.mp4", seed=3)
    (tmp_path / "v" / "val" / "a").mkdir()
    for name in ("train/a/copy.mp4", "val/a/leak.mp4"):
        (tmp_path / "v" / name).write_bytes(one.read_bytes())
    report = prepare(tmp_path / "v", tmp_path / "out")
    assert report.duplicates == [["train/a/1.mp4", "train/a/copy.mp4", "val/a/leak.mp4"]]
    assert report.in_two_splits == {"train/a/1.mp4 = val/a/leak.mp4": "train and val"}
    assert "the same content in different splits: 1" in report.summary()
    assert [len(report.samples[split]) for split in ("train", "val")] == [3, 2]


def test_a_repeated_line_counts_once_and_is_reported(tmp_path: Path):
    small(tmp_path / "1.mp4")
    train = tmp_path / "train.txt"
    train.write_text("1.mp4 0\n1.mp4 0\n1.mp4 0\n")
    (tmp_path / "val.txt").write_text("1.mp4 0\n")
    plan = plan_lists([train, tmp_path / "val.txt"])
    report = pipeline.prepare(plan, tmp_path / "out", PrepareConfig(workers=0))
    assert [len(report.samples[split]) for split in ("train", "val")] == [1, 1]
    assert list(report.in_two_splits.values()) == ["train and val"]
    assert f"listed twice: 2\n  1.mp4 ({train}:2)\n  1.mp4 ({train}:3)" in report.summary()


def test_lists_of_other_programs_are_not_overwritten(videos: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "val.csv").write_text("precious")
    with pytest.raises(UserError, match=r"val.csv .*--out"):
        prepare(videos, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "val.csv"]
    with pytest.raises(UserError, match=r"val.csv .*--out"):
        prepare(videos, tmp_path / "out" / "val.csv")


def test_lists_that_are_empty_now_are_removed(tmp_path: Path):
    for k in range(6):
        small(tmp_path / "v" / "ab"[k % 2] / f"{k}.mp4", seed=k, count=2)
    prepare(tmp_path / "v", tmp_path / "out")
    assert (tmp_path / "out" / "val.csv").exists()
    for k in range(6):  # as many in no class folder as in one, so there are no classes
        small(tmp_path / "v" / f"loose {k}.mp4", seed=9 + k, count=2)
    prepare(tmp_path / "v", tmp_path / "out")
    assert not (tmp_path / "out" / "val.csv").exists()
    assert not (tmp_path / "out" / "classes.txt").exists()


def test_originals_are_never_overwritten(tmp_path: Path):
    small(tmp_path / "out" / "videos" / "a" / "1.mp4", seed=1, count=2)
    before = (tmp_path / "out" / "videos" / "a" / "1.mp4").read_bytes()
    with pytest.raises(UserError, match=r"1.mp4 .*--out"):
        prepare(tmp_path / "out" / "videos", tmp_path / "out", encode=True)
    assert (tmp_path / "out" / "videos" / "a" / "1.mp4").read_bytes() == before


def test_files_that_differ_only_in_their_suffix_are_both_kept(tmp_path: Path):
    small(tmp_path / "v" / "a.mp4", seed=1, count=2)
    small(tmp_path / "v" / "a.mkv", seed=2, count=2)
    small(tmp_path / "v" / "b.mkv", seed=3, count=2)
    prepare(tmp_path / "v", tmp_path / "out", encode=True)
    names = [sample.path for sample in read_manifest(tmp_path / "out", "train").samples]
    assert names == ["videos/a.mkv.mp4", "videos/a.mp4.mp4", "videos/b.mp4"]


def test_no_two_videos_are_written_to_one_file(tmp_path: Path):
    names = ["a.mp4", "a.avi", "a.avi.mp4", "A.AVI", "b.mkv", "a.avi-2.mp4"]
    for k, name in enumerate(names):
        content = moving_frames(2 + k, 32, 40, seed=k)
        codec = "mpeg4" if name.lower().endswith(".avi") else "libx264"
        write_video(tmp_path / "v" / "run" / name, content, codec=codec)
    for split, listed in {"train": names[:2], "val": names[2:5], "test": names[5:]}.items():
        (tmp_path / f"{split}.txt").write_text("".join(f"v/run/{name} 0\n" for name in listed))
    plan = plan_lists([tmp_path / f"{split}.txt" for split in ("train", "val", "test")])
    for _ in range(2):
        pipeline.prepare(plan, tmp_path / "out", PrepareConfig(encode=True, short_side=32, workers=0))
        found = {
            sample.path: sample.frames
            for split in ("train", "val", "test")
            for sample in read_manifest(tmp_path / "out", split).samples
        }
        assert len({path.casefold() for path in found}) == 6
        assert set(found.values()) == {2, 3, 4, 5, 6, 7}
        assert all(len(index_of(tmp_path / "out" / path)) == frames for path, frames in found.items())
        assert (found["videos/a.avi.mp4"], found["videos/b.mp4"]) == (4, 6)
        assert (found["videos/a.mp4.mp4"], found["videos/a.avi-2.mp4"]) == (2, 7)


def test_a_name_that_is_not_text_is_reported(videos: Path, tmp_path: Path):
    odd = os.fsencode(videos) + b"/\xdcbung.mp4"
    Path(os.fsdecode(odd)).write_bytes((videos / "1.mp4").read_bytes())
    report = prepare(videos, tmp_path / "out", encode=True)
    assert len(report.samples["train"]) == 4
    assert r"\udcdcbung.mp4: its name is not UTF-8 text; rename it" in report.summary()
    assert r"\udcdcbung.mp4" in (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")


def test_a_name_of_two_lines_is_reported_in_one(videos: Path, tmp_path: Path):
    (videos / "a\nb.mp4").touch()
    assert "  a\\nb.mp4: the file is empty\n" in prepare(videos, tmp_path / "out").text()


def test_links_in_a_circle_are_followed_once(videos: Path, tmp_path: Path):
    (videos / "up").symlink_to(videos, target_is_directory=True)
    assert len(prepare(videos, tmp_path / "out").samples["train"]) == 4


def test_a_few_videos_in_no_class_folder_are_left_out_and_named(tmp_path: Path):
    for k in range(6):
        small(tmp_path / "v" / "ab"[k % 2] / f"{k}.mp4", seed=k, count=2)
    small(tmp_path / "v" / "stray.mp4", seed=9, count=2)
    prepare(tmp_path / "v", tmp_path / "out")
    assert read_manifest(tmp_path / "out", "train").classes == ("a", "b")
    assert "stray" not in "".join(path.read_text() for path in (tmp_path / "out").glob("*.csv"))
    assert "in no class folder, left out: 1\n  stray.mp4\n" in (tmp_path / "out" / "report.txt").read_text()


def test_dangling_links_and_pipes_are_broken_and_do_not_hang(videos: Path, tmp_path: Path):
    (videos / "gone.mp4").symlink_to(videos / "none.mp4")
    (videos / "self.mp4").symlink_to(videos / "self.mp4")
    os.mkfifo(videos / "pipe.mp4")
    report = prepare(videos, tmp_path / "out")
    broken = dict(report.broken)
    assert set(broken) == {"gone.mp4", "self.mp4", "pipe.mp4"}
    assert "neither a regular file" in broken["pipe.mp4"]


def test_a_preview_of_other_lists_is_removed(videos: Path, tmp_path: Path):
    preview = tmp_path / "out" / "preview.png"
    prepare(videos, tmp_path / "out", preview=True)
    prepare(videos, tmp_path / "out")
    assert preview.exists()
    small(videos / "another.mp4", seed=7)
    prepare(videos, tmp_path / "out")
    assert not preview.exists()


def test_a_full_disk_keeps_the_earlier_report_and_preview(videos: Path, tmp_path: Path):
    resource = pytest.importorskip("resource")
    out = tmp_path / "out"
    report = prepare(videos, out, preview=True)
    before = {path: path.read_bytes() for path in out.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write in (
        lambda: report.write(out / "report.txt"),
        lambda: save_preview(read_manifest(out, "train"), out / "preview.png"),
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_copies_in_no_list_are_reported_and_kept(videos: Path, tmp_path: Path):
    prepare(videos, tmp_path / "out", encode=True)
    (videos / "2.mp4").unlink()
    report = prepare(videos, tmp_path / "out", encode=True)
    size = (tmp_path / "out" / "videos" / "2.mp4").stat().st_size
    assert report.unlisted == {"videos/2.mp4": size}
    assert "written earlier and in no list now: 1 copy, 0.0 MB, such as videos/2.mp4" in report.summary()
    assert set(prepare(videos, tmp_path / "out").unlisted) == {f"videos/{k}.mp4" for k in range(4)}
