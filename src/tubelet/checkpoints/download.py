"""Files from the web, downloaded once into a cache."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead, InvalidURL
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tubelet.checkpoints.catalogue import PublishedCheckpoint
from tubelet.checkpoints.hub import BY_HAND, GO_ONLINE, fetch_hub, is_offline
from tubelet.errors import UserError
from tubelet.files import is_disk_full, try_lock

Progress = Callable[[int, int], None]
"""Called with the bytes received and the total, or 0 if the total is unknown."""
TIMEOUT_S = 30.0
"""How long to wait for the next byte."""
PAUSES_S = (1.0, 4.0, 10.0)
"""Before each new attempt; the later ones after attempts that received next to nothing."""
ANSWER_S = 120.0
"""How long an attempt may take until the first byte of the file is to come, with all redirects."""
WINDOW_S = 60.0
MIN_BYTES = 50_000
"""In each window of a connection, and in an attempt that is not counted as a failure."""
MAX_BYTES = 1 << 36
"""Of a file; the largest published one has 4 GB."""
LOCK_POLL_S = 0.2
RECEIVED_BYTES = 1 << 20
"""At most, of a response at once."""


def cache_folder() -> Path:
    """Return the cache: `$TUBELET_CACHE`, else `tubelet` in `$XDG_CACHE_HOME` or in `~/.cache`."""
    if own := os.environ.get("TUBELET_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tubelet"


def fetch_published(published: PublishedCheckpoint, *, progress: Progress | None = None) -> Path:
    """Return the file of a published checkpoint, or the folder of a whole model from the hub.

    `progress` is called for files from the web; the hub shows its own bar.

    Raises:
        UserError: it cannot be downloaded; the message says how to get it.
    """
    if published.hub:
        return fetch_hub(published.hub, file=published.hub_file)
    errors = []
    for url in filter(None, (published.url, published.mirror)):
        try:
            return fetch(
                url,
                md5_prefix=published.md5_prefix,
                sha256=published.sha256,
                size=published.bytes,
                progress=progress,
            )
        except UserError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    raise UserError(f"{published.name} cannot be downloaded by its name: {published.by_hand}")


def fetch(
    url: str,
    *,
    md5_prefix: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return a file from the web, from the cache if it was downloaded before.

    An interrupted download is resumed, in the same call or the next, unless the file at the address has
    changed. Several processes may fetch one file: one downloads it, the others wait. The name in
    `cache_folder()` is made from the whole address.

    Args:
        url: the http(s) address.
        md5_prefix: the first digits of the file's MD5, or all of them; checked after the download.
        sha256: the file's SHA-256; checked after the download.
        size: the file's size in bytes; checked after the download.
        progress: called after each chunk.

    Raises:
        UserError: there is no network, no such file or no disk space, the server sends nothing, too slowly or
            without end, or the size or a checksum is wrong.
    """
    folder = cache_folder()
    target = folder / _file_name(url)
    if _is_cached(target):
        return target
    if is_offline():
        raise UserError(f"{url} is not in {folder} and the network is off: {GO_ONLINE}, or {BY_HAND}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{target.name}.lock").open("a") as lock:
            while not try_lock(lock):
                time.sleep(LOCK_POLL_S)
            if not _is_cached(target):
                part = _PartialFile(target)
                _download(url, part, progress)
                _verify(url, part, md5_prefix, sha256, size)
                part.complete()
    except OSError as error:
        if is_disk_full(error):
            problem = f"the disk of {folder} is full: free some space and try again to resume, or"
        else:
            problem = f"cannot write to {folder} ({error.strerror or error}):"
        raise UserError(f"{problem} set TUBELET_CACHE to another folder") from error
    return target


def _is_cached(target: Path) -> bool:
    return target.is_file() and target.stat().st_size > 0


def _file_name(url: str) -> str:
    """The address's own name with a digest of it, as many files are called `checkpoint.pth`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"'{url}' is not a web address: expected one that begins with https://")
    name = unquote(parts.path).rstrip("/").rpartition("/")[2]
    own = PurePosixPath(re.sub(r"[^\w.-]", "_", name, flags=re.A))
    digest = hashlib.sha256(url.encode()).hexdigest()[:10]
    return f"{own.stem[:100] or 'file'}-{digest}{own.suffix[:20]}"


@dataclass
class _PartialFile:
    """The bytes received so far, and beside them what the server said about this version of the file.

    A total of 0 is unknown.
    """

    target: Path
    etag: str | None = None
    modified: str | None = None
    total: int = 0

    def __post_init__(self) -> None:
        self.path = self.target.with_name(f"{self.target.name}.part")
        self.notes = self.target.with_name(f"{self.target.name}.part.json")
        with suppress(OSError, ValueError, TypeError):
            self.etag, self.modified, total = json.loads(self.notes.read_text(encoding="utf-8"))
            self.total = int(total)

    @property
    def size(self) -> int:
        """The number of bytes received."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def condition(self) -> str | None:
        """The value for `If-Range`, which does not allow weak tags."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def is_continued_by(self, response: HTTPResponse) -> bool:
        """Return whether a partial answer begins where the bytes end and is of the same version."""
        headers = response.headers
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        return (
            found is not None
            and int(found[1]) == self.size
            and found[2] in ("*", str(self.total))
            and headers.get("ETag", self.etag) == self.etag
            and headers.get("Last-Modified", self.modified) == self.modified
        )

    def restart(self, response: HTTPResponse) -> None:
        """Drop the bytes, and note the new version while there is no byte that the notes misdescribe."""
        self.path.write_bytes(b"")
        self.etag, self.modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
        self.total = response.length or 0
        self.notes.write_text(json.dumps([self.etag, self.modified, self.total]), encoding="utf-8")

    def complete(self) -> None:
        """Rename the file to the target once it is on the disk."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)
        self.notes.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the file and its notes."""
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


class _InterruptedError(Exception):
    """A download that can be tried again; `reached` says whether the server answered."""

    def __init__(self, reason: object, *, reached: bool = True) -> None:
        super().__init__(str(reason) or type(reason).__name__)
        self.reached = reached


def _download(url: str, part: _PartialFile, progress: Progress | None) -> None:
    """Fill the partial file, in more than one attempt if necessary."""
    failures, most = 0, part.size  # A file that is begun again has not grown.
    while True:
        try:
            _transfer(url, part, progress)
            return
        except _InterruptedError as error:
            failures = 0 if part.size >= most + MIN_BYTES else failures + 1
            most = max(most, part.size)
            if not error.reached and not most:
                raise UserError(
                    f"cannot reach {url} ({error}): connect to the network and try again, or {BY_HAND}"
                ) from error
            if failures > len(PAUSES_S):
                raise UserError(
                    f"the download of {url} stopped after {part.size} bytes ({error}): try again later to "
                    f"resume it, or {BY_HAND}"
                ) from error
            time.sleep(PAUSES_S[max(failures - 1, 0)])


def _transfer(url: str, part: _PartialFile, progress: Progress | None) -> None:
    """Request the missing bytes of the file and append them."""
    headers = {"User-Agent": "tubelet", "Accept-Encoding": "identity"}
    if part.condition is None or part.size > part.total:
        part.discard()
    elif part.size:
        if part.size == part.total:
            return
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.condition}
    with _network_errors(url):
        try:
            response = _open(Request(url, headers=headers))
        except HTTPError as error:
            if error.code == 416:  # The file has become shorter.
                part.discard()
            raise
    with response:
        if response.status == 200:  # the first request, a changed file, or a server without ranges
            if response.headers.get_content_type() == "text/html" and part.target.suffix != ".html":
                raise UserError(f"{url} is answered with a web page, not with the file: {BY_HAND}")
            if (response.length or 0) > MAX_BYTES:
                raise UserError(f"{url} has {response.length:,} bytes, more than any checkpoint: {BY_HAND}")
            part.restart(response)
        elif response.status != 206 or not part.is_continued_by(response):
            part.discard()
            raise _InterruptedError(f"unexpected answer {response.status} {response.reason}")
        size = part.size
        if part.total - size > shutil.disk_usage(part.path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with part.path.open("ab") as file, _Pace(response) as pace:
            while chunk := _read_chunk(url, response):
                file.write(chunk)
                file.flush()
                size += len(chunk)
                if size > (part.total or MAX_BYTES):
                    break
                pace.add(len(chunk))
                if progress is not None:
                    progress(size, part.total)
    if size > (part.total or MAX_BYTES):
        part.discard()
        raise UserError(f"{url} is answered with more than {part.total or MAX_BYTES:,} bytes: {BY_HAND}")
    if size < part.total:
        raise _InterruptedError(f"the server closed the connection, {part.total - size} bytes are missing")
    if not size:
        part.discard()
        raise _InterruptedError("the server sent an empty file")


def _open(request: Request) -> HTTPResponse:
    """Send a request and read the answer's headers, in limited time also if the server sends without end."""
    outcome: SimpleQueue[HTTPResponse | Exception] = SimpleQueue()
    given_up = threading.Event()

    def work() -> None:
        try:
            response = build_opener(_WebRedirects).open(request, timeout=TIMEOUT_S)
        except Exception as error:  # raised below
            outcome.put(error)
            return
        if given_up.is_set():
            response.close()
        outcome.put(response)

    threading.Thread(target=work, daemon=True).start()
    try:
        found = outcome.get(timeout=ANSWER_S)
    except Empty:
        raise _InterruptedError(f"no complete answer in {ANSWER_S:.0f} s") from None
    finally:
        given_up.set()
    if isinstance(found, Exception):
        raise found
    return found


class _WebRedirects(HTTPRedirectHandler):
    """Redirects to other web addresses only."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """Refuse ftp://, which urllib would follow."""
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise HTTPError(req.full_url, code, f"a redirect to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Pace:
    """Ends a connection that has become so slow that the download would not end.

    A thread watches for windows without any byte of the file, in which the server may send other things.
    """

    def __init__(self, response: HTTPResponse) -> None:
        self.begun, self.received = time.monotonic(), 0
        self._num_chunks = 0
        self._socket = socket.fromfd(response.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        self._ended = threading.Event()
        self._is_shut_down = False

    def __enter__(self) -> "_Pace":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._socket.close()
        if self._is_shut_down and (kind is None or issubclass(kind, _InterruptedError)):
            raise self._too_slow()

    def add(self, count: int) -> None:
        """Count bytes; after each window there must be enough of them."""
        self.received += count
        self._num_chunks += 1
        if time.monotonic() - self.begun >= WINDOW_S:
            if self.received < MIN_BYTES:
                raise self._too_slow()
            self.begun, self.received = time.monotonic(), 0

    def _watch(self) -> None:
        seen = 0
        while not self._ended.wait(WINDOW_S):
            if self._num_chunks == seen:
                self._is_shut_down = True
                with suppress(OSError):  # closed meanwhile
                    self._socket.shutdown(socket.SHUT_RDWR)  # which ends the reading
                return
            seen = self._num_chunks

    def _too_slow(self) -> _InterruptedError:
        return _InterruptedError(f"only {self.received} bytes came in {WINDOW_S:.0f} s")


def _read_chunk(url: str, response: HTTPResponse) -> bytes:
    with _network_errors(url):
        return response.read1(RECEIVED_BYTES)  # It waits for one packet, not for a whole chunk.


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        error.close()
        status = f"{error.code} {error.reason}"
        if error.code in (404, 410):
            raise UserError(f"there is no file at {url} ({status}): {BY_HAND}") from error
        if error.code in (408, 416, 425, 429) or error.code >= 500:
            raise _InterruptedError(f"the server answers {status}") from error
        raise UserError(f"the server refuses {url} ({status}): {BY_HAND}") from error
    except URLError as error:
        raise _InterruptedError(error.reason, reached=False) from error
    except (InvalidURL, ValueError) as error:
        raise UserError(f"'{url}' is not a web address: {error}") from error
    except IncompleteRead as error:  # Its text counts only the bytes of one chunk.
        raise _InterruptedError("the server closed the connection") from error
    except (OSError, HTTPException) as error:
        raise _InterruptedError(error) from error


def _verify(
    url: str, part: _PartialFile, md5_prefix: str | None, sha256: str | None, size: int | None
) -> None:
    if size not in (None, part.size):
        raise _other_file(url, part, f"{size:,} bytes", f"{part.size:,}")
    # Machines that forbid MD5 for security allow it for this.
    for empty, expected in ((hashlib.md5(usedforsecurity=False), md5_prefix), (hashlib.sha256(), sha256)):
        if expected is None:
            continue
        with part.path.open("rb") as file:
            digest = hashlib.file_digest(file, empty.copy)
        found = digest.hexdigest()
        if not found.startswith(expected.lower()):
            dots = "..." if len(expected) < len(found) else ""
            raise _other_file(url, part, f"{digest.name} {expected}{dots}", found)


def _other_file(url: str, part: _PartialFile, expected: str, found: str) -> UserError:
    part.discard()
    return UserError(
        f"{part.target.name} from {url} is not the published file and was removed: expected {expected}, "
        f"found {found}; try again, and if that repeats, {BY_HAND}"
    )
