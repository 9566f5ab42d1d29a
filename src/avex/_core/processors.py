"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

# Processor time that a container may use: microseconds in each period, or "max" (cgroup version 2).
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cpus() -> int:
    """Processors this process may use, at least one.

    Counts those that it may run on (`taskset`, a batch system), and no more than the container's quota allows.

    Example:
        >>> available_cpus() >= 1
        True
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        count = os.cpu_count() or 1
    return max(1, min(count, _quota(_QUOTA) or count))


def _quota(path: Path) -> int | None:
    """Whole processors of a container's quota, rounded up; None without one."""
    try:
        quota, _, period = path.read_text(encoding="ascii").partition(" ")
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None
