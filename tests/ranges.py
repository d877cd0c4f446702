"""A local web server that serves a folder and supports range requests, as object stores do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from servers import running


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Serve ``folder``; yields its address, and the list of requests as (path, range)."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            asked.append((self.path, wanted))
            path = folder / self.path.lstrip("/").partition("?")[0]
            body = path.read_bytes() if path.is_file() else b""
            self.send_response(404 if not path.is_file() else 206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            if wanted and path.is_file():
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                size = len(body)
                body = body[int(first) : int(last) + 1 if last else None]
                end = int(first) + len(body) - 1
                self.send_header("Content-Range", f"bytes {first}-{end}/{size}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}", asked
