"""Checksums of large files are computed once and noted; the note never speaks for another file."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from avex._core.errors import ChecksumError, ConfigError
from avex.io import checksum as module
from avex.io import sha256_of, verify_sha256


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_WORTH_A_NOTE", 1000)
    return tmp_path / "cache" / "checksums"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose bytes were looked at."""
    seen: list[Path] = []
    real = module._hash
    monkeypatch.setattr(module, "_hash", lambda path: (seen.append(path), real(path))[1])
    return seen


def forget() -> None:
    """What a new process does not know."""
    module._sha256.cache_clear()


def test_noted_across_processes(tmp_path: Path, cache: Path, hashed: list[Path]) -> None:
    file = tmp_path / "w.bin"
    file.write_bytes(b"w" * 5000)
    expected = hashlib.sha256(b"w" * 5000).hexdigest()
    for _ in range(3):
        forget()
        assert sha256_of(file) == expected
    assert hashed == [file.resolve()]
    assert len(list(cache.iterdir())) == 1


def test_small_files_are_not_noted(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "small").write_bytes(b"w" * 999)
    sha256_of(tmp_path / "small")
    assert not cache.exists()


def test_a_change_is_noticed_even_with_size_and_time_set_back(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "w.bin"
    file.write_bytes(b"a" * 5000)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    sha256_of(file)
    file.write_bytes(b"b" * 5000)
    os.utime(file, ns=times)
    assert sha256_of(file) == hashlib.sha256(b"b" * 5000).hexdigest()


def test_another_file_in_its_place(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "w.bin"
    file.write_bytes(b"a" * 5000)
    sha256_of(file)
    (tmp_path / "other").write_bytes(b"b" * 5000)
    (tmp_path / "other").replace(file)
    forget()
    assert sha256_of(file) == hashlib.sha256(b"b" * 5000).hexdigest()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stamp": 3}', '{"stamp": [1], "sha256": 4}'])
def test_a_damaged_note_is_no_note(tmp_path: Path, cache: Path, content: str) -> None:
    file = tmp_path / "w.bin"
    file.write_bytes(b"a" * 5000)
    expected = sha256_of(file)
    note = next(cache.iterdir())
    note.write_text(content)
    forget()
    assert sha256_of(file) == expected
    assert json.loads(note.read_text())["sha256"] == expected


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"a" * 5000)
    monkeypatch.setenv("AVEX_CACHE", str(tmp_path / "file"))  # a file where a folder should be
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"a" * 5000).hexdigest()


def test_beginnings_of_checksums(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, example B.1
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    for length in (8, 9, 63, 64):
        verify_sha256(tmp_path / "abc", known[:length].upper())
    with pytest.raises(ChecksumError, match=rf"its sha256 is {known}, expected ba7816be\.\.\."):
        verify_sha256(tmp_path / "abc", "ba7816be")
    for bad in (known[:7], known + "0", "xyz12345", ""):
        with pytest.raises(ConfigError, match="is no sha256"):
            verify_sha256(tmp_path / "abc", bad)
