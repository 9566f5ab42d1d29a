"""Any URI to a local path, files that are whole or not there, checksums. Never imports torch."""

from __future__ import annotations

from avex.io.atomic import atomic_path, atomic_write, write_bytes, write_text
from avex.io.cache import cache_folder, is_offline
from avex.io.checksum import sha256_of, verify_sha256
from avex.io.failures import MissingFileError
from avex.io.fetch import cached_path, fetch
from avex.io.uris import is_remote, join_uri

__all__ = [
    "MissingFileError",
    "atomic_path",
    "atomic_write",
    "cache_folder",
    "cached_path",
    "fetch",
    "is_offline",
    "is_remote",
    "join_uri",
    "sha256_of",
    "verify_sha256",
    "write_bytes",
    "write_text",
]
