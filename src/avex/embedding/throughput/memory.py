"""The most memory that a piece of work takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Run something and return the peak of memory in bytes.

    On a GPU that of torch's tensors there; elsewhere the resident memory of the process, with Python and
    everything that is loaded. Where the system cannot start a new count (other than Linux), the peak is that of
    the whole life of the process.

    Returns:
        Bytes, or None where the system does not tell.

    Example:
        >>> peak_memory(lambda: torch.ones(10), torch.device("cpu")) > 1_000_000
        True
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device)
    _restart_count()
    run()
    return _peak_of_process()


def _restart_count() -> None:
    try:
        _CLEAR.write_text("5")
    except OSError:  # not Linux, or a sandbox that does not allow it: the count goes on
        return


def _peak_of_process() -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
