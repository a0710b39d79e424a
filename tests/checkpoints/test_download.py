"""Downloads, against real servers on this machine."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tubelet.checkpoints import download
from tubelet.checkpoints.catalogue import published_checkpoint
from tubelet.checkpoints.download import cache_folder, fetch, fetch_published
from tubelet.checkpoints.hub import fetch_hub
from tubelet.checkpoints.load import load_model
from tubelet.errors import UserError

CONTENT = bytes(range(256)) * 40
MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server has and how it misbehaves; what was requested."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    modified: str | None = None
    kind: str = "application/octet-stream"
    ranges: bool = True
    if_range: bool = True  # False: the server ignores If-Range
    chunked: bool = False
    statuses: list[int] = field(default_factory=list)  # statuses of the next answers, without the file
    break_after: list[int] = field(default_factory=list)  # bytes sent in the next answers, then closed
    hold: threading.Event | None = None  # waited for before the body
    shift: int = 0  # bytes by which a partial answer begins too late
    slow: bool = False  # send byte by byte
    location: str = ""  # where the next request is redirected to
    asked: list[str | None] = field(default_factory=list)  # the Range of each request
    sent: int = 0
    url: str = ""

    def at(self, path: str) -> str:
        return f"{self.url}/{path}"


class FileHandler(BaseHTTPRequestHandler):
    """Serves one file under every path."""

    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        site = self.site
        asked = self.headers.get("Range")
        site.asked.append(asked)
        if site.location:
            self.send_response(302)
            self.send_header("Location", site.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            site.location = ""
            return
        if site.statuses:
            self.answer(site.statuses.pop(0), b"")
            return
        start = 0
        same = self.headers.get("If-Range") in (site.etag, site.modified) or not site.if_range
        if asked and site.ranges and same:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(site.content):
                self.answer(416, b"")
                return
        self.answer(206 if start else 200, site.content, start + site.shift if start else 0)

    def answer(self, status: int, content: bytes, start: int = 0) -> None:
        site, body = self.site, content[start:]
        self.send_response(status)
        if content:
            self.send_header("Content-Type", site.kind)
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.modified:
            self.send_header("Last-Modified", site.modified)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if site.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if content and site.hold:
            site.hold.wait(3600)
        broken = bool(content and site.break_after)
        if broken:
            body = body[: site.break_after.pop(0)]
            self.close_connection = True
        site.sent += len(body)
        if site.slow:
            body = body[:3]
            self.close_connection = True
        if site.chunked:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body) if body else b"")
            if not broken:
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(body)


class EndlessHandler(BaseHTTPRequestHandler):
    """Answers with the same bytes again and again, until the client is gone."""

    start = endless = b""

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        self.wfile.write(self.start)
        with suppress(OSError):
            for _ in range(6000):  # a client that has given up may keep the connection
                self.wfile.write(self.endless)
                time.sleep(0.02)


def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_CACHE", str(tmp_path / "cache"))
    for name in ("TUBELET_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    for url in serve(type("Handler", (FileHandler,), {"site": site})):
        site.url = url
        yield site


@pytest.fixture
def nowhere() -> str:
    """The address of a server that was closed."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_address[1]}"


def kept() -> list[str]:
    """The files of the cache, without its locks."""
    return sorted(path.name for path in cache_folder().iterdir() if path.suffix != ".lock")


def stop(site: Site, url: str, *sizes: int) -> None:
    """Break the connection until the user must call again; `sizes` bytes of each answer arrive."""
    site.break_after = [*sizes, *[0] * (4 - len(sizes))]
    with pytest.raises(UserError, match=r"stopped after \d+ bytes"):
        fetch(url)
    site.asked.clear()
    site.sent = 0


# The cache


def test_a_file_is_requested_once(site: Site):
    path = fetch(site.at("a/model.pth"), md5_prefix=MD5[:6], sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert path.parent == cache_folder()
    assert path.name.startswith("model-")
    assert path.suffix == ".pth"
    assert fetch(site.at("a/model.pth"), md5_prefix=MD5[:6]) == path
    assert site.asked == [None]
    assert kept() == [path.name]


def test_files_of_the_same_name_are_kept_apart(site: Site):
    first = fetch(site.at("a/model.pth"))
    site.content = b"another"
    second = fetch(site.at("b/model.pth"))
    third = fetch(site.at("b/model.pth?version=2"))
    assert len({first, second, third}) == 3
    assert first.read_bytes() == CONTENT
    assert second.read_bytes() == b"another"


@pytest.mark.parametrize("path", ["", "a%2F..%2Fb.pth", "a%20b.pth", "x" * 300 + ".pth", "..", "a.tar.gz"])
def test_every_address_has_a_safe_name(site: Site, path: str):
    kept = fetch(site.at(path))
    assert kept.parent == cache_folder()
    assert len(kept.name) < 200


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("TUBELET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tubelet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tubelet"


@pytest.mark.parametrize("name", ["TUBELET_OFFLINE", "HF_HUB_OFFLINE"])
def test_without_a_network_only_the_cache_is_used(site: Site, monkeypatch: pytest.MonkeyPatch, name: str):
    path = fetch(site.at("x.pth"))
    monkeypatch.setenv(name, "1")
    assert fetch(site.at("x.pth")) == path
    with pytest.raises(UserError, match=r"y.pth is not in .*cache.* unset TUBELET_OFFLINE"):
        fetch(site.at("y.pth"))
    assert len(site.asked) == 1


def test_progress_is_reported(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "RECEIVED_BYTES", 4096)
    reported: list[tuple[int, int]] = []
    fetch(site.at("x.pth"), progress=lambda done, total: reported.append((done, total)))
    sizes = [done for done, _ in reported]
    assert sizes == sorted(set(sizes))
    assert max(b - a for a, b in zip([0, *sizes], sizes, strict=False)) <= 4096
    assert reported[-1] == (10240, 10240)
    reported.clear()
    site.chunked = True  # no size is known
    fetch(site.at("y.pth"), progress=lambda done, total: reported.append((done, total)))
    assert reported[-1] == (10240, 0)


# Interruptions


def test_a_broken_connection_is_resumed_in_the_same_call(site: Site):
    site.break_after = [1000, 2000]
    assert fetch(site.at("x.pth"), sha256=SHA256).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=1000-", "bytes=3000-"]
    assert site.sent == len(CONTENT)


@pytest.mark.parametrize(
    ("etag", "modified"),
    [('"one"', None), (None, "Wed, 21 Oct 2015 07:28:00 GMT"), ('W/"1"', "Wed, 21 Oct 2015 07:28:00 GMT")],
)
def test_a_later_call_resumes_where_the_last_one_stopped(site: Site, etag: str | None, modified: str | None):
    site.etag, site.modified = etag, modified
    stop(site, site.at("x.pth"), 4000)
    assert len(kept()) == 2
    reported: list[tuple[int, int]] = []
    path = fetch(site.at("x.pth"), sha256=SHA256, progress=lambda done, total: reported.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert site.asked == ["bytes=4000-"]
    assert site.sent == len(CONTENT) - 4000
    assert reported == [(10240, 10240)]
    assert kept() == [path.name]


def test_a_server_without_ranges_sends_the_file_from_the_start(site: Site):
    stop(site, site.at("x.pth"), 4000)
    site.ranges = False
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT
    assert site.asked == ["bytes=4000-"]
    assert site.sent == len(CONTENT)


def test_without_a_way_to_detect_changes_it_starts_again(site: Site):
    site.etag = None
    stop(site, site.at("x.pth"), 4000)
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT
    assert site.asked == [None]


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("size", [len(CONTENT), 6000, 4000, 3000])
def test_a_file_that_has_changed_is_downloaded_from_the_start(site: Site, size: int, if_range: bool):
    stop(site, site.at("x.pth"), 4000)
    site.content, site.etag, site.if_range = CONTENT[::-1][:size], '"two"', if_range
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT[::-1][:size]
    assert site.asked[0] == "bytes=4000-"
    assert len(site.asked) == (1 if if_range else 2)


def test_another_size_under_the_same_tag_is_a_change(site: Site):
    stop(site, site.at("x.pth"), 4000)
    site.content = CONTENT + b"more"
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT + b"more"
    assert site.asked == ["bytes=4000-", None]


@pytest.mark.parametrize("notes", ["", "{", "[]", '{"unknown": 1}', "3", None])
def test_a_partial_file_of_unknown_origin_is_not_used(site: Site, notes: str | None):
    stop(site, site.at("x.pth"), 4000)
    path = next(cache_folder().glob("*.json"))
    path.unlink() if notes is None else path.write_text(notes)
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT
    assert site.asked == [None]


def test_a_complete_partial_file_is_not_requested_again(site: Site):
    stop(site, site.at("x.pth"), 4000)
    next(cache_folder().glob("*.part")).write_bytes(CONTENT)
    assert fetch(site.at("x.pth"), sha256=SHA256).read_bytes() == CONTENT
    assert site.asked == []


def test_a_broken_chunked_answer_is_detected(site: Site):
    site.chunked, site.break_after = True, [4000]
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT
    assert site.asked == [None, None]


def test_a_busy_server_is_tried_again(site: Site):
    site.statuses = [503, 429, 500]
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT
    site.statuses = [503] * 9
    with pytest.raises(UserError, match=r"y.pth stopped after 0 bytes \(.*503"):
        fetch(site.at("y.pth"))
    assert len(site.asked) == 8


@pytest.mark.slow
def test_one_of_several_processes_downloads_it(site: Site):
    site.hold = threading.Event()
    fetch = f"fetch({site.at('x.pth')!r}, sha256={SHA256!r})"
    code = f"from tubelet.checkpoints.download import fetch; print(flush=True); print({fetch})"
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for run in runs:
        assert run.stdout
        run.stdout.readline()
    while not site.asked:
        time.sleep(0.05)
    site.hold.set()
    paths = {run.communicate(timeout=3600)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert site.asked == [None]
    assert {path.rpartition("/")[2] for path in paths} == set(kept())


@pytest.mark.parametrize("first", [3000, 1])
def test_a_server_that_sends_other_ranges_is_not_asked_for_ever(
    site: Site, monkeypatch: pytest.MonkeyPatch, first: int
):
    """Each whole answer breaks, and each partial answer is of another range."""
    monkeypatch.setattr(download, "MIN_BYTES", 1000)
    monkeypatch.setattr(site, "shift", 7)
    site.break_after = [first] * 99
    with pytest.raises(UserError, match=r"x\.pth stopped after \d+ bytes"):
        fetch(site.at("x.pth"))
    assert len(site.asked) < 12


def test_attempts_that_receive_next_to_nothing_are_failures(site: Site):
    site.break_after = [1] * 99
    with pytest.raises(UserError, match=r"stopped after 4 bytes"):
        fetch(site.at("x.pth"))


def test_a_trickle_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "WINDOW_S", 0.0)
    site.slow = True
    with pytest.raises(UserError, match=r"x\.pth stopped after \d+ bytes \(only \d+ bytes came in"):
        fetch(site.at("x.pth"))
    site.slow = False
    monkeypatch.setattr(download, "WINDOW_S", 60.0)
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT


@pytest.mark.slow
def test_a_server_that_never_comes_to_the_file_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "ANSWER_S", 0.5)
    monkeypatch.setattr(download, "WINDOW_S", 0.5)
    ok, chunked = b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
    for start, endless in (
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (ok + b"X-Name: ", b"x"),
        (ok + chunked, b"0"),  # a chunk's size
        (ok + chunked + b"1;", b"x"),
        (ok + chunked + b"1\r\na\r\n", b"0"),
        (ok + chunked + b"0\r\n", b"x: y\r\n"),  # lines behind the last chunk
    ):
        for url in serve(type("Handler", (EndlessHandler,), {"start": start, "endless": endless})):
            with pytest.raises(UserError, match=r"cannot reach|stopped after \d bytes"):
                fetch(f"{url}/x.pth")


@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_without_end_has_a_limit(site: Site, monkeypatch: pytest.MonkeyPatch, chunked: bool):
    monkeypatch.setattr(download, "MAX_BYTES", 5000)
    site.chunked = chunked
    with pytest.raises(UserError, match=r"x\.pth .*(more than 5,000 bytes|more than any checkpoint)"):
        fetch(site.at("x.pth"))
    assert kept() == []


@pytest.mark.parametrize("chunked", [True, False])
def test_an_empty_answer_is_not_kept(site: Site, chunked: bool):
    site.content, site.chunked = b"", chunked
    with pytest.raises(UserError, match=r"x\.pth stopped after 0 bytes \(the server sent an empty file\)"):
        fetch(site.at("x.pth"))
    assert kept() == []
    site.content = CONTENT
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT


def test_an_empty_file_in_the_cache_is_downloaded_again(site: Site):
    fetch(site.at("x.pth")).write_bytes(b"")
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x.pth", "file:///etc/passwd", "data:,x"])
def test_a_redirect_to_something_else_than_the_web_is_refused(site: Site, target: str):
    site.location = target
    with pytest.raises(UserError, match=rf"x\.pth \(302.*{target}"):
        fetch(site.at("x.pth"))
    assert len(site.asked) == 1


def test_a_redirect_on_the_web_is_followed(site: Site):
    site.location = site.at("y.pth")
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT


def test_another_size_than_the_published_one_is_refused(site: Site):
    with pytest.raises(UserError, match=r"expected 10,241 bytes, found 10,240"):
        fetch(site.at("x.pth"), size=len(CONTENT) + 1)
    assert kept() == []
    assert fetch(site.at("x.pth"), size=len(CONTENT)).read_bytes() == CONTENT


# What cannot be downloaded


@pytest.mark.parametrize("known", [{"md5_prefix": "000000"}, {"sha256": "0" * 64}])
def test_other_contents_are_not_kept(site: Site, known: dict[str, str]):
    kind, dots = ("md5", r"\.\.\.") if "md5_prefix" in known else ("sha256", "")
    found = MD5 if kind == "md5" else SHA256
    with pytest.raises(UserError, match=rf"x-\w+\.pth from http.*expected {kind} 0+{dots}, found {found}"):
        fetch(site.at("x.pth"), **known)  # type: ignore[arg-type]
    assert kept() == []
    assert fetch(site.at("x.pth"), md5_prefix=MD5.upper()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"http.*x\.pth \(404"),
        (410, r"http.*x\.pth \(410"),
        (403, r"http.*x\.pth \(403"),
    ],
)
def test_a_refusal_says_what_to_do(site: Site, status: int, message: str):
    site.statuses = [status]
    with pytest.raises(UserError, match=f"{message}.*give its path"):
        fetch(site.at("x.pth"))
    assert len(site.asked) == 1


def test_a_web_page_is_not_mistaken_for_the_file(site: Site):
    site.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match=r"x\.pth .*web page"):
        fetch(site.at("x.pth"))
    assert fetch(site.at("page.html")).read_bytes() == CONTENT


def test_without_a_network_the_address_is_named(nowhere: str):
    with pytest.raises(UserError, match=rf"cannot reach {nowhere}/x.pth \(.*refused\): .*give its path"):
        fetch(f"{nowhere}/x.pth")


@pytest.mark.parametrize("url", ["model.pth", "file:///etc/passwd", "https://", "ftp://a/b", "http://a b/c"])
def test_only_web_addresses_are_allowed(url: str):
    with pytest.raises(UserError, match="not a web address"):
        fetch(url)


def test_a_full_disk_is_reported(site: Site, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
        with pytest.raises(UserError, match=r"disk of .*cache is full.* TUBELET_CACHE"):
            fetch(site.at("x.pth"))
    assert fetch(site.at("x.pth")).read_bytes() == CONTENT


def test_a_disk_that_fills_up_is_reported(site: Site, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"disk of .* is full"):
        fetch(site.at("x.pth"))


def test_a_cache_that_cannot_be_written_is_reported(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUBELET_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot write to .*file/cache \(.*\): set TUBELET_CACHE"):
        fetch(site.at("x.pth"))


# Published checkpoints

ROW = replace(published_checkpoint("mae_st_large_k400"), md5_prefix=MD5[:6], mirror=None)


def test_a_published_file_is_fetched_and_verified(site: Site):
    row = replace(ROW, url=site.at("x.pth"))
    assert fetch_published(row).read_bytes() == CONTENT
    with pytest.raises(UserError, match="expected md5 edf3a5"):
        fetch_published(replace(row, url=site.at("y.pth"), md5_prefix="edf3a5"))


def test_the_mirror_serves_where_the_first_address_does_not(site: Site, nowhere: str):
    row = replace(ROW, url=f"{nowhere}/x.pth", mirror=site.at("x.pth"))
    assert fetch_published(row).read_bytes() == CONTENT
    with pytest.raises(UserError, match=f"cannot reach {nowhere}/x.pth"):
        fetch_published(replace(ROW, url=f"{nowhere}/x.pth", mirror=f"{nowhere}/y.pth"))


def test_what_must_be_downloaded_by_hand_says_so():
    with pytest.raises(UserError, match=r"videomae_base_k400.*Google Drive.*by hand"):
        fetch_published(published_checkpoint("videomae_base_k400"))


# The hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG, WEIGHTS = b'{"model_type": "videomae"}', b"weights"


@dataclass
class FakeHub:
    """Repositories of a hub, and what was requested."""

    repos: dict[str, dict[str, bytes]]
    gated: str = "owner/gated"
    status: int = 0  # if not 0, the status of all answers
    asked: list[str] = field(default_factory=list)


class HubHandler(BaseHTTPRequestHandler):
    """The part of the hub that downloads need."""

    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if self.hub.status:
            self.answer(self.hub.status)
        elif parts[:2] == ["api", "models"]:
            self.api("/".join(parts[2:4]), parts[4], parts[5])
        elif len(parts) > 4 and parts[2] == "resolve":
            self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.answer(404)

    def api(self, repo: str, what: str, revision: str) -> None:
        if repo not in self.hub.repos:
            self.answer(401, error="RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.answer(404, error="RevisionNotFound")
        else:
            files = self.hub.repos[repo]
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for name, body in files.items()
            ]
            info: dict[str, Any] = {"id": repo, "modelId": repo, "sha": COMMIT, "private": False, "tags": []}
            info["siblings"] = [{"rfilename": name} for name in files]
            self.answer(200, json.dumps(tree if what == "tree" else info).encode())

    def file(self, repo: str, revision: str, name: str) -> None:
        if repo not in self.hub.repos:
            self.answer(401, error="RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.answer(404, error="RevisionNotFound")
        elif repo == self.hub.gated:
            self.answer(403, error="GatedRepo")
        elif name not in self.hub.repos[repo]:
            self.answer(404, error="EntryNotFound")
        else:
            self.answer(200, self.hub.repos[repo][name])

    def answer(self, status: int, body: bytes = b"", error: str = "") -> None:
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        else:
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    hub = FakeHub(
        {
            "owner/both": {
                "README.md": b"hello",
                "config.json": CONFIG,
                "preprocessor_config.json": b"{}",
                "video_preprocessor_config.json": b"{}",
                "model.safetensors": WEIGHTS,
                "pytorch_model.bin": b"old",
            },
            "owner/old": {"config.json": CONFIG, "pytorch_model.bin": b"old"},
            "owner/none": {"config.json": CONFIG, "tf_model.h5": b""},
            "owner/files": {"distill/small.pth": WEIGHTS},
            "owner/adapter": {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS},
            "owner/gated": {"config.json": CONFIG, "model.safetensors": WEIGHTS},
        }
    )
    for url in serve(type("Handler", (HubHandler,), {"hub": hub})):
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield hub


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_a_model_comes_from_the_hub_without_what_is_not_needed(hub: FakeHub):
    folder = fetch_hub("owner/both")
    settings = ["preprocessor_config.json", "video_preprocessor_config.json"]
    assert names(folder) == ["config.json", "model.safetensors", *settings]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert fetch_hub("owner/both") == folder


@pytest.mark.slow
def test_pickled_weights_only_without_safetensors(hub: FakeHub):
    assert names(fetch_hub("owner/old")) == ["config.json", "pytorch_model.bin"]
    with pytest.raises(UserError, match=r"owner/none.*expected model.safetensors or .*found config"):
        fetch_hub("owner/none")


def test_an_adapter_of_the_hub_is_named(hub: FakeHub):
    with pytest.raises(UserError, match="PEFT adapter"):
        load_model("owner/adapter")


def test_one_file_of_the_hub(hub: FakeHub):
    path = fetch_hub("owner/files", file="distill/small.pth")
    assert path.read_bytes() == WEIGHTS
    row = replace(ROW, url=None, hub="owner/files", hub_file="distill/small.pth", md5_prefix=None)
    assert fetch_published(row) == path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TUBELET_OFFLINE", "HF_HUB_OFFLINE"])
def test_without_a_network_only_the_hubs_cache_is_used(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, name: str
):
    folder, old = fetch_hub("owner/both"), fetch_hub("owner/old")
    file = fetch_hub("owner/files", file="distill/small.pth")
    hub.asked.clear()
    monkeypatch.setenv(name, "1")
    assert fetch_hub("owner/both") == folder
    assert fetch_hub("owner/old") == old
    assert fetch_hub("owner/files", file="distill/small.pth") == file
    for call in ({"repo": "owner/none"}, {"repo": "owner/files", "file": "x.pth"}, {"repo": "owner/files"}):
        with pytest.raises(UserError, match=r"owner/\w+.* unset TUBELET_OFFLINE"):
            fetch_hub(**call)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"repo": "owner/nothing"}, "owner/nothing: .* log in with"),
        ({"repo": "owner/nothing", "file": "x.pth"}, "the hub has no owner/nothing"),
        ({"repo": "owner/gated"}, "owner/gated is gated: .*huggingface.co/owner/gated"),
        ({"repo": "owner/gated", "file": "config.json"}, "config.json of owner/gated is gated"),
        ({"repo": "owner/both", "file": "x.pth"}, "owner/both has no file 'x.pth': .*tree/main lists"),
        ({"repo": "a/b/c"}, "'a/b/c'.* expected owner/name"),
    ],
)
def test_what_the_hub_refuses_is_reported(hub: FakeHub, call: dict[str, str], message: str):
    with pytest.raises(UserError, match=message):
        fetch_hub(**call)


def test_a_hub_that_cannot_be_reached_is_reported_unless_the_cache_has_the_model(
    hub: FakeHub, nowhere: str, monkeypatch: pytest.MonkeyPatch
):
    folder = fetch_hub("owner/both")
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    assert fetch_hub("owner/both") == folder
    with pytest.raises(UserError, match=r"owner/old \(.*\): connect to the network"):
        fetch_hub("owner/old")


def test_a_hub_that_is_down_is_reported(hub: FakeHub):
    hub.status = 501
    with pytest.raises(UserError, match=r"owner/old \(.*501"):
        fetch_hub("owner/old")


@pytest.mark.slow
def test_the_hub_needs_no_settings_before_it_is_imported(hub: FakeHub, tmp_path: Path):
    code = "from tubelet.checkpoints.hub import fetch_hub; print(fetch_hub('owner/both'))"
    env = os.environ | {"HF_HUB_CACHE": str(tmp_path / "fresh"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert names(Path(run.stdout.strip()))[1] == "model.safetensors"
