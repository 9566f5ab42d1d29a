"""`hf://` files, through the Hugging Face Hub client and its cache."""

from __future__ import annotations

import os
from pathlib import Path

from avex._core.errors import ConfigError
from avex.io.checksum import matches_sha256
from avex.io.failures import is_local_failure, network_errors, not_available, not_there
from avex.io.uris import HubFile

_TIMEOUT = 10.0  # seconds, for the first answer of the Hub


def hub_cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Return the folder of the Hub client's cache, by the client's own rules.

    The environment (`HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`) is read at every call, whereas the client
    reads it once, when it is imported.
    """
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "huggingface" / "hub"


def find_in_hub_cache(uri: str, cache_dir: str | Path | None = None) -> Path | None:
    """Return the cached copy of an `hf://` file, or None. Uses no network.

    Raises:
        ConfigError: The URI is not one of a Hub file.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError

    file = HubFile.parse(uri)
    try:
        found = try_to_load_from_cache(
            file.repo_id,
            file.filename,
            cache_dir=hub_cache_folder(cache_dir),
            revision=file.revision,
            repo_type=file.repo_type,
        )
    except HFValidationError as error:
        raise ConfigError(f"'{uri}' does not name a file on the Hugging Face Hub: {error}") from error
    return Path(found) if isinstance(found, str) else None


def fetch_from_hub(
    uri: str, *, sha256: str | None, offline: bool, cache_dir: str | Path | None = None
) -> Path:
    """Return the local copy of an `hf://` file, downloading it if needed and allowed.

    A cached file with the wanted sha256 is returned without asking the Hub whether there is a newer one.

    Raises:
        ConfigError: The URI is not one of a Hub file.
        MissingFileError: The Hub has no such file, or it is private.
        OfflineError: It is not cached, and the network may not or cannot be used.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    file, folder = HubFile.parse(uri), hub_cache_folder(cache_dir)
    try:
        cached = find_in_hub_cache(uri, cache_dir)
        if cached is not None and sha256 is not None and matches_sha256(cached, sha256):
            return cached
        if cached is None and not offline:
            # One question, since the client's download asks an unreachable Hub six times over half a minute.
            url = hf_hub_url(file.repo_id, file.filename, repo_type=file.repo_type, revision=file.revision)
            get_hf_file_metadata(url, timeout=_TIMEOUT)
        return Path(
            hf_hub_download(
                file.repo_id,
                file.filename,
                repo_type=file.repo_type,
                revision=file.revision,
                cache_dir=folder,
                local_files_only=offline,
            )
        )
    except LocalEntryNotFoundError as error:
        raise not_available(uri, folder, None if offline else error.__cause__ or error) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise not_there(uri, error) from error
    except network_errors() as error:
        if is_local_failure(error):
            raise
        raise not_available(uri, folder, error) from error
