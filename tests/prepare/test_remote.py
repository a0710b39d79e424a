"""Remote videos: in a store that lists its files, and on a web server that does not."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.prepare.commands import Prepare, assert_trains, listed
from tests.prepare.files import cut, small, write_audio
from tests.videos import decode_all, write_video
from tests.web_server import Server
from tubelet.data.manifest import read_manifest
from tubelet.video import remote


@pytest.fixture
def memory() -> Iterator[ModuleType]:
    """fsspec's store in memory, empty before and after."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def put(store, folder: Path, where: str) -> None:
    """Copy a folder into a store."""
    for path in folder.rglob("*"):
        if path.is_file():
            store.pipe(f"{where}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Twelve videos in two class folders, among files that are not videos."""
    for k in range(12):
        small(tmp_path / "v" / ("riding a bike", "go")[k % 2] / f"{k}, {k} #x?.mp4", seed=k)
    (tmp_path / "v" / "go" / "empty.mp4").touch()
    (tmp_path / "v" / "notes.txt").write_text("milk")
    cut(tmp_path / "v" / "go" / "cut.mp4", tmp_path / "v" / "go" / "1, 1 #x?.mp4")
    write_audio(tmp_path / "v" / "go" / "sound.mp4")
    return tmp_path / "v"


def samples(out: Path) -> list[tuple[str, str, int | None]]:
    return [
        (split, sample.path, sample.frames)
        for split in ("train", "val", "test")
        if (out / f"{split}.csv").exists()
        for sample in read_manifest(out, split).samples
    ]


# ------------------------------------------------------------------------------------- a store that lists


def test_a_remote_folder_is_prepared_like_a_local_one(
    prepare: Prepare, tmp_path: Path, classes: Path, memory
):
    put(memory, classes, "/bucket/phone")
    assert prepare("folder", "v", "--out", "here")[0] == 0
    code, out, err = prepare("folder", "memory://bucket/phone/", "--out", "there", "--preview")
    assert (code, err.strip()) == (0, "")
    assert samples(tmp_path / "there") == [
        (split, path.replace(str(classes), "memory://bucket/phone"), frames)
        for split, path, frames in samples(tmp_path / "here")
    ]
    assert listed(tmp_path / "there") == listed(tmp_path / "here")
    report = (tmp_path / "there" / "report.txt").read_text()
    assert report == (tmp_path / "here" / "report.txt").read_text()
    assert "go/empty.mp4: the file is empty" in report
    assert "go/sound.mp4: no video in this file" in out
    assert (tmp_path / "there" / "preview.png").exists()
    assert_trains(read_manifest(tmp_path / "there", "train"))


@pytest.mark.slow
def test_a_remote_folder_is_encoded_to_local_files(prepare: Prepare, tmp_path: Path, classes: Path, memory):
    put(memory, classes, "/bucket/phone")
    assert prepare("folder", "v", "--out", "here", "--encode", "--short-side", 16)[0] == 0
    words = ["--encode", "--short-side", 16, "--preview"]
    assert prepare("folder", "memory://bucket/phone", "--out", "there", *words)[0] == 0
    assert samples(tmp_path / "there") == samples(tmp_path / "here")
    for _, path, _ in samples(tmp_path / "here"):
        there, here = (decode_all(tmp_path / out / path).astype(int) for out in ("there", "here"))
        assert np.abs(there - here).mean() < 8  # x264 varies with the memory beyond so small a picture
    assert (tmp_path / "there" / "preview.png").exists()


@pytest.mark.slow
def test_finished_work_on_remote_files_is_not_repeated(
    prepare: Prepare, classes: Path, memory, monkeypatch: pytest.MonkeyPatch
):
    put(memory, classes, "/bucket/phone")
    words = ["folder", "memory://bucket/phone", "--out", "there", "--encode", "--short-side", 16]
    first = prepare(*words)
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "open", None)  # nothing is opened
        assert prepare(*words) == first
        assert prepare(*words) == first
    changed = memory.cat_file("/bucket/phone/go/3, 3 #x?.mp4")
    memory.pipe("/bucket/phone/go/1, 1 #x?.mp4", changed)
    assert "go/1, 1 #x?.mp4 = go/3, 3 #x?.mp4" in prepare(*words)[1]


def test_a_list_may_be_relative_to_a_remote_folder(
    prepare: Prepare, tmp_path: Path, classes: Path, memory, monkeypatch: pytest.MonkeyPatch
):
    put(memory, classes, "/bucket/phone")
    (tmp_path / "train.txt").write_text("riding a bike/0, 0 #x?.mp4 1\n./go/1, 1 #x?.mp4 0\ngo/gone.mp4 0\n")
    (tmp_path / "val.txt").write_text("go/3, 3 #x? 0\nriding a bike/2, 2 #x?.mp4 1\n")
    (tmp_path / "classes.txt").write_text("go\nriding a bike\n")
    asked: list[str] = []
    monkeypatch.setattr(type(memory), "info", lambda self, path, **_: asked.append(path))
    words = ["list", "train.txt", "val.txt", "--root", "memory://bucket", "--out", "data"]
    code, out, _ = prepare(*words)
    assert (code, asked) == (0, [])
    assert listed(tmp_path / "data") == {
        "riding a bike/0, 0 #x?.mp4": "riding a bike",
        "go/1, 1 #x?.mp4": "go",
    }
    assert list(listed(tmp_path / "data", "val").values()) == ["go", "riding a bike"]
    assert "listed but not found: 1\n  go/gone.mp4 (train.txt:3)" in out
    assert samples(tmp_path / "data")[0][1] == "memory://bucket/phone/riding a bike/0, 0 #x?.mp4"
    assert_trains(read_manifest(tmp_path / "data", "train"))


def test_lists_may_contain_urls_of_a_store(
    prepare: Prepare, tmp_path: Path, memory, monkeypatch: pytest.MonkeyPatch
):
    for k in range(6):
        small(tmp_path / "v" / f"{k}.mp4", seed=k)
    put(memory, tmp_path / "v", "/b//x")  # an empty folder's name is a name
    lines = [f"memory://b//x/{k}.mp4 {k % 2}\n" for k in range(6)]
    (tmp_path / "train.txt").write_text("".join(lines) + "memory://b//x/gone.mp4 0\n")
    asked: list[str] = []
    info = type(memory).info

    def ask(self, path: str, **words):
        asked.append(path)
        return info(self, path, **words)

    monkeypatch.setattr(type(memory), "info", ask)
    code, out, _ = prepare("list", "train.txt", "--out", "data", "--encode", "--short-side", 16)
    assert (code, asked) == (0, ["/b//x/gone.mp4"])
    assert "listed but not found: 1\n  gone.mp4 (train.txt:7)" in out
    assert [path for _, path, _ in samples(tmp_path / "data")] == [f"videos/{k}.mp4" for k in range(6)]


def test_annotated_videos_may_be_remote(prepare: Prepare, tmp_path: Path, memory):
    small(tmp_path / "v" / "train" / "abcdefghijk_000001_000011.mp4", seed=1)
    small(tmp_path / "v" / "train" / "abcdefghijk_000030_000040.mp4", seed=2)
    put(memory, tmp_path / "v", "/k400")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split\na,abcdefghijk,1,11,train\nb,abcdefghijk,30,40,train\n"
    )
    words = ["kinetics400", "annotations", "--root", "memory://k400", "--out", "data"]
    assert prepare(*words)[0] == 0
    assert list(listed(tmp_path / "data").values()) == ["a", "b"]
    assert all(path.startswith("memory://k400/train/") for _, path, _ in samples(tmp_path / "data"))
    code, _, err = prepare("kinetics400", "memory://k400", "--out", "other")
    assert code == 2
    assert "--root memory://k400" in err


def test_remote_folders_that_cannot_be_used_are_refused(prepare: Prepare, tmp_path: Path, memory):
    code, _, err = prepare("folder", "memory://nothing/here", "--out", "data")
    assert code == 2
    assert "no files below memory://nothing/here" in err
    code, _, err = prepare("folder", "https://host/videos", "--out", "data")
    assert code == 2
    assert "a web server does not list its files" in err
    code, _, err = prepare("list", "s3://bucket/train.txt", "--out", "data")
    assert code == 2
    assert "s3://bucket/train.txt" in err
    small(tmp_path / "v" / "1.mp4")
    code, _, err = prepare("folder", "v", "--out", "s3://bucket/out")
    assert code == 2
    assert "--out" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v"]


@pytest.mark.parametrize("words", [("folder", "gs://bucket/v"), ("list", "train.txt"), ("list", "x.txt")])
def test_a_missing_package_is_an_error_before_any_work(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # cannot be imported
    small(tmp_path / "here.mp4")
    (tmp_path / "train.txt").write_text("here.mp4 0\n" + "gs://bucket/a.mp4 0\n" * 3)
    (tmp_path / "x.txt").write_text("a.mp4 0\n")
    root = ["--root", "gs://bucket/v"] if "x.txt" in words else []
    code, _, err = prepare(*words, *root, "--out", "data")
    assert code == 2
    assert "gs needs gcsfs: pip install 'tubelet[remote]'" in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()


# ------------------------------------------------------------------------------------------- a web server


@pytest.fixture
def web(tmp_path: Path, server: Server) -> Server:
    """A server of `web/`, and lists of its videos beside it."""
    names = ["a b/0.mp4", "a b/1.mp4", "c/0.mp4", "c/50% #1?.mp4"]
    for k, name in enumerate(names):
        small(tmp_path / "web" / name, seed=k)
    cut(tmp_path / "web" / "cut.mp4", tmp_path / "web" / names[0])
    rows = [*names, "cut.mp4", "gone.mp4", "gone too"]
    (tmp_path / "train.txt").write_text("".join(f"{name} {k % 2}\n" for k, name in enumerate(rows)))
    return server


@pytest.mark.slow
def test_a_list_may_be_relative_to_a_web_folder(prepare: Prepare, tmp_path: Path, web: Server):
    words = ["list", "train.txt", "--root", f"{web.url}/web", "--out", "data"]
    code, out, _ = prepare(*words)
    assert code == 0
    assert [path for _, path, _ in samples(tmp_path / "data")] == [
        f"{web.url}/web/{name}" for name in ("a%20b/0.mp4", "a%20b/1.mp4", "c/0.mp4", "c/50%25%20%231%3F.mp4")
    ]
    assert "listed but not found: 2\n  gone.mp4 (train.txt:6)\n  gone too.mp4 (train.txt:7)" in out
    assert "broken, left out: 1\n  cut.mp4: cannot be read as a video" in out
    assert_trains(read_manifest(tmp_path / "data", "train"))
    web.sent.clear()
    assert prepare(*words)[1] == out
    assert web.sent == []
    code, out, _ = prepare(*words, "--encode", "--short-side", 16, "--preview")
    assert code == 0
    assert {path for _, path, _ in samples(tmp_path / "data")} == {
        f"videos/{name}" for name in ("a b/0.mp4", "a b/1.mp4", "c/0.mp4", "c/50% #1?.mp4")
    }
    assert_trains(read_manifest(tmp_path / "data", "train"))
    web.sent.clear()
    assert prepare(*words, "--encode", "--short-side", 16)[0] == 0
    assert web.sent == []


def test_web_addresses_in_a_list_keep_their_queries(prepare: Prepare, tmp_path: Path, web: Server):
    shutil.copy(tmp_path / "web" / "c" / "0.mp4", tmp_path / "web" / "download")
    urls = [
        f"{web.url}/web/a%20b/0.mp4?signature=x//y%3D&expires=3",
        f"{web.url}/web/a%20b/1.mp4?signature=x//z%3D",
        f"{web.url}/web/download?id=../1",
        f"{web.url}/web/download?id=2",
    ]
    (tmp_path / "train.csv").write_text(
        "path,label\n" + "".join(f"{url},{k}\n" for k, url in enumerate(urls))
    )
    assert prepare("list", "train.csv", "--out", "data")[0] == 0
    assert [path for _, path, _ in samples(tmp_path / "data")] == urls
    code, out, _ = prepare("list", "train.csv", "--out", "data", "--encode", "--short-side", 16)
    assert code == 0
    names = [path for _, path, _ in samples(tmp_path / "data")]
    assert names[:3] == ["videos/a b/0.mp4", "videos/a b/1.mp4", "videos/download.mp4"]
    assert re.fullmatch(r"videos/download-\w{8}.mp4", names[3])
    assert "x//" not in out
    (tmp_path / "bare.txt").write_text("".join(f"{url} {k}\n" for k, url in enumerate(urls[:2])))
    assert prepare("list", "bare.txt", "--out", "again")[0] == 0
    assert [path for _, path, _ in samples(tmp_path / "again")] == urls[:2]


def test_failed_fetches_are_repeated_in_the_next_run(prepare: Prepare, tmp_path: Path, web: Server):
    web.answers |= {"/web/c/0.mp4": 503, "/web/a%20b/1.mp4": 403}
    words = ["list", "train.txt", "--root", f"{web.url}/web", "--out", "data", "--encode", "--short-side", 16]
    code, out, _ = prepare(*words)
    assert code == 0
    assert "c/0.mp4: cannot be fetched (503" in out
    assert "a b/1.mp4: cannot be fetched (403 Forbidden)" in out
    assert len(samples(tmp_path / "data")) == 2
    web.answers.clear()
    assert prepare(*words)[0] == 0
    assert len(samples(tmp_path / "data")) == 4


def test_a_wrong_web_folder_is_an_error(prepare: Prepare, tmp_path: Path, web: Server):
    code, _, err = prepare("list", "train.txt", "--root", f"{web.url}/other", "--out", "data")
    assert code == 2
    assert "none of the 7 videos can be used, such as a b/0.mp4 (train.txt:1)" in err
    assert "--root" in err
    assert prepare("list", "train.txt", "--root", f"{web.url}/web", "--out", "data")[0] == 0


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_skipped(
    prepare: Prepare, tmp_path: Path, web: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote, "_INFO_TIMEOUT_S", 0.3)
    web.answers |= {f"/silent/{k}.mp4": 0 for k in range(300)}
    (tmp_path / "all.txt").write_text("".join(f"{web.url}{name} 0\n" for name in web.answers))
    code, _, err = prepare("list", "all.txt", "--out", "data")
    assert code == 2
    assert "none of the 300 videos can be used" in err
    assert "cannot be fetched (no answer in time)" in err
    assert len(web.asked) < 100


@pytest.mark.slow
def test_a_small_part_of_a_large_web_file_is_fetched(prepare: Prepare, tmp_path: Path, server: Server):
    noise = np.random.default_rng(0).integers(0, 256, size=(20, 96, 128, 3), dtype=np.uint8)
    options = {"g": "10", "crf": "18", "preset": "ultrafast"}
    path = write_video(tmp_path / "long.mp4", noise[np.arange(600) % 20], options=options)
    assert path.stat().st_size > 5_000_000
    (tmp_path / "train.txt").write_text(f"{server.url}/long.mp4 0\n")
    assert prepare("list", "train.txt", "--out", "data")[0] == 0
    assert [frames for _, _, frames in samples(tmp_path / "data")] == [600]
    assert sum(server.sent) < path.stat().st_size / 2
    (tmp_path / "here.txt").write_text("long.mp4 0\n")
    assert prepare("list", "here.txt", "--out", "here")[0] == 0
    (sample,) = read_manifest(tmp_path / "here", "train").samples
    (same,) = read_manifest(tmp_path / "data", "train").samples
    assert (sample.fps, sample.width, sample.height, sample.codec) == (
        (same.fps, same.width, same.height, same.codec)
    )


def test_local_and_remote_copies_are_reported(prepare: Prepare, tmp_path: Path, web: Server):
    (tmp_path / "all.csv").write_text(f"path,label\nweb/c/0.mp4,run\n{web.url}/web/c/0.mp4,jump\n")
    code, out, _ = prepare("list", "all.csv", "--out", "data")
    assert code == 0
    assert re.search(r"the same content in different classes: 1\n  0.mp4 \(run\) = 0-\w{8}.mp4 \(jump\)", out)
