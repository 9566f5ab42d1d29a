"""Import a package that belongs to an extra, or say how to install it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from avex._core.errors import MissingExtraError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or raise with the extra that provides it.

    Args:
        module: Dotted module name.
        extra: The extra of avex that installs it.
        purpose: What it is needed for, as the subject of a sentence ("Running BirdNET").

    Raises:
        MissingExtraError: The package is not installed.

    Example:
        >>> require("json", "none", "Reading JSON").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name.split(".")[0]):
            raise  # the package is there but one of its own imports is not
        raise MissingExtraError(
            f"{purpose} needs the package '{module.split('.')[0]}', which is not installed. "
            f"Install it with: pip install 'avex[{extra}]'"
        ) from error


def available(module: str) -> bool:
    """Tell whether a top-level package is installed, without importing it."""
    return importlib.util.find_spec(module) is not None
