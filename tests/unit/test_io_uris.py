from __future__ import annotations

from pathlib import Path

import pytest

from avex._core.errors import ConfigError
from avex.io import is_remote, join_uri
from avex.io.uris import HubFile, as_uri, local_path, scheme_of


@pytest.mark.parametrize(
    ("uri", "remote"),
    [
        ("hf://org/repo/file", True),
        ("https://host/a?b=c", True),
        ("S3://bucket/key", True),
        ("gs://bucket/key", True),
        ("file:///a/b", False),
        ("/a/b", False),
        ("a:b/c.wav", False),
        ("C://a", False),
        ("C:\\a", False),
        ("", False),
        (Path("/a/b"), False),
        (Path("hf://org/repo/file"), True),
    ],
)
def test_is_remote(uri: str | Path, remote: bool) -> None:
    assert is_remote(uri) is remote


def test_a_uri_survives_pathlib() -> None:
    for uri in ("hf://org/repo/f.bin", "gs://b/k", "https://h/x", "file:///a"):
        assert as_uri(Path(uri)).replace("file:///", "file://").replace("file://", "file:///") == uri
    assert as_uri(Path("hf:here/file")) == "hf:here/file"
    assert scheme_of(Path("s3://bucket/key")) == "s3"


def test_join() -> None:
    assert join_uri("hf://org/repo/", "/a/", "b.json") == "hf://org/repo/a/b.json"
    assert join_uri(Path("gs://bucket/x"), "y") == "gs://bucket/x/y"
    assert join_uri("/data", "a", "b") == str(Path("/data/a/b"))


def test_local_paths() -> None:
    assert local_path("file:///a%20b/c%23.wav") == Path("/a b/c#.wav")
    assert local_path("file://localhost/a") == Path("/a")
    assert local_path("~/x") == Path.home() / "x"
    assert local_path("/a%20b") == Path("/a%20b")
    with pytest.raises(ConfigError, match="'server'"):
        local_path("file://server/a")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf://o/r/f", HubFile("o/r", "f")),
        ("hf://o/r@v1/d/f.json", HubFile("o/r", "d/f.json", "model", "v1")),
        ("hf://o/r@refs%2Fpr%2F7/f", HubFile("o/r", "f", "model", "refs/pr/7")),
        ("hf://datasets/o/r/d/f", HubFile("o/r", "d/f", "dataset")),
        ("hf://spaces/o/r@main/f", HubFile("o/r", "f", "space", "main")),
    ],
)
def test_hub_uris(uri: str, expected: HubFile) -> None:
    assert HubFile.parse(uri) == expected


@pytest.mark.parametrize(
    "uri", ["hf://", "hf://o", "hf://o/r", "hf://o/r/", "hf://o//f", "hf://datasets/o/r", "hf://o/@v/f"]
)
def test_incomplete_hub_uris(uri: str) -> None:
    with pytest.raises(ConfigError, match="organisation/repository"):
        HubFile.parse(uri)
