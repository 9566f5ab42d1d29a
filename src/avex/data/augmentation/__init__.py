"""Changes of training clips: seeded for each clip, applied to whole batches on whatever device they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.registry import load_attribute

if TYPE_CHECKING:
    from avex.data.augmentation.batch import BatchAugmenter
    from avex.data.augmentation.noise import NoisePool

__all__ = ["BatchAugmenter", "NoisePool"]

_HOMES = {"BatchAugmenter": "batch", "NoisePool": "noise"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = load_attribute(f"{__name__}.{_HOMES[name]}:{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
