from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from avex._core.errors import (
    AvexError,
    ChecksumError,
    ConfigError,
    MissingExtraError,
    OfflineError,
    UnknownNameError,
)
from avex.io import MissingFileError, cache_folder, cached_path, fetch, is_offline, sha256_of, verify_sha256
from avex.io.cache import CacheEntry
from avex.io.checksum import _sha256


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVEX_CACHE", str(tmp_path / "cache"))
    for name in ("AVEX_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def remote() -> Iterator[fsspec.AbstractFileSystem]:
    """A real fsspec file system that needs no network."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


class TestLocal:
    def test_paths_and_file_uris(self, tmp_path: Path) -> None:
        target = tmp_path / "a b.bin"
        target.write_bytes(b"x")
        assert fetch(target) == target
        assert fetch(str(target)) == target
        assert fetch(target.as_uri()) == target
        assert fetch(tmp_path) == tmp_path
        assert cached_path(target) == target
        assert cached_path(tmp_path / "absent") is None

    def test_missing_file_offers_the_nearest_name(self, tmp_path: Path) -> None:
        (tmp_path / "weights.safetensors").touch()
        with pytest.raises(FileNotFoundError, match=r"Did you mean 'weights\.safetensors'\?") as caught:
            fetch(tmp_path / "weigths.safetensors")
        assert isinstance(caught.value, AvexError)
        with pytest.raises(MissingFileError, match="there is no folder"):
            fetch(tmp_path / "absent" / "a")

    def test_empty_path(self) -> None:
        with pytest.raises(ConfigError, match="empty"):
            fetch("")

    def test_checksum(self, tmp_path: Path) -> None:
        target = tmp_path / "a.bin"
        target.write_bytes(b"abc")
        # FIPS 180-2, example B.1
        known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert sha256_of(target) == known
        assert fetch(target, sha256=known.upper()) == target
        with pytest.raises(ChecksumError) as caught:
            fetch(target, sha256="0" * 64)
        for part in (known, "0" * 64, str(target), "damaged"):
            assert part in str(caught.value)

    def test_checksum_is_computed_once_per_version(self, tmp_path: Path) -> None:
        target = tmp_path / "a.bin"
        target.write_bytes(b"abc")
        before = _sha256.cache_info()
        verify_sha256(target, sha256_of(target))
        after = _sha256.cache_info()
        assert (after.misses - before.misses, after.hits - before.hits) == (1, 1)
        target.write_bytes(b"abd")
        os.utime(target, ns=(0, 0))
        assert sha256_of(target) == hashlib.sha256(b"abd").hexdigest()
        assert list(tmp_path.iterdir()) == [target]


class TestRemote:
    def test_download_and_reuse(self, remote: fsspec.AbstractFileSystem) -> None:
        payload = os.urandom(2_500_000)
        remote.pipe("/models/net.safetensors", payload)
        path = fetch("memory://models/net.safetensors")
        assert path.read_bytes() == payload
        assert path.name == "net.safetensors"
        assert cache_folder() in path.parents
        record = json.loads((path.parent / ".source.json").read_text())
        assert record["uri"] == "memory://models/net.safetensors"
        assert record["sha256"] == hashlib.sha256(payload).hexdigest()
        assert record["size"] == len(payload)
        stamp = path.stat().st_mtime_ns
        assert fetch("memory://models/net.safetensors") == path
        assert path.stat().st_mtime_ns == stamp
        assert cached_path("memory://models/net.safetensors") == path

    def test_a_new_version_is_noticed(self, remote: fsspec.AbstractFileSystem) -> None:
        remote.pipe("/a.json", b"one")
        assert fetch("memory://a.json").read_bytes() == b"one"
        remote.pipe("/a.json", b"three")
        assert fetch("memory://a.json").read_bytes() == b"three"

    def test_the_right_checksum_needs_no_network(self, remote: fsspec.AbstractFileSystem) -> None:
        remote.pipe("/a.bin", b"one")
        path, checksum = fetch("memory://a.bin"), hashlib.sha256(b"one").hexdigest()
        remote.rm("/a.bin")
        assert fetch("memory://a.bin", sha256=checksum.upper()) == path
        with pytest.raises(MissingFileError, match="does not exist"):
            fetch("memory://a.bin")

    def test_offline(self, remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
        remote.pipe("/a.bin", b"one")
        with pytest.raises(OfflineError) as caught:
            fetch("memory://a.bin", offline=True)
        for part in ("memory://a.bin", str(cache_folder()), "checkpoint_path"):
            assert part in str(caught.value)
        path = fetch("memory://a.bin")
        remote.pipe("/a.bin", b"three")
        assert fetch("memory://a.bin", offline=True).read_bytes() == b"one"
        monkeypatch.setenv("AVEX_OFFLINE", "1")
        assert fetch("memory://a.bin") == path
        assert fetch("memory://a.bin", offline=False).read_bytes() == b"three"

    def test_an_unreachable_server_leaves_the_cached_copy(
        self,
        remote: fsspec.AbstractFileSystem,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        remote.pipe("/a.bin", b"one")
        path = fetch("memory://a.bin")

        def unreachable(*_: object, **__: object) -> None:
            raise ConnectionResetError("connection reset by peer")

        monkeypatch.setattr(type(remote), "info", unreachable)
        with caplog.at_level(logging.WARNING, logger="avex"):
            assert fetch("memory://a.bin") == path
        assert "without checking" in caplog.text
        with pytest.raises(OfflineError, match="connection reset by peer"):
            fetch("memory://b.bin")

    def test_a_broken_transfer_leaves_nothing(
        self, remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remote.pipe("/a.bin", b"x" * 100)
        real = type(remote).info
        monkeypatch.setattr(
            type(remote), "info", lambda self, path, **k: {**real(self, path, **k), "size": 101}
        )
        with pytest.raises(OfflineError, match="100 of 101 bytes"):
            fetch("memory://a.bin")
        assert cached_path("memory://a.bin") is None
        assert not CacheEntry.of("memory://a.bin").file.exists()

    def test_a_full_disk_is_not_called_a_network_failure(
        self, remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remote.pipe("/a.bin", b"x")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError) as caught:
            fetch("memory://a.bin")
        assert caught.value.errno == errno.ENOSPC
        assert not isinstance(caught.value, AvexError)

    def test_a_wrong_checksum(self, remote: fsspec.AbstractFileSystem) -> None:
        remote.pipe("/a.bin", b"one")
        with pytest.raises(ChecksumError, match=r"0{64}"):
            fetch("memory://a.bin", sha256="0" * 64)

    def test_a_damaged_cache_is_downloaded_again(self, remote: fsspec.AbstractFileSystem) -> None:
        remote.pipe("/a.bin", b"one")
        path = fetch("memory://a.bin")
        path.write_bytes(b"on")
        assert fetch("memory://a.bin").read_bytes() == b"one"
        (path.parent / ".source.json").write_text("{")
        assert fetch("memory://a.bin").read_bytes() == b"one"

    def test_threads_download_once(
        self, remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remote.pipe("/a.bin", b"x" * 1000)
        opened: list[str] = []
        real = type(remote).open

        def counting(self: object, path: str, *args: object, **options: object) -> object:
            opened.append(path)
            return real(self, path, *args, **options)

        monkeypatch.setattr(type(remote), "open", counting)
        found: list[Path] = []
        threads = [threading.Thread(target=lambda: found.append(fetch("memory://a.bin"))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 1
        assert len(found) == 6
        assert len(opened) == 1

    @pytest.mark.parametrize(
        ("uri", "package"),
        [("gs://b/k", "gcsfs"), ("s3://b/k", "s3fs")],
    )
    def test_missing_package_names_the_extra(
        self, uri: str, package: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"'{package}'.*avex\[cloud\]"):
            fetch(uri)

    def test_unknown_scheme(self) -> None:
        with pytest.raises(UnknownNameError, match=r"'htps://'.*Did you mean 'https'"):
            fetch("htps://host/file")


class TestCacheFolder:
    def test_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert cache_folder() == tmp_path / "cache"
        monkeypatch.delenv("AVEX_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "avex"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_folder() == Path.home() / ".cache" / "avex"

    def test_offline_flag(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not is_offline()
        monkeypatch.setenv("HF_HUB_OFFLINE", "TRUE")
        assert is_offline()
        assert not is_offline(False)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        assert not is_offline()
        assert is_offline(True)

    def test_awkward_uris_have_sound_and_distinct_places(self, tmp_path: Path) -> None:
        uris = [
            "https://h/a/model.pt",
            "https://h/b/model.pt",
            "https://h/model.pt?version=2",
            "https://h/",
            "https://h/.lock",
            "https://h/a%2F..%2F..%2Fetc%2Fpasswd",
            "https://h/" + "x" * 400 + ".safetensors",
            "https://h/a%00b:c.pt",
        ]
        files = [CacheEntry.of(uri, tmp_path).file for uri in uris]
        assert len(set(files)) == len(uris)
        for file in files:
            assert file.resolve().parent.parent == tmp_path / "files"
            assert len(file.name.encode()) < 250
            assert not file.name.startswith(".")
        assert files[0].name == "model.pt"
        assert files[6].suffix == ".safetensors"
