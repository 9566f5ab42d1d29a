"""Names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from avex._core.registry import load_attribute


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package whose names live in its sub-modules.

    Args:
        package: `__name__` of the package.
        homes: Sub-module of each public name, or where it is in full (`"other.package.module:name"`).

    Example:
        >>> find = lazy_names("avex._core", {"Registry": "registry"})
        >>> find("Registry").__name__
        'Registry'
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        home = homes[name]
        return load_attribute(home if ":" in home else f"{package}.{home}:{name}")

    return __getattr__
