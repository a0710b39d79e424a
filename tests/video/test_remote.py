"""Remote files: names, listings, and videos that are read from stores and web servers."""

import json
import sys
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.videos import decode_all, index_of, moving_frames, read_frames, write_video
from tests.web_server import Server
from tubelet.video import remote, sources
from tubelet.video.reader import VideoError, open_video


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
def test_urls_are_recognized_even_after_pathlib(path: Path | str, url: str | None):
    assert remote.remote_url(path) == url


@pytest.mark.parametrize(
    ("folder", "name", "url"),
    [
        ("s3://b/v/", "a b/c#1.mp4", "s3://b/v/a b/c#1.mp4"),
        ("https://h/v", "a b/50%?.mp4", "https://h/v/a%20b/50%25%3F.mp4"),
        ("https://h/v/?sig=a//b%3D", "c.mp4", "https://h/v/c.mp4?sig=a//b%3D"),
    ],
)
def test_a_name_below_a_remote_folder_becomes_a_url(folder: str, name: str, url: str):
    assert remote.join_url(folder, name) == url


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://me:secret@h/a%20b/c.mp4?sig=x/y", "h/a b/c.mp4"),
        ("https://h/%2e%2e/../c.mp4", "h/c.mp4"),
        ("s3://b//a/50%25?.mp4", "b/a/50%25?.mp4"),
    ],
)
def test_the_path_of_a_url_has_no_escapes_and_no_query(url: str, path: str):
    assert remote.url_path(url) == path


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("fsspec")
    if any(__import__("importlib.util").util.find_spec(name) for name in ("gcsfs",)):
        pytest.skip("gcsfs is installed")
    with pytest.raises(VideoError, match=r"gs://b/a.mp4: gs needs gcsfs: pip install 'tubelet\[remote\]'"):
        read_frames("gs://b/a.mp4", [0])


def test_a_remote_file_is_read_like_a_local_one(tmp_path: Path):
    fsspec = pytest.importorskip("fsspec")
    path = write_video(tmp_path / "a.mp4", moving_frames(40), options={"g": "12", "bf": "2"})
    fsspec.filesystem("memory").pipe("/videos/a.mp4", path.read_bytes())
    frames = read_frames("memory://videos/a.mp4", [33, 5]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(frames, decode_all(path)[[33, 5]])
    assert len(index_of("memory://videos/a.mp4")) == 40
    with pytest.raises(VideoError, match=r"memory://videos/b.mp4: no such file"):
        index_of("memory://videos/b.mp4")


def test_read_ahead_is_configured_for_the_file_not_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    given: list[dict[str, object]] = []

    class Strict(MemoryFileSystem):
        """A store that refuses unknown options, as S3's."""

        protocol = "oss"

        def __init__(self) -> None:
            super().__init__()

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.removeprefix("oss:/")

        def open(self, path: str, mode: str, **options: object):
            given.append(options)
            return super().open(path, mode, **options)

    monkeypatch.setitem(sys.modules["fsspec.registry"].__dict__["_registry"], "oss", Strict)
    path = write_video(tmp_path / "a.mp4", moving_frames(8))
    Strict().pipe("/b/a.mp4", path.read_bytes())
    given.clear()
    np.testing.assert_array_equal(
        read_frames("oss://b/a.mp4", [3]).permute(0, 2, 3, 1).numpy(), decode_all(path)[[3]]
    )
    assert given == [{"block_size": 2**18, "cache_type": "readahead"}]


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


@pytest.mark.slow
def test_a_clip_of_a_long_remote_video_fetches_a_small_part_of_it(tmp_path: Path, server: Server):
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


def test_a_missing_remote_file_is_distinguished_from_one_that_cannot_be_fetched(server: Server):
    with pytest.raises(VideoError, match=r"none.mp4: no such file") as caught:
        read_frames(f"{server.url}/none.mp4", [0])
    assert not isinstance(caught.value, sources.FetchError)
    server.answers["/secret.mp4"] = 403
    with pytest.raises(sources.FetchError, match=r"secret.mp4: cannot be fetched \(403 Forbidden\)"):
        read_frames(f"{server.url}/secret.mp4", [0])
    with pytest.raises(sources.FetchError, match=r"a.mp4: cannot be fetched \(Cannot connect to host"):
        read_frames("http://127.0.0.1:1/a.mp4", [0])


def test_a_web_server_that_sends_no_parts_of_files_is_reported(tmp_path: Path, server: Server):
    noise = np.random.default_rng(0).integers(0, 256, size=(20, 128, 192, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mp4", noise, options={"crf": "1", "preset": "ultrafast"})
    assert path.stat().st_size > 2**19
    server.answers["/a.mp4"] = 200
    with pytest.raises(sources.FetchError, match=r"cannot be fetched \(.*does not send parts of files"):
        read_frames(f"{server.url}/a.mp4", [0])


def test_a_file_that_cannot_be_used_is_closed(monkeypatch: pytest.MonkeyPatch):
    class Whole(BytesIO):
        """A file of a web server that sends no parts of files."""

        size = None

    file = Whole()
    system = SimpleNamespace(open=lambda *_, **__: file)
    monkeypatch.setattr(remote, "_system_and_path", lambda url: (system, url))
    with pytest.raises(remote.RemoteError, match="does not send parts of files"):
        remote.open_remote("https://host/a.mp4", 0)
    assert file.closed


@pytest.mark.slow
def test_a_remote_file_that_stalls_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFile

    path = write_video(tmp_path / "a.mp4", moving_frames(40))
    fsspec.filesystem("memory").pipe("/videos/slow.mp4", path.read_bytes())
    read = MemoryFile.read

    reads = []

    def slowly(self: MemoryFile, size: int = -1) -> bytes:
        reads.append(size)
        time.sleep(0.2)
        return read(self, min(size, 500))

    monkeypatch.setattr(MemoryFile, "read", slowly)
    with (
        pytest.raises(VideoError, match=r"slow.mp4: not read within 0.5 s"),
        open_video("memory://videos/slow.mp4", limit=0.5) as video,
    ):
        video.read([39])
    assert len(reads) <= 3  # those that begin within 0.5 s


def test_an_invalid_address_is_not_a_file():
    for address in ("https://[::1", "http://[::1/a.mp4", "https://[x]/a.mp4", "https:///a.mp4"):
        assert remote.remote_url(address) is None
        with pytest.raises(VideoError, match="no such file") as caught, open_video(address):
            pass
        assert str(caught.value).startswith(address)
