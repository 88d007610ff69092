"""A file server on 127.0.0.1 that can do everything a bad one does."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Page:
    """What one path of the server answers, and a log of what was asked and sent."""

    data: bytes = b""
    ranges: bool = True  # answer Range requests with the part asked for
    shift: int = 0  # bytes by which it answers with another part than asked for
    cut: int | None = None  # bytes after which the connection is cut ...
    cuts: int = 0  # ... for this many answers
    status: list[int] = field(default_factory=list)  # answered first, one a request, before any file
    kind: str = "application/octet-stream"
    length: bool = True  # tell Content-Length
    gate: threading.Event | None = None  # nothing is answered before it is set
    asked: list[str | None] = field(default_factory=list)  # the Range header of every request
    sent: int = 0


class Files:
    """Pages by path; `url(path)` is an address."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.address = ""

    def add(self, path: str, data: bytes = b"", **options) -> Page:
        """Serve `data` under `path`."""
        self.pages[path] = Page(data, **options)
        return self.pages[path]

    def url(self, path: str) -> str:
        """The address of `path`."""
        return f"{self.address}/{path}"


def _handler(files: Files) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        disable_nagle_algorithm = True  # else every small answer takes 40 ms

        def log_message(self, *_) -> None:
            pass

        def do_GET(self) -> None:
            page = files.pages.get(self.path.lstrip("/"))
            if page is None:
                return self.send_error(404)
            number, asked = len(page.asked), self.headers.get("Range")
            page.asked.append(asked)
            if page.gate is not None:
                page.gate.wait()
            if number < len(page.status):
                return self.send_error(page.status[number])
            start, whole = 0, len(page.data)
            if page.ranges and asked:
                start = int(asked.removeprefix("bytes=").rstrip("-")) + page.shift
                self.send_response(206 if start < whole else 416)
                served = f"{start}-{whole - 1}" if start < whole else "*"
                self.send_header("Content-Range", f"bytes {served}/{whole}")
            else:
                self.send_response(200)
            self.send_header("Content-Type", page.kind)
            if page.length:
                self.send_header("Content-Length", str(max(whole - start, 0)))
            self.end_headers()
            piece = page.data[start : whole if page.cut is None or number >= page.cuts else start + page.cut]
            page.sent += len(piece)
            with contextlib.suppress(OSError):
                self.wfile.write(piece)

    return Handler


@contextlib.contextmanager
def serving() -> Iterator[Files]:
    """A server for the time of the block."""
    files = Files()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(files))
    server.daemon_threads = True
    files.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
