"""A web server on this machine that gives files, and breaks off, redirects or lies as it is told."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import re
import threading
import time
from collections.abc import Iterator


@dataclasses.dataclass
class Page:
    """What the server answers at one path.

    Args:
        data: bytes. The file.
        etag: str. Sent as ETag; a Range is answered only with it or without any condition.
        ranges: bool. Whether ranges are answered.
        breaks: list of ints. Each connection takes one: so many bytes, then it is cut.
        statuses: list of ints. Each request takes one before the file is given.
        location: str. Redirects there.
        length: bool. Whether Content-Length is sent.
        pause: float. Seconds between pieces of 16 kB.
    """

    data: bytes = b""
    etag: str = '"1"'
    ranges: bool = True
    breaks: list[int] = dataclasses.field(default_factory=list)
    statuses: list[int] = dataclasses.field(default_factory=list)
    location: str = ""
    length: bool = True
    pause: float = 0.0


class Server(http.server.ThreadingHTTPServer):
    """Pages by path, and a log of (path, Range) of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.log: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        """Returns the address of a path."""
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of connections that were cut on purpose."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET."""

    server: Server

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        """Gives the page, or the part of it that was asked for."""
        page = self.server.pages.get(self.path)
        wanted = self.headers.get("Range")
        self.server.log.append((self.path, wanted))
        if page is None:
            self.send_error(404)
        elif page.statuses:
            self.send_error(page.statuses.pop(0))
        elif page.location:
            self.send_response(302)
            self.send_header("Location", page.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._give(page, wanted)

    def _give(self, page: Page, wanted: str | None) -> None:
        start = 0
        condition = self.headers.get("If-Range")
        if wanted and page.ranges and condition in (None, page.etag or "none"):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(page.data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header(
                "Content-Range", f"bytes {start}-{len(page.data) - 1}/{len(page.data)}"
            )
        else:
            self.send_response(200)
        if page.etag:
            self.send_header("ETag", page.etag)
        if page.length:
            self.send_header("Content-Length", str(len(page.data) - start))
        self.end_headers()
        end = start + page.breaks.pop(0) if page.breaks else len(page.data)
        for place in range(start, min(end, len(page.data)), 1 << 14):
            self.wfile.write(page.data[place : min(place + (1 << 14), end)])
            self.wfile.flush()
            time.sleep(page.pause)
        self.close_connection = True


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Yields a running server."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
