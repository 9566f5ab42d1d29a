"""How many threads a runtime outside torch may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

# Processor time that a container may use: microseconds in each period, or "max" (cgroup version 2).
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cpus(sessions: int = 1) -> int:
    """Processors for each of `sessions` that run at the same time, at least one.

    Counts the processors that this process may run on (`taskset`, a batch system), no more than the container's
    quota allows, and no more than `OMP_NUM_THREADS` says: torch keeps to that as well.

    Raises:
        ValueError: `sessions` is below 1.

    Example:
        >>> available_cpus(sessions=10_000)
        1
    """
    if sessions < 1:
        raise ValueError(f"sessions must be at least 1, not {sessions}.")
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        count = os.cpu_count() or 1
    limits = [count, _quota(_QUOTA), _positive(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0])]
    return max(1, min(limit for limit in limits if limit is not None) // sessions)


def _quota(path: Path) -> int | None:
    """Whole processors of a container's quota, rounded up; None without one."""
    try:
        quota, _, period = path.read_text(encoding="ascii").partition(" ")
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _positive(text: str) -> int | None:
    return int(text) if text.strip().isdigit() and int(text) > 0 else None
