"""How many threads a runtime outside torch may use."""

from __future__ import annotations

import os

from avex._core.processors import available_cpus


def runtime_threads() -> int:
    """Threads for one operator: all processors, but no more than `OMP_NUM_THREADS` says, as with torch."""
    cpus = available_cpus()
    return min(cpus, _positive(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]) or cpus)


def _positive(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() and int(text) > 0 else None
