"""Files from the web and the Hugging Face hub, downloaded once and kept."""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from tubelet.checkpoints.catalogue import Hub, Published
from tubelet.errors import UserError

if sys.platform != "win32":
    import fcntl
Progress = Callable[[int, int], None]  # bytes there, bytes in all or 0 where that is not known
TIMEOUT = 30.0  # seconds without a byte
PAUSES = (1.0, 4.0, 10.0)  # seconds before another try; the later ones where the one before got nothing
CHUNK = 1 << 20
HUB_FILES = ("config.json", "preprocessor_config.json")
HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the better first
_BY_HAND = "download the file elsewhere and give its path instead"


def cache_folder() -> Path:
    """Where downloads are kept: `$TUBELET_CACHE`, else `tubelet` in `$XDG_CACHE_HOME` or in `~/.cache`."""
    if own := os.environ.get("TUBELET_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tubelet"


def is_offline() -> bool:
    """Whether `TUBELET_OFFLINE` or `HF_HUB_OFFLINE` is set to 1, true, yes or on."""
    names = ("TUBELET_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


def fetch_published(published: Published, *, progress: Progress | None = None) -> Path:
    """Download a published checkpoint, or find it in the cache.

    Args:
        published: which.
        progress: is told how many bytes there are and how many there will be; the hub shows its own bar.

    Returns:
        The file, or the folder of a whole model from the hub.

    Raises:
        UserError: it cannot be downloaded; the message says how to get it.
    """
    source = published.source
    if source is None:
        raise UserError(f"{published.name} cannot be downloaded by its name. {published.obtainable}")
    if isinstance(source, Hub):
        return fetch_hub(source.repo, file=source.file)

    def get(url: str) -> Path:
        return fetch(url, md5_prefix=published.md5_prefix, sha256=published.sha256, progress=progress)

    try:
        return get(source.url)
    except UserError:
        if source.mirror is None:
            raise
        with suppress(UserError):  # what is wrong at the first address is what to tell
            return get(source.mirror)
        raise


def fetch(
    url: str,
    *,
    md5_prefix: str | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a file, or find it in the cache, where nothing is asked of the network.

    An interrupted download goes on where it stopped, in the same call or the next, unless the file at the
    address has changed. Several processes may ask for one file: one downloads it, the others wait.

    Args:
        url: its http(s) address.
        md5_prefix: the first digits that its MD5 must have, or all of them.
        sha256: its SHA-256, likewise. Both are looked at once, after the download.
        progress: is told how many bytes there are and how many there will be.

    Returns:
        The file, in `cache_folder()`; its name is made from the whole address.

    Raises:
        UserError: no network, no such file, no room, or not the expected contents.
    """
    kept = cache_folder()
    target = kept / _file_name(url)
    if target.is_file():
        return target
    if is_offline():
        raise UserError(
            f"{url} is not in {kept} and the network is switched off: unset TUBELET_OFFLINE and "
            f"HF_HUB_OFFLINE, or {_BY_HAND}"
        )
    part = target.with_name(f"{target.name}.part")
    with _disk(kept):
        kept.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            if target.is_file():  # another process was faster
                _remove(part)
                return target
            _download(url, part, progress)
            _verify(url, part, md5_prefix, sha256)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(target)
            _notes(part).unlink(missing_ok=True)
    return target


def fetch_hub(repo: str, *, file: str | None = None) -> Path:
    """Download a model's newest version from the Hugging Face hub into the hub's own cache, or find it there.

    Args:
        repo: its id, `owner/name`.
        file: one file inside it; None is the configuration and the weights, from `model.safetensors` or,
            where there is none, `pytorch_model.bin`.

    Returns:
        The file, or the folder with those files.

    Raises:
        UserError: it is not there, not public, or out of reach; the message says what to do.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    # Both are settings of huggingface_hub too, which looks at them only when it is imported.
    endpoint, offline = os.environ.get("HF_ENDPOINT") or None, is_offline()
    with _hub(repo, file):
        if file is not None:
            return Path(hf_hub_download(repo, file, endpoint=endpoint, local_files_only=offline))
        for weights in HUB_WEIGHTS:
            folder = Path(
                snapshot_download(
                    repo,
                    endpoint=endpoint,
                    local_files_only=offline,
                    allow_patterns=[*HUB_FILES, weights, f"{weights}.index.json", _parts(weights)],
                )
            )
            if (folder / weights).is_file() or (folder / f"{weights}.index.json").is_file():
                return folder
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise UserError(
        f"no weights of {repo} from the hub: expected {' or '.join(HUB_WEIGHTS)}, found {found} in {folder}; "
        + ("connect to the network once" if offline else "name one of the repository's files")
    )


def _parts(weights: str) -> str:
    """What the parts of weights that are cut into several files are called."""
    return weights.replace(".", "-*-of-*.")


def _file_name(url: str) -> str:
    """A name for the cache: the address's own, and a digest, for many files are called `checkpoint.pth`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"'{url}' is no address to download from: expected one that begins with https://")
    own = PurePosixPath(
        re.sub(r"[^\w.-]", "_", unquote(parts.path).rstrip("/").rpartition("/")[2], flags=re.A)
    )
    digest = hashlib.sha256(url.encode()).hexdigest()[:10]
    return f"{own.stem[:100] or 'file'}-{digest}{own.suffix[:20]}"


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Keep other processes from a partial file; they wait here. Not on Windows."""
    if sys.platform == "win32":
        yield
        return
    while True:
        with part.open("ab") as file:
            with suppress(OSError):  # a file system that knows no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), part.stat())
            except FileNotFoundError:
                same = False
            if same:  # else whoever held it has finished, and taken the file away
                yield
                return


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Say what a failure to write means."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no room left in {folder}: free some, then try again to go on, or set TUBELET_CACHE to a "
                "folder on another disk"
            ) from error
        raise UserError(
            f"cannot write to {folder} ({error.strerror or error}): set TUBELET_CACHE to a folder of yours"
        ) from error


class _StoppedError(Exception):
    """A download that may go on in a moment.

    Args:
        why: for the user.
        reached: the server was there.
    """

    def __init__(self, why: str, *, reached: bool = True) -> None:
        super().__init__(why)
        self.reached = reached


class _ChangedError(Exception):
    """What is at the address is no longer what the partial file was begun from."""


@dataclass(frozen=True, kw_only=True)
class _Version:
    """What a server says of a file, to see whether a later answer is about the same one."""

    etag: str | None = None
    modified: str | None = None
    size: int = 0  # 0 is unknown

    @property
    def condition(self) -> str | None:
        """The value for `If-Range`, which takes no weak tag."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


def _download(url: str, part: Path, progress: Progress | None) -> None:
    """Fill the partial file, in several tries if it must be."""
    failures = 0
    received = False
    while True:
        before = _length(part)
        try:
            _transfer(url, part, progress)
            return
        except _ChangedError:  # only asked for from the beginning can it not have changed
            os.truncate(part, 0)
        except _StoppedError as error:
            have = _length(part)
            received |= have > before
            if not error.reached and not received:
                raise UserError(
                    f"cannot reach {url} ({error}): connect to the network and try again, or {_BY_HAND}; "
                    f"once downloaded, the file is read from {part.parent} without a network"
                ) from error
            failures = 0 if have > before else failures + 1
            if failures > len(PAUSES):
                raise UserError(
                    f"the download of {url} stopped after {have} bytes ({error}): try again later to go on "
                    f"from there, or {_BY_HAND}"
                ) from error
            time.sleep(PAUSES[max(failures - 1, 0)])


def _transfer(url: str, part: Path, progress: Progress | None) -> None:
    """Ask for what is missing of the file, and append it."""
    have, known = _so_far(part)
    if have and have == known.size:
        return
    with _open(url, have, known) as response:
        if have and response.status == 206:
            if not _goes_on(response, have, known):
                raise _ChangedError
        elif response.status == 200:  # changed, or a server that knows no ranges
            if response.headers.get_content_type() == "text/html" and not part.name.endswith(".html.part"):
                raise UserError(f"{url} is answered with a web page, not with the file: {_BY_HAND}")
            have, known = 0, _version(response)
        else:
            raise _StoppedError(f"the server answers {response.status} {response.reason}")
        _receive(response, part, have, known, progress)


def _open(url: str, have: int, known: _Version) -> HTTPResponse:
    headers = {"User-Agent": "tubelet", "Accept-Encoding": "identity"}
    if have and known.condition:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.condition}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
        assert isinstance(response, HTTPResponse)
        return response
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:
            raise _ChangedError from error
        if error.code in (404, 410):
            raise UserError(
                f"there is no file at {url} ({error.code} {error.reason}): it has moved or the address is "
                f"wrong; {_BY_HAND}"
            ) from error
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _StoppedError(f"the server answers {error.code} {error.reason}") from error
        raise UserError(
            f"the server does not give out {url} ({error.code} {error.reason}): {_BY_HAND}"
        ) from error
    except URLError as error:
        raise _StoppedError(str(error.reason), reached=False) from error
    except (InvalidURL, ValueError) as error:
        raise UserError(f"'{url}' is no address to download from: {error}") from error
    except (OSError, HTTPException) as error:  # it was reached, but says nothing or nonsense
        raise _StoppedError(str(error) or type(error).__name__) from error


def _receive(
    response: HTTPResponse, part: Path, have: int, known: _Version, progress: Progress | None
) -> None:
    """Write an answer's body, whole or the rest of one."""
    with part.open("ab" if have else "wb") as file:
        if not have:  # no byte is there yet that these notes could be wrong about
            _notes(part).write_text(json.dumps(asdict(known)), encoding="utf-8")
        if known.size - have > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        while chunk := _read(response):
            file.write(chunk)
            file.flush()
            have += len(chunk)
            if progress is not None:
                progress(have, known.size)
    if have < known.size:
        raise _StoppedError(f"the server closed the connection, {known.size - have} bytes are missing")


def _read(response: IO[bytes]) -> bytes:
    try:
        return response.read(CHUNK)
    except OSError as error:
        raise _StoppedError(str(error) or type(error).__name__) from error
    except HTTPException as error:  # which counts bytes of a chunk, to no one's use
        raise _StoppedError("the server closed the connection") from error


def _version(response: HTTPResponse) -> _Version:
    return _Version(
        etag=response.headers.get("ETag"),
        modified=response.headers.get("Last-Modified"),
        size=response.length or 0,
    )


def _goes_on(response: HTTPResponse, have: int, known: _Version) -> bool:
    """Whether a partial answer begins where the partial file ends, and is of the same file."""
    now = _version(response)
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    return (
        place is not None
        and int(place[1]) == have
        and (place[2] == "*" or int(place[2]) == known.size)
        and (now.etag or known.etag) == known.etag
        and (now.modified or known.modified) == known.modified
    )


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _so_far(part: Path) -> tuple[int, _Version]:
    """How much of the file is there, and of which version; 0 where that cannot be continued."""
    have = _length(part)
    try:
        known = _Version(**json.loads(_notes(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return 0, _Version()
    return (have, known) if known.condition and have <= known.size else (0, known)


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _verify(url: str, part: Path, md5_prefix: str | None, sha256: str | None) -> None:
    """Compare the checksums that are known."""
    # That MD5 is weak does not matter here, and machines that forbid it for signatures allow it so.
    kinds = ((hashlib.md5(usedforsecurity=False), md5_prefix), (hashlib.sha256(), sha256))
    for digest, expected in kinds:
        if expected is None:
            continue
        with part.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        found = digest.hexdigest()
        if not found.startswith(expected.lower()):
            _remove(part)
            dots = "..." if len(expected) < len(found) else ""
            raise UserError(
                f"{part.name.removesuffix('.part')} from {url} is not the published file, and was removed: "
                f"expected {digest.name} {expected}{dots}, found {found}; try again, and if it stays so, the "
                f"file there was changed or damaged: {_BY_HAND}"
            )


@contextmanager
def _hub(repo: str, file: str | None) -> Iterator[None]:
    """Say what the hub's errors mean."""
    from huggingface_hub import errors

    what = f"{file} of {repo}" if file else repo
    page = f"https://huggingface.co/{repo}"
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{what} is given only to those who ask: do so on {page}, then {log_in}, and try again"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the hub knows no {repo}: look for mistakes in the name, or, if it is private, {log_in}"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        if is_offline() or isinstance(error.__cause__, errors.OfflineModeIsEnabled):
            raise UserError(
                f"{what} is not, or not wholly, in the hub's cache and the network is switched off: unset "
                f"TUBELET_OFFLINE and HF_HUB_OFFLINE, or {_BY_HAND}"
            ) from error
        raise UserError(
            f"cannot get {what} from the hub ({_first_line(error.__cause__ or error)}): connect to the "
            f"network and try again, or {_BY_HAND}; once downloaded, it is read from the hub's cache without "
            "a network"
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{repo} has no file '{file}': {page}/tree/main lists what it has") from error
    except errors.HFValidationError as error:
        raise UserError(
            f"'{repo}' is no repository of the hub: expected owner/name ({_first_line(error)})"
        ) from error
    except Exception as error:  # its transport's own, which differ from version to version
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no room left for {what}: free some, or set HF_HOME to a folder on another disk"
            ) from error
        raise UserError(
            f"cannot get {what} from the hub ({_first_line(error)}): try again later, or {_BY_HAND}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
