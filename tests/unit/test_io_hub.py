from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

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


def test_an_unreachable_hub_is_one_clear_error(tmp_path: Path) -> None:
    """A fresh interpreter, so that the client reads this environment; nothing listens on that port."""
    code = (
        "from avex._core.errors import OfflineError\n"
        "from avex.io import fetch\n"
        "try:\n"
        "    fetch('hf://org/repo/w.bin')\n"
        "except OfflineError as error:\n"
        "    assert 'hf://org/repo/w.bin' in str(error) and 'could not be downloaded' in str(error), str(error)\n"
        "    assert error.__cause__ is not None\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "AVEX_"))}
    environment |= {
        "HF_HUB_CACHE": str(tmp_path),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_ETAG_TIMEOUT": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
