"""A file server on 127.0.0.1 that can do everything a bad one does."""

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Page:
    """What one path of the server answers, and a log of what was asked and sent."""

    data: bytes = b""
    ranges: bool = True  # answer Range requests with the part asked for
    etag: str | None = '"one"'
    any_range: bool = False  # send the part asked for whatever If-Range says
    cut: int | None = None  # bytes after which the connection is cut ...
    cuts: int = 0  # ... for this many answers
    status: list[int] = field(default_factory=list)  # answered first, one a request, before any file
    kind: str = "application/octet-stream"
    stall: float = 0.0  # seconds of silence in the middle of the first answer
    length: bool = True  # tell Content-Length
    pause: float = 0.0  # seconds after each `step` bytes
    step: int = 2**16
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
            number = len(page.asked)
            page.asked.append(self.headers.get("Range"))
            if number < len(page.status):
                return self.send_error(page.status[number])
            start, whole = 0, len(page.data)
            asked, same = self.headers.get("Range"), self.headers.get("If-Range") in (None, page.etag)
            if page.ranges and asked and (same or page.any_range):
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= whole:
                    return self.send_error(416)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            else:
                self.send_response(200)
            self.send_header("Content-Type", page.kind)
            if page.length:
                self.send_header("Content-Length", str(whole - start))
            if page.etag:
                self.send_header("ETag", page.etag)
            self.end_headers()
            end = whole
            if page.cut is not None and number < page.cuts:
                end = min(whole, start + page.cut)
            with contextlib.suppress(OSError):
                self._send(page, start, end, page.stall if number == 0 else 0.0)

        def _send(self, page: Page, start: int, end: int, stall: float) -> None:
            for at in range(start, end, page.step):
                piece = page.data[at : min(at + page.step, end)]
                self.wfile.write(piece)
                page.sent += len(piece)
                time.sleep(page.pause)
                if stall and at + page.step >= len(page.data) // 2:
                    time.sleep(stall)
                    stall = 0.0

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
