"""Downloads from a server on this host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from servers import running

from roofseg.core.errors import UserError
from roofseg.priors.download import Download, fetch

CONTENT = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(3000))  # 96 kB


class Server(ThreadingHTTPServer):
    """Serves CONTENT; ``cuts`` says after how many bytes each connection ends, one by one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.ranges = True
        self.asked: list[str] = []

    def source(self, path: str = "/weights.pth", content: bytes = CONTENT) -> Download:
        return Download(
            "weights.pth",
            f"http://127.0.0.1:{self.server_port}{path}",
            len(content),
            hashlib.sha256(content).hexdigest(),
        )


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"] or "bytes=0-"
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if self.server.ranges else 0
        if self.path != "/weights.pth":
            self.send_error(404)
            return
        body = CONTENT[start:]
        self.send_response(206 if self.server.ranges else 200)
        if self.server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # The client keeps whole chunks (10 MB by default), and waits between its tries.
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 500)
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    with running(Server()) as server:
        yield server
        huggingface_hub.close_session()


def test_download(server: Server, tmp_path: Path) -> None:
    path = fetch(server.source(), tmp_path / "weights")
    assert path == tmp_path / "weights" / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert sorted(tmp_path.rglob("*.part")) == []
    assert fetch(server.source(), tmp_path / "weights") == path
    assert server.asked == ["bytes=0-"]  # the second call found it there


def test_download_goes_on_after_cut_connections(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 0, 50_000]
    assert fetch(server.source(), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=0-", "bytes=1000-", "bytes=1000-", "bytes=51000-"]


def test_download_goes_on_in_the_next_call(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000] + [0] * 5
    with pytest.raises(UserError) as error:
        fetch(server.source(), tmp_path)
    assert "1000 bytes are kept in" in str(error.value)
    assert server.source().sha256 in str(error.value)
    assert not (tmp_path / "weights.pth").exists()
    server.asked.clear()
    assert fetch(server.source(), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_download_from_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:1000])
    assert fetch(server.source(), tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_too_long_starts_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(server.source(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"", b"x" * 1000])
def test_wrong_checksum_is_never_used(server: Server, tmp_path: Path, part: bytes) -> None:
    other = bytes(len(CONTENT))
    (tmp_path / "weights.pth.part").write_bytes(part)
    with pytest.raises(UserError, match=rf"expected {hashlib.sha256(other).hexdigest()}"):
        fetch(server.source(content=other), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_put_by_hand_is_named_and_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"weights\.pth: found 4 bytes with SHA-256 .*; expected"):
        fetch(server.source(), tmp_path)
    assert (tmp_path / "weights.pth").read_bytes() == b"mine"
    assert server.asked == []


def test_download_of_a_missing_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the download failed: .*404 Not Found"):
        fetch(server.source("/moved.pth"), tmp_path)
    assert server.asked == ["bytes=0-"]


def test_download_without_a_network_says_what_to_put_where(server: Server, tmp_path: Path) -> None:
    source = server.source()
    server.shutdown()
    server.server_close()  # the port is closed from here on
    with pytest.raises(UserError) as error:
        fetch(source, tmp_path)
    assert "Connection refused" in str(error.value)
    assert f"put the file at {tmp_path / 'weights.pth'} by hand" in str(error.value)
    assert source.sha256 in str(error.value)
