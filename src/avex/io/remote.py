"""Files at `https://`, `gs://`, `s3://` and other fsspec locations, downloaded once into the avex cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from avex._core.errors import MissingExtraError, OfflineError, UnknownNameError, did_you_mean
from avex.io.atomic import atomic_write
from avex.io.cache import CacheEntry, CacheRecord
from avex.io.checksum import normal_sha256
from avex.io.failures import is_local_failure, network_errors, not_available, not_there
from avex.io.http import HttpFiles
from avex.io.uris import scheme_of

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs"}
_WEB = ("http", "https")
# What the file systems call the things that change with a file's content.
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "generation", "VersionId", "LastModified", "mtime", "size")


def find_in_cache(uri: str, cache_dir: str | Path | None = None) -> Path | None:
    """Return the cached copy of a remote file, or None. Uses no network."""
    entry = CacheEntry.of(uri, cache_dir)
    return entry.file if entry.record() else None


def fetch_from_remote(
    uri: str, *, sha256: str | None, offline: bool, cache_dir: str | Path | None = None
) -> Path:
    """Return the local copy of a remote file, downloading it if needed and allowed.

    A cached copy is used as it is when it has the wanted sha256 or when offline. Otherwise the server is
    asked whether it has another version; if it does not answer, the cached copy is used and a warning logged.

    Raises:
        MissingExtraError: The package for this kind of URI is not installed.
        MissingFileError: There is no such file, or it is private.
        OfflineError: It is not cached, and the network may not or cannot be used.
        UnknownNameError: Nobody knows this kind of URI.
        OSError: The file cannot be written, such as for a full disk.
    """
    entry = CacheEntry.of(uri, cache_dir)
    known = entry.record()
    if known and (offline or (sha256 is not None and known.sha256.startswith(normal_sha256(sha256)))):
        return entry.file
    if offline:
        raise not_available(uri, entry.folder)
    filesystem, path = _filesystem(uri)
    with entry.locked():
        known = entry.record()  # another process may have brought it while this one waited
        try:
            version, size = _version(filesystem, path, uri, entry.folder)
        except OfflineError as error:
            if known is None:
                raise
            logger.warning("Using the cached copy of '%s' without checking for a newer one: %s", uri, error)
            return entry.file
        if known is None or known.version != version:
            entry.remember(_download(filesystem, path, entry, version, size))
    return entry.file


def _filesystem(uri: str) -> tuple[Any, str]:
    scheme = scheme_of(uri)
    if scheme in _WEB:  # fsspec would need aiohttp for these, which is not in the core
        return HttpFiles(), uri
    try:
        return url_to_fs(uri)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        if package is None:
            raise MissingExtraError(f"Reading '{uri}' needs a missing package: {error}") from error
        raise MissingExtraError(
            f"Reading '{uri}' needs the package '{package}', which is not installed. Install it with: "
            "pip install 'avex[cloud]', or download the file yourself and give its path."
        ) from error
    except ValueError as error:
        schemes = ["hf", "file", *_WEB, *_PACKAGES]
        raise UnknownNameError(
            f"Unknown kind of URI '{scheme}://' in '{uri}'.{did_you_mean(scheme, schemes)} Known: paths, "
            f"{', '.join(f'{name}://' for name in schemes)} and what fsspec {fsspec.__version__} knows."
        ) from error


def _version(filesystem: Any, path: str, uri: str, folder: Path) -> tuple[str, int | None]:
    try:
        info = filesystem.info(path)
    except (FileNotFoundError, PermissionError) as error:
        raise not_there(uri, error) from error
    except network_errors() as error:
        raise not_available(uri, folder, error) from error
    size = info.get("size")
    version = "|".join(f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key) is not None)
    return version, int(size) if size is not None else None


def _download(filesystem: Any, path: str, entry: CacheEntry, version: str, size: int | None) -> CacheRecord:
    logger.info("Downloading '%s' (%s bytes) to '%s'.", entry.uri, size or "unknown number of", entry.file)
    digest, received = hashlib.sha256(), 0
    with atomic_write(entry.file) as target:
        for block in _blocks(filesystem, path, entry):
            target.write(block)
            digest.update(block)
            received += len(block)
        if size is not None and received != size:
            raise not_available(
                entry.uri, entry.folder, EOFError(f"the transfer ended after {received} of {size} bytes")
            )
    return CacheRecord(entry.uri, version, received, digest.hexdigest())


def _blocks(filesystem: Any, path: str, entry: CacheEntry) -> Iterator[bytes]:
    """Read the remote file. What fails in here is the network's fault; what fails in its reader is not."""
    try:
        with filesystem.open(path, "rb") as source:
            while block := source.read(_BLOCK):
                yield block
    except network_errors() as error:
        if is_local_failure(error):
            raise
        raise not_available(entry.uri, entry.folder, error) from error
