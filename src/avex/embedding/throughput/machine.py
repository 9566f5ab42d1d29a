"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from avex._core.version import __version__


def device_name(device: torch.device) -> str:
    """Name of a processor or GPU, for people.

    Example:
        >>> bool(device_name(torch.device("cpu")))
        True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name() if device.type == "cpu" else device.type.upper()


def describe_machine() -> dict[str, Any]:
    """Facts to keep with a measurement: versions, processor, what it can compute.

    Example:
        >>> sorted(describe_machine())
        ['avex', 'cpu', 'cpu_capability', 'load_average', 'processors', 'python', 'system', 'torch']
    """
    return {
        "avex": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # other systems, and processors that do not say
        return platform.processor() or platform.machine()
