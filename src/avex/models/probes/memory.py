"""How much memory a probe would take and how much there is, before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from avex._core.errors import ConfigError


def module_bytes(build: Callable[[], nn.Module]) -> int | None:
    """Bytes of the parameters and buffers of a module, found without allocating them.

    Args:
        build: Makes the module.

    Returns:
        The bytes, or None for a module that looks at its values while it is built.

    Example:
        >>> module_bytes(lambda: nn.Linear(1000, 1_000_000_000))
        4004000000000
    """
    try:
        with torch.device("meta"):
            module = build()
    except (NotImplementedError, RuntimeError):  # "meta tensors have no values"; other reasons come up again
        return None
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors if t.is_meta)


def available_bytes(device: torch.device) -> int | None:
    """Bytes of memory that are free on a device, or None where that cannot be found out."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has none of these, macOS lacks the first
        return None


def check_memory(needed: int | None, device: torch.device, what: str, advice: str) -> None:
    """Make sure that a module fits.

    Args:
        needed: Its bytes.
        device: Where it is to live.
        what: What it is, for the message.
        advice: What to change.

    Raises:
        ConfigError: It does not.
    """
    free = available_bytes(device)
    if needed is not None and free is not None and needed > free:
        raise ConfigError(
            f"{what} would take {_gigabytes(needed)} of parameters, but {_gigabytes(free)} are free on "
            f"'{device}'. {advice}"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
