"""From any URI to a local file: the one door through which every file comes that is not already here."""

from __future__ import annotations

from itertools import islice
from pathlib import Path, PurePath

from avex._core.errors import ConfigError, did_you_mean
from avex.io.cache import is_offline
from avex.io.checksum import verify_sha256
from avex.io.failures import MissingFileError
from avex.io.uris import as_uri, is_remote, local_path, scheme_of


def fetch(
    uri: str | PurePath,
    *,
    sha256: str | None = None,
    offline: bool | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Return the local path of a file, downloading it into a cache if needed.

    Args:
        uri: A local path, `file:///path`, `package://name/path` for a file in an installed package, or
            `hf://organisation/repository[@revision]/path` (with `datasets/` or
            `spaces/` before the organisation for those); `https://`, `gs://`, `s3://` or anything else that
            fsspec opens.
        sha256: What the file must hash to, in hexadecimal. A cached file that does is used without a look at
            the network.
        offline: Whether the network is forbidden; None asks `AVEX_OFFLINE` and `HF_HUB_OFFLINE`.
        cache_dir: Folder instead of the usual cache: for `hf://` that of the Hub client (`HF_HUB_CACHE`,
            `HF_HOME`), for the rest `AVEX_CACHE` or `~/.cache/avex`.

    Returns:
        Path of an existing file (or folder, for a local path). Cached files must not be changed.

    Raises:
        FileNotFoundError: There is no such file, here or there (`MissingFileError`).
        OfflineError: The file is not cached, and the network may not or cannot be used.
        ChecksumError: The file is not the one that `sha256` says.
        MissingExtraError: `gs://` and `s3://` need the extra `cloud`.
        ConfigError: The URI is incomplete.
        UnknownNameError: The scheme is unknown.

    Example:
        >>> fetch(Path(__file__)).name == Path(__file__).name
        True
    """
    text = as_uri(uri)
    if not text.strip():
        raise ConfigError("The path of a file is empty. Give a local path or a URI.")
    if not is_remote(text):
        path = _existing(local_path(text))
    else:
        path = _fetch_remote(text, sha256=sha256, offline=is_offline(offline), cache_dir=cache_dir)
    if sha256 is not None:
        verify_sha256(path, sha256)
    return path


def cached_path(uri: str | PurePath, *, cache_dir: str | Path | None = None) -> Path | None:
    """Return the local path of a file that is here already, or None. Never uses the network.

    Args:
        uri: As for `fetch`.
        cache_dir: As for `fetch`.
    """
    text = as_uri(uri)
    if not is_remote(text):
        path = local_path(text)
        return path if path.exists() else None
    if scheme_of(text) == "hf":
        from avex.io.hub import find_in_hub_cache

        return find_in_hub_cache(text, cache_dir)
    from avex.io.remote import find_in_cache

    return find_in_cache(text, cache_dir)


def _fetch_remote(uri: str, *, sha256: str | None, offline: bool, cache_dir: str | Path | None) -> Path:
    if scheme_of(uri) == "hf":
        from avex.io.hub import fetch_from_hub

        return fetch_from_hub(uri, sha256=sha256, offline=offline, cache_dir=cache_dir)
    from avex.io.remote import fetch_from_remote

    return fetch_from_remote(uri, sha256=sha256, offline=offline, cache_dir=cache_dir)


def _existing(path: Path) -> Path:
    if path.exists():
        return path
    if not path.parent.is_dir():
        raise MissingFileError(f"File '{path}' does not exist: there is no folder '{path.parent}' either.")
    # A look at the first names only: a folder of recordings can hold a million.
    names = [entry.name for entry in islice(path.parent.iterdir(), 1000)]
    where = "" if path.is_absolute() else f" in '{Path.cwd()}'"
    raise MissingFileError(f"File '{path}' does not exist{where}.{did_you_mean(path.name, names)}")
