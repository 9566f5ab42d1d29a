"""Local paths and URIs: telling them apart and taking them to pieces."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote

from avex._core.errors import ConfigError
from avex.io.packaged import packaged_path

# Two characters at least, so that a Windows drive ("C://") is no scheme.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")
# What pathlib makes of a URI: Path("hf://a/b") is "hf:/a/b".
_COLLAPSED = re.compile(r"(hf|gs|gcs|s3|https?|file|package):[/\\](?![/\\])")
_HUB_KINDS = {"datasets": "dataset", "spaces": "space"}


def as_uri(path: str | PurePath) -> str:
    """Return a path or URI as text; a URI that went through `pathlib` gets its second slash back.

    Example:
        >>> as_uri(Path("hf://org/repo/weights.safetensors"))
        'hf://org/repo/weights.safetensors'
    """
    if isinstance(path, str):
        return path
    return _COLLAPSED.sub(r"\1://", path.as_posix(), count=1) if _COLLAPSED.match(str(path)) else str(path)


def scheme_of(uri: str | PurePath) -> str:
    """Return the scheme of a URI in lower case (`"hf"`, `"gs"`, `"https"`), or `""` for a plain path."""
    match = _SCHEME.match(as_uri(uri))
    return match[1].lower() if match else ""


def is_remote(uri: str | PurePath) -> bool:
    """Tell whether a URI names something outside this machine's file system.

    Example:
        >>> is_remote("s3://bucket/a.wav"), is_remote("/data/a.wav"), is_remote("file:///data/a.wav")
        (True, False, False)
    """
    return scheme_of(uri) not in ("", "file", "package")


def join_uri(base: str | PurePath, *parts: str) -> str:
    """Append path parts to a local path or a URI.

    Example:
        >>> join_uri("hf://org/repo/", "sub", "labels.json")
        'hf://org/repo/sub/labels.json'
    """
    text = as_uri(base)
    if scheme_of(text):
        return "/".join([text.rstrip("/"), *(part.strip("/") for part in parts)])
    return str(Path(text, *parts))


def local_path(uri: str | PurePath) -> Path:
    """Return the path of a local path, a `file://` or a `package://` URI; `~` is expanded.

    Raises:
        ConfigError: A `file://` URI that names another machine.
        MissingExtraError: A `package://` URI of a package that is not installed.
    """
    text = as_uri(uri)
    if scheme_of(text) == "package":
        return packaged_path(text)
    if scheme_of(text) != "file":
        return Path(text).expanduser()
    host, _, rest = text[len("file://") :].partition("/")
    if host not in ("", "localhost"):
        raise ConfigError(
            f"'{text}' names the machine '{host}'. A local file has three slashes: 'file:///path/to/file'."
        )
    # "file:///C:/x" is "C:/x" on Windows, "file:///x" is "/x" elsewhere.
    return Path(unquote(rest) if os.name == "nt" else "/" + unquote(rest))


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face Hub.

    Attributes:
        repo_id: `"organisation/repository"`.
        filename: Path inside the repository.
        repo_type: `"model"`, `"dataset"` or `"space"`.
        revision: Branch, tag or commit; None for the default branch.
    """

    repo_id: str
    filename: str
    repo_type: str = "model"
    revision: str | None = None

    @classmethod
    def parse(cls, uri: str) -> HubFile:
        """Take `hf://[datasets/|spaces/]organisation/repository[@revision]/path/to/file` to pieces.

        A revision that holds a slash is written with `%2F`.

        Raises:
            ConfigError: A part is missing.

        Example:
            >>> HubFile.parse("hf://org/repo@v1/weights.safetensors").revision
            'v1'
        """
        parts = uri.partition("://")[2].split("/")
        repo_type = _HUB_KINDS.get(parts[0], "model")
        if repo_type != "model":
            parts = parts[1:]
        name, _, revision = parts[1].partition("@") if len(parts) > 1 else ("", "", "")
        if len(parts) < 3 or not all(parts) or not name:
            raise ConfigError(
                f"'{uri}' does not name a file on the Hugging Face Hub. Expected "
                "'hf://organisation/repository/path/to/file' ('@revision' may follow the repository)."
            )
        return cls(f"{parts[0]}/{name}", "/".join(parts[2:]), repo_type, unquote(revision) or None)
