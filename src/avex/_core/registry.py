"""A thread-safe table of names: objects, or `"module:attribute"` strings that load on first use."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar, cast

from avex._core.errors import UnknownNameError, did_you_mean

T = TypeVar("T")


def load_attribute(reference: str) -> object:
    """Import `"package.module:attribute"` and return the attribute.

    Example:
        >>> load_attribute("math:pi") > 3
        True
    """
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry(Generic[T]):
    """Names to objects, loaded lazily.

    Args:
        kind: What the names are, for messages ("model family").
        entries: Initial table; a string value is a lazy `"module:attribute"` reference.

    Example:
        >>> numbers = Registry[float]("constant", {"pi": "math:pi"})
        >>> round(numbers["pi"], 2)
        3.14
    """

    def __init__(self, kind: str, entries: dict[str, T | str] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, T | str] = dict(entries or {})
        self._lock = threading.RLock()

    def register(self, name: str, value: T | str) -> None:
        """Add or replace an entry."""
        with self._lock:
            self._entries[name] = value

    def unregister(self, name: str) -> None:
        """Remove an entry if it is there."""
        with self._lock:
            self._entries.pop(name, None)

    def __getitem__(self, name: str) -> T:
        with self._lock:
            try:
                entry = self._entries[name]
            except KeyError:
                raise UnknownNameError(
                    f"Unknown {self.kind} '{name}'.{did_you_mean(name, self._entries)} "
                    f"Known: {', '.join(sorted(self._entries)) or 'none'}."
                ) from None
            if isinstance(entry, str):
                entry = cast(T, load_attribute(entry))
                self._entries[name] = entry
            return entry

    def get(self, name: str) -> T | None:
        """Return the entry, or None when the name is unknown."""
        if name not in self:
            return None
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
