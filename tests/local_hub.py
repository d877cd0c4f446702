"""A server on this host that answers as huggingface.co does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from servers import running


class Hub(ThreadingHTTPServer):
    """Serves ``files``, (repository, name) to (commit, content), for main and for each commit."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        repository, _, rest = self.path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        commit, content = self.server.files.get((repository, name), ("", b""))
        self.server.asked.append(f"{self.command} {revision[:4]} {name}")
        if not commit or revision not in ("main", commit):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that runs until the end of the block."""
    with running(Hub()) as hub:
        yield hub
