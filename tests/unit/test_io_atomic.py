from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from avex._core.errors import ConfigError
from avex.io import atomic_path, atomic_write, write_bytes, write_text
from avex.io.atomic import is_temporary


def test_bytes_and_text_arrive_unchanged(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"\x00\r\n\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n\xff"
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("amsel\r\nrotkehlchen\nz\u00fcrich")
    assert (tmp_path / "a.txt").read_bytes() == "amsel\r\nrotkehlchen\nz\u00fcrich".encode()
    write_text(tmp_path / "b.txt", "\u00e4\n")
    write_bytes(tmp_path / "c.bin", b"c")
    assert (tmp_path / "b.txt").read_bytes() == b"\xc3\xa4\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.txt", "b.txt", "c.bin"]


@pytest.mark.parametrize(
    "name", ["with space.txt", "two\nlines.txt", "-dash", "\u00e9t\u00e9" * 40, "a" * 255]
)
def test_awkward_names(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "x")
    assert (tmp_path / name).read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted() -> None:
        with atomic_write(target, "w") as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_is_visible_before_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    with atomic_write(target) as file:
        file.write(b"x" * 100_000)
        file.flush()
        assert not target.exists()
        assert list(tmp_path.glob("*.parquet")) == []
        assert all(is_temporary(path) for path in tmp_path.iterdir())
    assert target.stat().st_size == 100_000
    assert not is_temporary(target)


def test_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "store.bin"
    target.write_bytes(b"old")
    code = (
        "import os, signal, sys\n"
        "from avex.io import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(b'new' * 100000)\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(target)], check=False, timeout=60)
    assert result.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    left = [path for path in tmp_path.iterdir() if path != target]
    assert len(left) == 1
    assert is_temporary(left[0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stays_an_os_error(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "a.bin") as temporary:
            temporary.unlink()
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"x")

    with pytest.raises(OSError) as caught:
        write()
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_permissions_follow_the_umask_and_the_old_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "new.txt", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "new.txt").stat().st_mode & 0o777 == 0o640
    (tmp_path / "new.txt").chmod(0o604)
    write_text(tmp_path / "new.txt", "y")
    assert (tmp_path / "new.txt").stat().st_mode & 0o777 == 0o604


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder.*absent"):
        write_text(tmp_path / "absent" / "a.txt", "x")


def test_other_modes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'a'"):
        atomic_write(tmp_path / "a.txt", "a")  # type: ignore[call-overload]


def test_many_writers_of_one_file_leave_one_whole_version(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    versions = [str(i) * 50_000 for i in range(8)]
    threads = [threading.Thread(target=write_text, args=(target, version)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_text() in versions
    assert list(tmp_path.iterdir()) == [target]
