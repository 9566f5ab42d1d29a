from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from avex._core.errors import ChecksumError, ConfigError, OfflineError
from avex.io import cached_path, fetch
from avex.io.hub import hub_cache_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lay_out(cache: Path, kind: str, repo: str, filename: str, content: bytes, revision: str = "main") -> Path:
    """Build by hand what the Hub client's cache looks like after a download."""
    root = cache / f"{kind}s--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(COMMIT)
    file = root / "snapshots" / COMMIT / filename
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("AVEX_OFFLINE", raising=False)
    return tmp_path / "hub"


def test_cached_files_of_every_kind(cache: Path) -> None:
    model = lay_out(cache, "model", "org/repo", "sub/weights.safetensors", b"w")
    data = lay_out(cache, "dataset", "org/clips", "a.csv", b"d")
    space = lay_out(cache, "space", "org/demo", "labels.json", b"s", revision="v1")
    assert fetch("hf://org/repo/sub/weights.safetensors") == model
    assert fetch(f"hf://org/repo@{COMMIT}/sub/weights.safetensors") == model
    assert fetch(Path("hf://org/repo/sub/weights.safetensors")) == model
    assert fetch("hf://datasets/org/clips/a.csv") == data
    assert fetch("hf://spaces/org/demo@v1/labels.json") == space
    assert cached_path("hf://spaces/org/demo@v1/labels.json") == space
    assert cached_path("hf://spaces/org/demo/labels.json") is None


def test_checksum(cache: Path) -> None:
    model = lay_out(cache, "model", "org/repo", "w.bin", b"w")
    good = hashlib.sha256(b"w").hexdigest()
    assert fetch("hf://org/repo/w.bin", sha256=good.upper()) == model
    # Known content is not looked up on the network even where that is allowed.
    assert fetch("hf://org/repo/w.bin", sha256=good, offline=False) == model
    with pytest.raises(ChecksumError, match=good):
        fetch("hf://org/repo/w.bin", sha256="f" * 64)


def test_not_cached_and_offline(cache: Path) -> None:
    with pytest.raises(OfflineError) as caught:
        fetch("hf://org/repo/w.bin")
    for part in ("hf://org/repo/w.bin", str(cache), "HF_HUB_OFFLINE", "checkpoint_path="):
        assert part in str(caught.value)


def test_another_cache_folder(cache: Path, tmp_path: Path) -> None:
    other = lay_out(tmp_path / "other", "model", "org/repo", "w.bin", b"w")
    assert fetch("hf://org/repo/w.bin", cache_dir=tmp_path / "other") == other
    assert cached_path("hf://org/repo/w.bin", cache_dir=tmp_path / "other") == other
    assert cached_path("hf://org/repo/w.bin") is None


def test_malformed_names(cache: Path) -> None:
    with pytest.raises(ConfigError, match="does not name a file"):
        fetch("hf://org/repo")
    with pytest.raises(ConfigError, match="does not name a file"):
        fetch("hf://org/re..po/w.bin")


def test_cache_folder_follows_the_clients_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_cache_folder() == Path.home() / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert hub_cache_folder() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/h")
    assert hub_cache_folder() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert hub_cache_folder() == Path("/c")
    assert hub_cache_folder("/mine") == Path("/mine")


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as a download needs."""

    files: ClassVar[dict[str, bytes]] = {"/org/repo/resolve/main/w.bin": b"weights"}

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        content = self.files.get(self.path)
        if content is None:
            private, broken = "secret" in self.path, "broken" in self.path
            self.send_response(401 if private else 400 if broken else 404)
            self.send_header("X-Error-Code", "RepoNotFound" if private else "" if broken else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


ONLINE = """
import sys
from avex.io import fetch
for uri in sys.argv[1:]:
    try:
        print(fetch(uri).read_bytes())
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_download_and_every_way_to_fail(hub: str, tmp_path: Path) -> None:
    """In a fresh interpreter, since the client reads its address from the environment once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "AVEX_"))}
    environment |= {"HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": hub, "HF_HUB_DISABLE_TELEMETRY": "1"}
    names = ["repo/w.bin", "repo/absent.bin", "secret/w.bin", "broken/w.bin"]
    result = subprocess.run(
        [sys.executable, "-c", ONLINE, *(f"hf://org/{name}" for name in names)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    downloaded, absent, secret, broken = result.stdout.splitlines()
    assert downloaded == "b'weights'"
    assert absent.startswith("MissingFileError 'hf://org/repo/absent.bin' does not exist")
    assert secret.startswith("MissingFileError 'hf://org/secret/w.bin' does not exist, or is private")
    assert broken.startswith("OfflineError 'hf://org/broken/w.bin' is not in the cache folder")
    assert "could not be downloaded" in broken
    assert fetch("hf://org/repo/w.bin", cache_dir=tmp_path, offline=True).read_bytes() == b"weights"
