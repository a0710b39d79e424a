"""Videos that are not a plain file: folders of pictures, files elsewhere, slow, hanging and broken ones."""

import json
import os
import sys
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import decode_all, index_of, moving_frames, read_crops, read_frames, write_video
from tests.prepare.files import upright, write_rotated
from tests.web_server import Server
from tubelet.video import remote, sources
from tubelet.video.crop import Box
from tubelet.video.reader import Crop, IndexChanged, VideoError, open_video


@pytest.fixture(params=["img_{:05d}.jpg", "image_000{:03d}.png", "{}.PNG"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "video"
    path.mkdir()
    for number, picture in enumerate(moving_frames(12), start=1):
        Image.fromarray(picture).save(path / request.param.format(number), quality=95, subsampling=0)
    (path / "notes.txt").write_text("not a frame")
    return path


def test_a_folder_of_pictures_is_a_video(folder: Path):
    index = index_of(folder)
    assert (len(index), index.height, index.width) == (12, 48, 64)
    frames = read_frames(folder, [11, 1, 1, 0]).permute(0, 2, 3, 1).numpy()
    error = np.abs(frames.astype(int) - moving_frames(12)[[11, 1, 1, 0]]).mean()
    assert error == 0 if any(folder.glob("*.[pP]*")) else error < 8


def test_hidden_files_beside_pictures_are_passed_over(folder: Path):
    for path in list(folder.iterdir()):
        (folder / f"._{path.name}").write_bytes(b"a resource fork")
    assert len(index_of(folder)) == 12
    assert read_frames(folder, range(12)).shape == (12, 3, 48, 64)


def test_names_of_pictures_may_hold_digits_that_are_no_numbers(tmp_path: Path):
    for name, shade in (("²1", 10), ("²2", 20), ("²10", 30)):
        Image.new("RGB", (8, 8), (shade,) * 3).save(tmp_path / f"{name}.png")
    assert read_frames(tmp_path, range(3))[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_a_folders_frames_are_cropped_like_a_videos(folder: Path):
    with open_video(folder) as video:
        assert len(video.index) == 12
        whole = video.read([4, 7])
        crops = [Crop([4, 7], Box(3, 5, 24, 32), (24, 32)), Crop([7], None, (24, 32), flip=True)]
        cut, small = video.read_crops(crops)
    assert torch.equal(cut, whole[:, :, 3:27, 5:37])
    halved = whole[1:].float().unflatten(2, (24, 2)).unflatten(4, (32, 2)).mean((3, 5)).flip(-1)
    assert (small - halved).abs().mean() < 6


@pytest.mark.parametrize("kind", ["empty", "broken", "sizes"])
def test_a_folder_that_is_no_video_is_named(tmp_path: Path, kind: str):
    path = tmp_path / "video"
    path.mkdir()
    if kind == "broken":
        (path / "1.jpg").write_bytes(b"\xff\xd8 no picture")
    if kind == "sizes":
        for k in (1, 2):
            Image.new("RGB", (8 * k, 8)).save(path / f"{k}.png")
    match = r"video.*(no images|cannot be read as an image|size changes)"
    with pytest.raises(VideoError, match=match), open_video(path) as video:
        video.read(range(len(video.index)))


def test_frames_beyond_a_folder_are_refused(folder: Path):
    with pytest.raises(VideoError, match=r"of a video of 12 frames"):
        read_frames(folder, [12])


@pytest.mark.parametrize("broken", [False, True])
def test_a_folder_whose_first_image_differs_in_size_is_read_by_the_others(tmp_path: Path, broken: bool):
    for k, size in enumerate([8, 16, 16, 24 if broken else 16]):
        Image.new("RGB", (size, 8), (k, k, k)).save(tmp_path / f"{k}.png")
    with open_video(tmp_path) as video:
        crop = Crop([1, 2, 3], None, (8, 16))
        if broken:
            with pytest.raises(VideoError, match="size changes"):
                video.read_crops([crop])
            return
        with pytest.raises(IndexChanged):
            video.read_crops([crop])
        assert (video.index.height, video.index.width) == (8, 16)
        (clip,) = video.read_crops([crop])
        assert clip[:, 0, 0, 0].tolist() == [1, 2, 3]
        assert video.read([0]).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        (Path("s3://bucket/a.mp4"), "s3://bucket/a.mp4"),
        ("gs://b/a.mp4", "gs://b/a.mp4"),
        (Path("https://host/a.mp4"), "https://host/a.mp4"),
        ("oss://b/a", "oss://b/a"),
        ("hf://datasets/a/b.mp4", "hf://datasets/a/b.mp4"),
        ("videos/s3/a.mp4", None),
        ("/data/http:/a.mp4", None),
    ],
)
def test_remote_names_are_known_even_after_pathlib(path: Path | str, url: str | None):
    assert remote.remote_url(path) == url


@pytest.mark.parametrize(
    ("folder", "name", "url"),
    [
        ("s3://b/v/", "a b/c#1.mp4", "s3://b/v/a b/c#1.mp4"),
        ("https://h/v", "a b/50%?.mp4", "https://h/v/a%20b/50%25%3F.mp4"),
        ("https://h/v/?sig=a//b%3D", "c.mp4", "https://h/v/c.mp4?sig=a//b%3D"),
    ],
)
def test_a_name_below_a_folder_elsewhere_becomes_a_url(folder: str, name: str, url: str):
    assert remote.join_url(folder, name) == url


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://me:secret@h/a%20b/c.mp4?sig=x/y", "h/a b/c.mp4"),
        ("https://h/%2e%2e/../c.mp4", "h/c.mp4"),
        ("s3://b//a/50%25?.mp4", "b/a/50%25?.mp4"),
    ],
)
def test_the_path_of_a_url_is_as_one_reads_it(url: str, path: str):
    assert remote.url_path(url) == path


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("fsspec")
    if any(__import__("importlib.util").util.find_spec(name) for name in ("gcsfs",)):
        pytest.skip("gcsfs is installed")
    with pytest.raises(VideoError, match=r"gs://b/a.mp4: gs needs gcsfs: pip install 'tubelet\[remote\]'"):
        read_frames("gs://b/a.mp4", [0])


def test_a_file_elsewhere_is_read_like_one_here(tmp_path: Path):
    fsspec = pytest.importorskip("fsspec")
    path = write_video(tmp_path / "a.mp4", moving_frames(40), options={"g": "12", "bf": "2"})
    fsspec.filesystem("memory").pipe("/videos/a.mp4", path.read_bytes())
    frames = read_frames("memory://videos/a.mp4", [33, 5]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(frames, decode_all(path)[[33, 5]])
    assert len(index_of("memory://videos/a.mp4")) == 40
    with pytest.raises(VideoError, match=r"memory://videos/b.mp4: no such file"):
        index_of("memory://videos/b.mp4")


def test_reading_ahead_is_asked_for_where_a_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    words: list[dict[str, object]] = []

    class Strict(MemoryFileSystem):
        """A store that takes no words that it does not know, as S3's."""

        protocol = "oss"

        def __init__(self) -> None:
            super().__init__()

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.removeprefix("oss:/")

        def open(self, path: str, mode: str, **options: object):
            words.append(options)
            return super().open(path, mode, **options)

    monkeypatch.setitem(sys.modules["fsspec.registry"].__dict__["_registry"], "oss", Strict)
    path = write_video(tmp_path / "a.mp4", moving_frames(8))
    Strict().pipe("/b/a.mp4", path.read_bytes())
    words.clear()
    np.testing.assert_array_equal(
        read_frames("oss://b/a.mp4", [3]).permute(0, 2, 3, 1).numpy(), decode_all(path)[[3]]
    )
    assert words == [{"block_size": 2**18, "cache_type": "readahead"}]


def test_videos_of_a_hub_are_listed_and_read(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch):
    fsspec = pytest.importorskip("fsspec")
    files, api = tmp_path / "datasets/me/set/resolve/main/run", tmp_path / "api/datasets/me/set"
    listing = api / "tree/main/run"
    for folder in (files, listing):
        folder.mkdir(parents=True)
    path = write_video(files / "a.mp4", moving_frames(40), options={"g": "12", "bf": "2"})
    entry = {"type": "file", "path": "run/a.mp4", "size": path.stat().st_size, "oid": "0"}
    (api / "index.json").write_text(json.dumps({"id": "me/set", "sha": "0"}))
    (listing / "index.json").write_text(json.dumps([entry]))
    monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": server.url, "token": False})
    url = "hf://datasets/me/set/run"
    frames = read_frames(f"{url}/a.mp4", [33, 5]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(frames, decode_all(path)[[33, 5]])
    assert list(remote.list_below(url)) == ["a.mp4"]
    with pytest.raises(VideoError, match=r"b.mp4: no such file"):
        read_frames(f"{url}/b.mp4", [0])


def test_a_clip_of_a_long_video_elsewhere_fetches_a_small_part_of_it(tmp_path: Path, server: Server):
    noise = np.random.default_rng(0).integers(0, 256, size=(20, 96, 128, 3), dtype=np.uint8)
    path = write_video(
        tmp_path / "long.mp4",
        noise[np.arange(1000) % 20],
        options={"g": "30", "crf": "18", "preset": "ultrafast"},
    )
    size = path.stat().st_size
    assert size > 8_000_000
    wanted = list(range(800, 864, 4))
    frames = read_frames(f"{server.url}/long.mp4", wanted).permute(0, 2, 3, 1).numpy()
    fetched = sum(server.sent)
    np.testing.assert_array_equal(frames, decode_all(path)[wanted])
    assert fetched < size / 3


def test_a_file_elsewhere_that_is_not_there_is_told_from_one_that_cannot_be_had(server: Server):
    with pytest.raises(VideoError, match=r"none.mp4: no such file") as caught:
        read_frames(f"{server.url}/none.mp4", [0])
    assert not isinstance(caught.value, sources.FetchError)
    server.answers["/secret.mp4"] = 403
    with pytest.raises(sources.FetchError, match=r"secret.mp4: cannot be fetched \(403 Forbidden\)"):
        read_frames(f"{server.url}/secret.mp4", [0])
    with pytest.raises(sources.FetchError, match=r"a.mp4: cannot be fetched \(Cannot connect to host"):
        read_frames("http://127.0.0.1:1/a.mp4", [0])


def test_a_web_server_that_sends_no_parts_is_told(tmp_path: Path, server: Server):
    noise = np.random.default_rng(0).integers(0, 256, size=(20, 128, 192, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mp4", noise, options={"crf": "1", "preset": "ultrafast"})
    assert path.stat().st_size > 2**19
    server.answers["/a.mp4"] = 200
    with pytest.raises(sources.FetchError, match=r"cannot be fetched \(.*does not send parts of files"):
        read_frames(f"{server.url}/a.mp4", [0])


def test_what_is_opened_and_cannot_be_used_is_closed(monkeypatch: pytest.MonkeyPatch):
    class Whole(BytesIO):
        """A file of a web server that sends no parts."""

        size = None

    file = Whole()
    system = SimpleNamespace(open=lambda *_, **__: file)
    monkeypatch.setattr(remote, "_system_and_path", lambda url: (system, url))
    with pytest.raises(remote.RemoteError, match="does not send parts of files"):
        remote.open_remote("https://host/a.mp4", 0)
    assert file.closed


def test_a_slow_file_is_given_up(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", moving_frames(20))
    with pytest.raises(VideoError, match=r"a.mp4: not read within 0 s"), open_video(path, limit=0) as video:
        video.read([19])
    with pytest.raises(VideoError, match=r"a.mp4: not read within 0 s"), open_video(path, limit=0) as video:
        video.read_crops([Crop([3], None, (8, 8))])
    with pytest.raises(VideoError, match=r"a.mp4: not read within 0 s"):  # noqa: SIM117 - raised by opening
        with open_video(path, exact=True, limit=0):
            pass


@pytest.mark.parametrize("exact", [False, True])
def test_the_time_limit_counts_from_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: bool):
    path = write_video(tmp_path / "a.mp4", moving_frames(20))
    with open_video(path, exact=exact, limit=1000) as video:
        assert video.read([3]).shape == (1, 3, 48, 64)
        later = time.monotonic() + 1001
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(VideoError, match=r"a.mp4: not read within 1000 s"):
            video.read([3])
        with pytest.raises(VideoError, match=r"a.mp4: not read within 1000 s"):
            video.read_crops([Crop([3], None, (8, 8))])


def test_a_source_that_stalls_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFile

    path = write_video(tmp_path / "a.mp4", moving_frames(40))
    fsspec.filesystem("memory").pipe("/videos/slow.mp4", path.read_bytes())
    read = MemoryFile.read

    def slowly(self: MemoryFile, size: int = -1) -> bytes:
        time.sleep(0.2)
        return read(self, min(size, 500))

    monkeypatch.setattr(MemoryFile, "read", slowly)
    start = time.monotonic()
    with (
        pytest.raises(VideoError, match=r"slow.mp4: not read within 0.5 s"),
        open_video("memory://videos/slow.mp4", limit=0.5) as video,
    ):
        video.read([39])
    assert time.monotonic() - start < 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match=r"pipe.mp4: neither a regular file nor a folder"):
        read_frames(tmp_path / "pipe.mp4", [0])


@pytest.mark.parametrize(
    "error", [IndexError("no such box"), FileNotFoundError(2, "no such weights"), av.EOFError(0, "")]
)
def test_what_is_raised_while_a_video_is_open_comes_as_it_is(tmp_path: Path, error: Exception):
    path = write_rotated(tmp_path / "a.mp4", upright(8), 90)
    with pytest.raises(type(error)) as caught, open_video(path):
        raise error
    assert caught.value is error
    with open_video(path) as video:
        assert (video.index.height, video.index.width) == (48, 64)
        with pytest.raises(IndexChanged):
            video.read_crops([Crop([0], None, (8, 8))])
        assert (video.index.height, video.index.width) == (64, 48)


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(whole)
    kind = rng.integers(4)
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, len(data) // 4))
    if kind == 0:
        return bytes(data[:start])
    if kind == 1:
        data[start : start + length] = bytes(len(data[start : start + length]))
    elif kind == 2:
        data[start : start + length] = rng.bytes(len(data[start : start + length]))
    else:
        for place in rng.integers(len(data), size=20):
            data[place] ^= 1 << rng.integers(8)
    return bytes(data)


def last_and_middle(path: Path) -> list[torch.Tensor]:
    with open_video(path, limit=20) as video:
        for _ in range(3):
            length = len(video.index)
            try:
                return video.read_crops([Crop([length - 1, length // 2], None, (16, 16))])
            except IndexChanged:
                continue
    raise AssertionError("the index changed thrice")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.ts", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.webm", "libvpx-vp9"),
    ],
)
def test_of_a_broken_file_there_are_frames_or_a_message(tmp_path: Path, name: str, codec: str):
    options = {"g": "8"} | ({"deadline": "realtime", "cpu-used": "8"} if "vpx" in codec else {"bf": "2"})
    whole = write_video(tmp_path / name, moving_frames(24), codec=codec, options=options).read_bytes()
    path = tmp_path / f"broken-{name}"
    rng = np.random.default_rng(len(name))
    outcomes = {"frames": 0, "message": 0}
    for _ in range(60):
        path.write_bytes(damaged(whole, rng))
        try:
            clips = last_and_middle(path)
        except VideoError as error:
            outcomes["message"] += str(error).startswith(f"{path}: ")
        else:
            assert clips[0].shape == (2, 3, 16, 16)
            outcomes["frames"] += 1
    assert sum(outcomes.values()) == 60
    assert min(outcomes.values()) > 0


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells")
def test_opening_a_thousand_files_keeps_nothing(tmp_path: Path):
    good = write_video(tmp_path / "a.mp4", moving_frames(10), options={"g": "5", "bf": "2"})
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(good.read_bytes()[:-300])

    def open_many(count: int) -> None:
        for k in range(count):
            read_crops(good, [Crop([7, 2], Box(3, 3, 30, 30), (24, 24))])
            if k % 4 == 0:
                with pytest.raises(VideoError):
                    read_frames(bad, [0])

    open_many(200)
    before, handles = memory(), len(list(Path("/proc/self/fd").iterdir()))
    open_many(1000)
    assert memory() - before < 8 * 2**20
    assert len(list(Path("/proc/self/fd").iterdir())) <= handles
