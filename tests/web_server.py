"""A web server on this machine that counts what it is asked for and what it sends."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Server:
    """A running server.

    Attributes:
        url: of its folder.
        sent: bytes of each answer to a GET.
        asked: the methods and paths asked for.
        answers: status codes by path, other than those that files that are there and not there get;
            200 sends the whole file for a request of any part, 0 nothing at all until the server closes.
        closing: set once it does.
    """

    url: str = ""
    sent: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args, server: Server, **kwargs):
        self.served = server
        super().__init__(*args, **kwargs)

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = Path(self.translate_path(self.path))
        path = path / "index.json" if path.is_dir() else path
        name = self.path.partition("?")[0]
        self.served.asked.append(f"{self.command} {name}")
        status = self.served.answers.get(name, 206 if path.is_file() else 404)
        if not status:
            self.served.closing.wait()
            return
        if status >= 400:
            self.send_error(status)
            return
        data = path.read_bytes()
        start, end = 0, len(data) - 1
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if wanted and status == 206:
            first, _, last = wanted.partition("-")
            start, end = int(first), min(int(last or end), end)
        self.send_response(206 if wanted and status == 206 else 200)
        if status == 206:
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
        self.send_header("Content-Length", str(end + 1 - start))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        if body:
            self.served.sent.append(end + 1 - start)
            self.wfile.write(data[start : end + 1])

    def log_message(self, *args):
        pass


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve a folder's files, in parts where parts are asked for."""
    served = Server()
    handler = functools.partial(_Handler, directory=str(folder), server=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        served.url = f"http://127.0.0.1:{running.server_port}"
        yield served
        served.closing.set()
        running.shutdown()
        thread.join()
