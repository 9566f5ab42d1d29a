"""Changes of training clips: seeded for each clip, applied to whole batches on whatever device they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.data.augmentation.batch import BatchAugmenter
    from avex.data.augmentation.noise import NoisePool

__all__ = ["BatchAugmenter", "NoisePool"]

_HOMES = {"BatchAugmenter": "batch", "NoisePool": "noise"}


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
