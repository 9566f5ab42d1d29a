"""`https://` files, against a real server on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from avex._core.errors import ChecksumError, OfflineError
from avex.io import MissingFileError, cached_path, fetch
from avex.io.http import HttpFiles

PAYLOAD = bytes(range(256)) * 9000  # more than one block


class _Server(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[tuple[str, str]]] = []
    etag: ClassVar[str] = "one"

    def do_HEAD(self) -> None:
        if "nohead" in self.path:
            self.send_error(405)
        else:
            self.do_GET()

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path))
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/models/net.pt")
            self.end_headers()
        elif "absent" in self.path:
            self.send_error(404)
        elif "broken" in self.path:
            self.send_error(503)
        elif "garbage" in self.path:
            self.wfile.write(b"no http at all\r\n\r\n")
        else:
            self.send_response(200)
            self.send_header("ETag", self.etag)
            self.send_header("Content-Length", str(len(PAYLOAD)))
            self.end_headers()
            if self.command == "GET":
                with contextlib.suppress(ConnectionError):  # a client may have seen enough
                    self.wfile.write(PAYLOAD[:1000] if "cut" in self.path else PAYLOAD)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AVEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("AVEX_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    _Server.asked.clear()
    _Server.etag = "one"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/models/net.pt", "/nohead/net.pt", "/moved"])
def test_download(server: str, path: str) -> None:
    file = fetch(server + path)
    assert file.read_bytes() == PAYLOAD
    assert fetch(server + path) == file
    assert cached_path(server + path) == file


def test_known_content_is_not_asked_for_again(server: str) -> None:
    sha256 = hashlib.sha256(PAYLOAD).hexdigest()
    file = fetch(f"{server}/net.pt", sha256=sha256[:8])
    count = len(_Server.asked)
    assert fetch(f"{server}/net.pt", sha256=sha256[:8].upper()) == file
    assert fetch(f"{server}/net.pt", sha256=sha256) == file
    assert len(_Server.asked) == count
    with pytest.raises(ChecksumError, match=r"expected 00000000\.\.\."):
        fetch(f"{server}/net.pt", sha256="00000000")


def test_a_new_version_is_noticed(server: str) -> None:
    fetch(f"{server}/net.pt")
    fetch(f"{server}/net.pt")
    assert [command for command, _ in _Server.asked] == ["HEAD", "GET", "HEAD"]
    _Server.etag = "two"
    fetch(f"{server}/net.pt")
    assert [command for command, _ in _Server.asked[3:]] == ["HEAD", "GET"]


def test_failures(server: str) -> None:
    with pytest.raises(MissingFileError, match=r"HTTP 404"):
        fetch(f"{server}/absent.pt")
    for path, message in (
        ("broken", "HTTP 503"),
        ("garbage", "no HTTP"),
        ("cut", "1000 of 2304000|IncompleteRead"),
    ):
        with pytest.raises(OfflineError, match=message):
            fetch(f"{server}/{path}.pt")
        assert cached_path(f"{server}/{path}.pt") is None


def test_nobody_there(server: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = unused.getsockname()[1]
        with pytest.raises(OfflineError, match="could not be downloaded"):
            fetch(f"http://127.0.0.1:{port}/net.pt")


def test_facts(server: str) -> None:
    assert HttpFiles().info(f"{server}/net.pt") == {"size": len(PAYLOAD), "ETag": "one", "LastModified": None}
